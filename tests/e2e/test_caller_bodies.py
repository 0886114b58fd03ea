"""Bodies made to break a parser or to be read in different ways, that nobody reads, or that are a byte too long, and
callers that go on sending; all others of the table of errors are in test_error_table."""

import hashlib
import json
from typing import Any

import pytest

from tests.support.always_true import Watch, always_true
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import answers_of
from tests.support.raw_http import RawCaller, error_of, status_of
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
KEY = "caller-key-1"
MOST_BYTES = 200_000
RAW = json.dumps(BODY).encode()
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(RAW)}\r\n\r\n"
HIDDEN = HEAD.encode() + RAW
HONEST = "GET /healthz HTTP/1.1\r\nHost: p\r\nX-Request-Id: {}\r\nConnection: close\r\n\r\n"


@pytest.fixture
def guarded(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> ProxyProcess:
    """A proxy with one client key, for bodies of up to 200 kB."""
    server = {"worker_class": worker_class, "max_body_bytes": MOST_BYTES}
    keys = [{"label": "one", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
    return farm.proxy(sandbox.config(server=server, client_keys=keys))


def nested(start: str, end: str, depth: int) -> bytes:
    return b'{"model":"m","messages":' + (start * depth + "1" + end * depth).encode() + b"}"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(nested("[", "]", 50_000), "invalid_json", id="lists in lists"),
        pytest.param(nested('{"a":', "}", 30_000), "invalid_json", id="objects in objects"),
        pytest.param(b"[" * 100_000, "invalid_json", id="lists without an end"),
        pytest.param(b'{"a":' * 39_000, "invalid_json", id="objects without an end"),
        pytest.param(b'{"model":"m","n":' + b"1" * 5000 + b"}", "invalid_json", id="a number of 5,000 digits"),
        pytest.param(b'{"model":"m","n":-' + b"1" * 5000 + b"}", "invalid_json", id="a negative one"),
        pytest.param(b'{"model":"m","n":1e309}', "invalid_json", id="a number past the largest"),
        pytest.param(b'{"model":"m","n":01}', "invalid_json", id="a leading zero"),
        pytest.param(b'{"model":"m","n":[{"a":1,"a":2}]}', "invalid_json", id="a member twice, deep inside"),
        pytest.param(b'{"model":"m\\udc00"}', "invalid_json", id="a lone surrogate"),
        pytest.param(b'{"model":"m","\\ud800":1}', "invalid_json", id="a lone surrogate in a name"),
        pytest.param(b'{"model":"m\xed\xa0\x80"}', "invalid_json", id="a surrogate in UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"model":"m"}', "invalid_json", id="a BOM"),
        pytest.param(json.dumps(BODY).encode("utf-32"), "invalid_json", id="UTF-32"),
        pytest.param(json.dumps(BODY).encode() * 2, "invalid_json", id="two documents"),
        pytest.param(json.dumps(BODY).encode() + b"\0", "invalid_json", id="a trailing NUL"),
        pytest.param(b'{"model":"m",}', "invalid_json", id="a trailing comma"),
        pytest.param(b"{'model':'m'}", "invalid_json", id="single quotes"),
        pytest.param(b'{"model":"m\n"}', "invalid_json", id="a line end in a text"),
        pytest.param(b'{"model":"m" /* x */}', "invalid_json", id="a remark"),
        pytest.param(b"1", "invalid_request", id="a number"),
        pytest.param(b'{"model":["m"]}', "invalid_request", id="a list of models"),
        pytest.param(b'{"model":{"m":1}}', "invalid_request", id="a model that is an object"),
        pytest.param(b'{"model":true}', "invalid_request", id="a model that is true"),
        pytest.param(b'{"model":"m","stream":1}', "invalid_request", id="stream as a number"),
        pytest.param(b'{"model":"m","stream":[]}', "invalid_request", id="stream as a list"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_body_that_parsers_read_in_different_ways_is_400(
    guarded: ProxyProcess, sandbox: SandboxClient, path: str, raw: bytes, code: str
) -> None:
    with always_true(guarded, sandbox, secrets=[KEY]) as watch:
        answer = watch.ask(path, key=KEY, content=raw)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert sandbox.log() == []
    assert "Traceback" not in guarded.log()


@pytest.mark.parametrize("most", [1000, 1024 * 1024])  # gunicorn reads 1 KiB at least, and at most 1 MiB
@pytest.mark.parametrize("last_alone", [False, True], ids=["in one chunk", "the last byte in its own"])
def test_body_that_is_a_byte_too_long_is_413_though_nothing_follows(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, most: int, last_alone: bool
) -> None:
    server = {"worker_class": worker_class, "max_body_bytes": most}
    proxy = farm.proxy(sandbox.config(server=server))
    sizes = [most, 1] if last_alone else [most + 1]
    with always_true(proxy, sandbox) as watch, RawCaller(proxy.port) as caller:
        send_head(caller, watch, "Transfer-Encoding: chunked")
        caller.send(b"\r\n".join(b"%x\r\n%b" % (size, b" " * size) for size in sizes))
        answer = watch.saw(caller.read_until(b"}}"))  # long before the time of a body is over
        assert (status_of(answer), error_of(answer)["code"]) == (413, "body_too_large")
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "sent",
    [b"f" * 16 + b"\r\n{", b"30d41\r\n", b"1" + b"0" * 100 + b"\r\n", b"1\r\n{\r\n30d40\r\n", b"30D41;a=b\r\n{"],
    ids=repr,
)
def test_chunk_that_is_announced_too_long_is_413_before_it_comes(
    guarded: ProxyProcess, sandbox: SandboxClient, sent: bytes
) -> None:
    with always_true(guarded, sandbox) as watch, RawCaller(guarded.port) as caller:
        send_head(caller, watch, "Transfer-Encoding: chunked")
        caller.send(sent)
        [answer] = answers_of(watch.saw(caller.read_until(b"}}\n")))  # long before the time of a body is over
        assert (answer.status, answer.field("Connection")) == (413, "close")
    assert sandbox.log() == []


@pytest.mark.parametrize(
    ("fields", "key", "expected"),
    [
        ("Content-Length: {}", KEY, [100, 200]),
        ("Transfer-Encoding: chunked", KEY, [100, 200]),
        (f"Content-Length: {MOST_BYTES + 1}", KEY, [413]),
        ("Content-Length: {}", "wrong", [401]),
        ("Transfer-Encoding: chunked", "wrong", [401]),
    ],
)
def test_caller_is_asked_for_its_body_when_it_is_read_and_else_gets_the_last_answer_of_its_connection_alone(
    guarded: ProxyProcess, sandbox: SandboxClient, fields: str, key: str, expected: list[int]
) -> None:
    with always_true(guarded, sandbox) as watch, RawCaller(guarded.port) as caller:
        framing = fields.format(len(RAW))
        send_head(caller, watch, f"Expect: 100-continue\r\n{framing}", key=key)
        answered = b""
        if expected[0] == 100:
            answered = caller.read_until(b"\r\n\r\n")
            honest = watch.request_id()
            caller.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(RAW), RAW) if "chunked" in fields else RAW)
            caller.send(HONEST.format(honest).encode())
        answers = answers_of(answered + caller.read_to_end())
        watch.saw(b"".join(answer.head + b"\r\n\r\n" + answer.body for answer in answers if answer.status >= 200))
    if expected[0] == 100:
        expected = [*expected, 200]  # the honest one behind it
    assert [answer.status for answer in answers] == expected
    assert answers[-1].field("Connection") == "close"
    assert [entry["body"] for entry in sandbox.log()] == [RAW] * (100 in expected)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize(
    ("path", "key", "status"),
    [(CHAT, "wrong", 401), ("/nowhere", KEY, 404), ("/v1/models", KEY, 200)],
    ids=["401", "404", "200"],
)
def test_body_that_nobody_reads_is_never_taken_for_requests_and_the_connection_stays_where_the_answer_says_so(
    guarded: ProxyProcess, sandbox: SandboxClient, path: str, key: str, status: int, chunked: bool
) -> None:
    with always_true(guarded, sandbox) as watch:
        for size in (1_000, 60_000, 70_000, 150_000, 1_000_000):  # gunicorn's own threads drain 64 KiB
            body = HIDDEN * (size // len(HIDDEN))
            framing = f"Content-Length: {len(body)}"
            if chunked:
                framing, body = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            with RawCaller(guarded.port) as caller:
                send_head(caller, watch, framing, path=path, key=key, method="GET" if status == 200 else "POST")
                honest = watch.request_id(may_be_lost=True)
                caller.send(body + HONEST.format(honest).encode())
                first, *others = answers_of(watch.saw(caller.read_to_end()))
            assert first.status == status
            served = [(200, honest)] if first.field("Connection") == "keep-alive" else []
            assert [(other.status, other.field("X-Request-Id")) for other in others] == served
    assert [entry for entry in sandbox.log() if entry["path"].endswith("completions")] == []


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_caller_that_goes_on_sending_is_cut_off_and_can_read_why(
    guarded: ProxyProcess, sandbox: SandboxClient, chunked: bool
) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {10**9}"
    with always_true(guarded, sandbox) as watch, RawCaller(guarded.port) as caller:
        send_head(caller, watch, framing)
        assert send_until_cut_off(caller, b"100000\r\n" + b" " * 1_048_576 + b"\r\n") < 500
        [answer] = answers_of(watch.saw(caller.read_to_end()))
        assert answer.status == 413
    assert sandbox.log() == []


def send_head(
    caller: RawCaller, watch: Watch, framing: str, *, path: str = CHAT, key: str = KEY, method: str = "POST"
) -> None:
    fields = f"Host: p\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {watch.request_id()}\r\n{framing}\r\n"
    caller.send(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())


def send_until_cut_off(caller: RawCaller, piece: bytes) -> int:
    """How often it could be sent, 500 times at most."""
    for count in range(500):
        try:
            caller.send(piece)
        except ConnectionError:
            return count
    return 500
