"""Forms with a file: they go on while they still come, byte for byte where nothing is to be changed, and never whole
where something is wrong with them. What is wrong with a form is in unit/proxy/test_form, case by case."""

import hashlib
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import openai
import pytest
from werkzeug.formparser import parse_form_data

from tests.support.always_true import Watch, always_true
from tests.support.loopback_server import LIMIT_S
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import RawAnswer, answers_of
from tests.support.raw_http import RawCaller, error_of, field_of, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.upload_upstream import UploadUpstream
from tests.support.waiting import wait_for

TRANSCRIPTIONS = "/v1/audio/transcriptions"
KEYS = {"caller-key-all": ["*"], "caller-key-few": ["given"]}
MOST_BYTES = 8 * 1024 * 1024
BOUNDARY = "----b.7"
SOUND = bytes(range(256)) * 16 + b"\r\n--\r\n------b.8\r\n"  # with what looks like the begin of a boundary
HONEST = "GET /healthz HTTP/1.1\r\nHost: p\r\nX-Request-Id: {}\r\nConnection: close\r\n\r\n"
OK = (
    b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"text":"Hi"}'
)
FRAMES = (
    b'event: transcript.text.delta\ndata: {"type":"transcript.text.delta","delta":"Hi"}\n\n',
    b'event: transcript.text.done\ndata: {"type":"transcript.text.done","text":"Hi"}\n\n',
)
framings = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])


@pytest.fixture(scope="module")
def _raw_of_module() -> Iterator[UploadUpstream]:
    with UploadUpstream() as upstream:
        yield upstream


@pytest.fixture
def raw(_raw_of_module: UploadUpstream) -> UploadUpstream:
    _raw_of_module.forget()
    return _raw_of_module


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient, raw: UploadUpstream, worker_class: str) -> ProxyProcess:
    """One worker in front of the sandbox and of the raw upstream, which has models of its own."""
    keys = [
        {"label": key[-3:], "sha256": hashlib.sha256(key.encode()).hexdigest(), "models": models}
        for key, models in KEYS.items()
    ]
    server = {"worker_class": worker_class, "max_body_bytes": MOST_BYTES}
    config = sandbox.config(server=server, client_keys=keys)
    [llm] = config["upstreams"]
    llm["models"] = {"given": "given", "alias": "whisper-large"}
    changed = {"strip_fields": ["drop_params"], "set_fields": {"language": "de", "temperature": 0.5}}
    # Of its own, since forced fetches are few and all proxies with the same source share them.
    config["token_sources"]["raw"] = {**config["token_sources"]["corp"], "headers": {"X-For": f"raw {worker_class}"}}
    own_token, no_token = {"token_source": "raw"}, {"token_source": None}
    config["upstreams"] += [
        {
            **llm,
            **own_token,
            "name": "raw",
            "base_url": f"{raw.url}/v1",
            "models": {"raw": "raw", "raw-alias": "renamed"},
        },
        {**llm, "name": "changed", "models": {"changed": "renamed"}, **changed},
        {**llm, **no_token, "name": "down", "base_url": "http://127.0.0.1:9/v1", "models": {"down": "x"}},
        {**llm, "name": "second", "models": {"down": "there"}},
        {**llm, **no_token, "name": "adapted", "adapter": "plain_sse", "models": {"adapted": "x"}},
    ]
    config["upstreams"][3]["fail_over_to"] = "second"
    return farm.proxy(config)


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


FILE = part("file", SOUND, '; filename="a.wav"')
END = f"--{BOUNDARY}--\r\n".encode()


def model_part(model: str) -> bytes:
    return part("model", model.encode())


def form(model: str) -> bytes:
    return model_part(model) + FILE + END


def head(watch: Watch, framing: str, key: str = "caller-key-all", path: str = TRANSCRIPTIONS) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: p", f"Authorization: Bearer {key}", framing]
    lines += [f"X-Request-Id: {watch.request_id()}", f"Content-Type: multipart/form-data; boundary={BOUNDARY}"]
    return "\r\n".join([*lines, "", ""]).encode()


def begin(caller: RawCaller, watch: Watch, length: int, *, chunked: bool, **more: str) -> Callable[[bytes], None]:
    """Send the head of a form; what sends its pieces, an empty one being the last chunk."""
    caller.send(head(watch, "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}", **more))

    def send(piece: bytes) -> None:
        caller.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

    return send


def post(proxy: ProxyProcess, watch: Watch, raw_form: bytes, **more: str) -> list[RawAnswer]:
    """The answers to a whole form and to an honest request behind it."""
    with RawCaller(proxy.port) as caller:
        request = head(watch, f"Content-Length: {len(raw_form)}", **more) + raw_form
        caller.send(request + HONEST.format(watch.request_id(may_be_lost=True)).encode())
        return answers_of(watch.saw(caller.read_to_end()))


def body_of(come: bytes) -> bytes:
    """Of a request on the wire."""
    request_head, _, body = come.partition(b"\r\n\r\n")
    if field_of(request_head, "Transfer-Encoding") != "chunked":
        assert field_of(request_head, "Content-Length") == str(len(body))
        return body
    [answer] = answers_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    return answer.body


def fields_of(entry: dict[str, Any]) -> dict[str, bytes]:
    """What a framework finds in the form that came to the sandbox."""
    given = {name.lower(): value for name, value in entry["headers"]}
    body = entry["body"]
    environ = {"CONTENT_TYPE": given["content-type"], "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
    _, fields, files = parse_form_data(environ)  # type: ignore[arg-type]
    found = {name: value.encode() for name, value in fields.items()}
    for name, file in files.items():
        with closing(file):
            found[name] = file.read()
    return found


# Clients


def test_openai_client_sends_a_file_to_both_routes(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    client = openai.OpenAI(base_url=proxy.api, api_key="caller-key-all", max_retries=0)
    large = SOUND * 1000
    for create, path in (
        (client.audio.transcriptions.create, "/v1/audio/transcriptions"),
        (client.audio.translations.create, "/v1/audio/translations"),
    ):
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):  # the client's own
            answer = create(model="given", file=("a.wav", large), prompt="größer", temperature=0.5)
        entry = sandbox.last()
        assert (entry["path"], entry["token"]) == (path, "valid")
        assert fields_of(entry) == {
            "model": b"given",
            "file": large,
            "prompt": "größer".encode(),
            "temperature": b"0.5",
        }
        assert hashlib.sha256(entry["body"]).hexdigest() in answer.text
    client.close()


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/plain; charset=utf-8", "Grüße\n"),
        ("text/vtt", "WEBVTT\n\n"),
        ("application/x-subrip", "1\n00:00 --> 1\n"),
    ],
)
def test_transcript_comes_as_the_text_that_the_upstream_sent(
    proxy: ProxyProcess, sandbox: SandboxClient, content_type: str, text: str
) -> None:
    sandbox.faults(upstream=[{"kind": "reply", "body": text, "content_type": content_type}])
    client = openai.OpenAI(base_url=proxy.api, api_key="caller-key-all", max_retries=0)
    answer = client.audio.transcriptions.with_raw_response.create(model="given", file=b"x", response_format="text")
    assert (answer.headers["Content-Type"], answer.text) == (content_type, text)
    client.close()


def test_transcript_comes_as_a_stream_with_the_names_of_its_events(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    client = openai.OpenAI(base_url=proxy.api, api_key="caller-key-all", max_retries=0)
    sandbox.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *FRAMES)
    events = list(client.audio.transcriptions.create(model="given", file=b"x", stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    with always_true(proxy, sandbox, secrets=KEYS) as watch:
        [answer, *_] = post(proxy, watch, form("given"))
    assert answer.body == b"".join(FRAMES)
    client.close()


def test_page_instead_of_a_transcript_is_502(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with always_true(proxy, sandbox, secrets=KEYS) as watch:
        for content_type in ("text/html", "application/json"):
            sandbox.faults(upstream=[{"kind": "reply", "body": "<html>Log in", "content_type": content_type}])
            answer = post(proxy, watch, form("given"))[0]
            assert (answer.status, error_of(answer.head + b"\r\n\r\n" + answer.body)["code"]) == (
                502,
                "upstream_unavailable",
            )


@pytest.mark.parametrize(
    ("model", "there"), [("given", b"given"), ("alias", b"whisper-large")], ids=["as it is", "renamed"]
)
def test_curl_sends_the_model_first_last_and_in_chunks(
    proxy: ProxyProcess, sandbox: SandboxClient, tmp_path: Path, model: str, there: bytes
) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(SOUND * 500)  # long enough for curl to ask before it sends
    for words in (
        ["-F", f"model={model}", "-F", f"file=@{file}"],
        ["-F", f"file=@{file}", "-F", f"model={model}"],
        ["-F", f"file=@{file}", "-F", f"model={model}", "-H", "Transfer-Encoding: chunked"],
    ):
        command = ["curl", "-sS", "--max-time", "20", "--noproxy", "*", "-H", "Authorization: Bearer caller-key-all"]
        done = subprocess.run(
            [*command, *words, proxy.url + TRANSCRIPTIONS], capture_output=True, text=True, check=True
        )
        entry = sandbox.last()
        assert hashlib.sha256(entry["body"]).hexdigest() in done.stdout
        assert fields_of(entry) == {"model": there, "file": SOUND * 500}
        fields = {name.lower(): value for name, value in entry["headers"]}
        framing = {"transfer-encoding": "chunked"} if "-H" in words else {"content-length": str(len(entry["body"]))}
        assert {name: fields[name] for name in fields.keys() & {"content-length", "transfer-encoding"}} == framing


# On the way


@framings
@pytest.mark.parametrize("model", ["raw", "raw-alias"])
def test_form_is_at_the_upstream_before_the_caller_has_sent_its_end(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream, model: str, chunked: bool
) -> None:
    there = "renamed" if model == "raw-alias" else model
    raw.answer(b"0\r\n\r\n" if chunked else END, OK)
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, len(form(model)), chunked=chunked)
        send(model_part(model) + FILE[:200])
        raw.wait_for(SOUND[:10])
        send(FILE[200:] + END)
        send(b"") if chunked else None
        assert watch.saw(caller.read_until(b"}")).endswith(b'{"text":"Hi"}')
    come = raw.wait_until_left()
    assert body_of(come) == form(there)
    assert field_of(come, "Content-Type") == f"multipart/form-data; boundary={BOUNDARY}"
    assert come.startswith(b"POST /v1/audio/transcriptions HTTP/1.1\r\n")


def test_form_whose_model_comes_last_is_held_until_then(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream
) -> None:
    raw.answer(END, OK)
    whole = FILE + model_part("raw") + END
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, len(whole), chunked=False)
        for at in range(0, len(whole), 100):
            send(whole[at : at + 100])
        assert status_of(watch.saw(caller.read_until(b"}"))) == 200
    assert body_of(raw.wait_until_left()) == whole


def test_form_is_changed_where_the_config_asks_for_it(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with always_true(proxy, sandbox, secrets=KEYS) as watch:
        fields = part("drop_params", b"true") + FILE + model_part("changed") + part("language", b"fr")
        assert post(proxy, watch, fields + END)[0].status == 200
    expected = {"model": b"renamed", "file": SOUND, "language": b"fr", "temperature": b"0.5"}
    assert fields_of(sandbox.last()) == expected


def test_refused_token_is_replaced_and_the_form_sent_again_while_it_still_comes(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream, worker_class: str
) -> None:
    chunked = worker_class == "gevent"
    answered = threading.Event()
    raw.answer(SOUND[:10], b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", answered.set)
    raw.answer(b"0\r\n\r\n" if chunked else END, OK)
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, len(form("raw")), chunked=chunked)
        send(model_part("raw") + FILE[:500])
        assert answered.wait(LIMIT_S)
        send(FILE[500:700])
        raw.wait_for(FILE[:500], connection=1)
        send(FILE[700:] + END)
        send(b"") if chunked else None
        assert status_of(watch.saw(caller.read_until(b"}"))) == 200
    first, second = raw.wait_until_left(0), raw.wait_until_left(1)
    assert body_of(second) == form("raw")
    assert END not in first
    assert field_of(first, "Authorization") != field_of(second, "Authorization")


def test_upstream_that_is_down_has_its_second_take_the_form(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with always_true(proxy, sandbox, secrets=KEYS) as watch:
        assert post(proxy, watch, form("down"))[0].status == 200
    assert fields_of(sandbox.last()) == {"model": b"there", "file": SOUND}


@framings
def test_answer_of_an_upstream_that_wants_no_more_reaches_a_caller_that_waits(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream, chunked: bool
) -> None:
    refusal = b'HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"error": 1}'
    raw.answer(SOUND[:10], refusal)
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, 1_000_000, chunked=chunked)
        send(model_part("raw") + FILE)
        [answer] = answers_of(watch.saw(caller.read_until(b'{"error": 1}')))
        assert (answer.status, answer.field("Connection"), answer.body) == (413, "close", b'{"error": 1}')
    assert raw.wait_until_left().endswith(FILE + b"\r\n" * chunked)


# What is wrong


@pytest.mark.parametrize(
    ("key", "model", "status", "code"),
    [
        ("caller-key-few", "alias", 403, "model_not_allowed"),
        ("caller-key-all", "nobody's", 404, "model_not_found"),
        ("caller-key-all", "adapted", 404, "not_found"),
    ],
)
def test_model_decides_before_anything_is_sent(
    proxy: ProxyProcess, sandbox: SandboxClient, key: str, model: str, status: int, code: str
) -> None:
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, 1_000_000, chunked=False, key=key)
        send(model_part(model) + part("x", b""))
        [answer] = answers_of(watch.saw(caller.read_until(b"}}\n")))
        assert (answer.status, answer.field("Connection")) == (status, "close")
        assert code.encode() in answer.body
        assert post(proxy, watch, form("given"), key=key)[0].status == 200
    assert [fields_of(entry)["model"] for entry in sandbox.log()] == [b"given"]


@framings
@pytest.mark.parametrize(
    ("rest", "text"),
    [
        pytest.param(model_part("given") + END, b"given twice", id="a second model"),
        pytest.param(END + END, b"goes on behind", id="a second end"),
        pytest.param(b"", b"ends before its closing boundary", id="no end"),
    ],
)
def test_form_that_turns_out_to_be_wrong_is_broken_off_and_answered_400(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream, rest: bytes, text: bytes, chunked: bool
) -> None:
    raw.answer(b"-" * 10_000, OK)  # never
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, len(model_part("raw") + FILE + rest), chunked=chunked)
        send(model_part("raw") + FILE[:-1])
        raw.wait_for(SOUND[:10])
        honest = HONEST.format(watch.request_id(may_be_lost=True)).encode()
        with suppress(ConnectionError):  # ended already
            send(FILE[-1:] + rest)
            send(b"") if chunked else None
            caller.send(honest)
        [answer] = answers_of(watch.saw(caller.read_to_end()))
        assert (answer.status, answer.field("Connection")) == (400, "close")
        assert text in answer.body
    request_head, _, come = raw.wait_until_left().partition(b"\r\n\r\n")
    if chunked:
        assert not come.endswith(b"0\r\n\r\n")
    else:
        assert len(come) < int(field_of(request_head, "Content-Length") or 0)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"model": "given"}'),
        ("multipart/form-data", form("given")),
        (f"multipart/form-data; boundary={BOUNDARY}; boundary=x", form("given")),
        (f"multipart/form-data; boundary={BOUNDARY}", FILE + END),
        (f"multipart/form-data; boundary={BOUNDARY}", b""),
    ],
    ids=["JSON", "no boundary", "two boundaries", "no model", "nothing"],
)
def test_what_is_no_form_is_400(proxy: ProxyProcess, sandbox: SandboxClient, content_type: str, body: bytes) -> None:
    with always_true(proxy, sandbox, secrets=KEYS) as watch:
        answer = watch.ask(TRANSCRIPTIONS, key="caller-key-all", content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert sandbox.log() == []


@framings
@pytest.mark.parametrize("model", ["raw", None], ids=["on its way", "held"])
def test_form_over_the_limit_is_413_and_can_be_read_by_a_caller_that_goes_on_sending(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream, model: str | None, chunked: bool
) -> None:
    start = (model_part(model) if model else b"") + FILE[:-2]
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        send = begin(caller, watch, MOST_BYTES + 1, chunked=chunked)
        send(start)
        if chunked and model:
            raw.wait_for(SOUND[:10])
        with suppress(ConnectionError):  # cut off
            for _ in range(100):
                send(b"x" * 1_000_000)
        [answer] = answers_of(watch.saw(caller.read_to_end()))
        assert (answer.status, answer.field("Connection")) == (413, "close")
        assert b"body_too_large" in answer.body
    if chunked and model:
        assert not raw.wait_until_left().endswith(b"0\r\n\r\n")
    else:
        assert raw.received == []


@framings
def test_chunks_that_cannot_be_read_are_400_and_a_caller_that_leaves_ends_the_request(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream, chunked: bool
) -> None:
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        since = proxy.logged_bytes()
        send = begin(caller, watch, 1_000_000, chunked=chunked)
        send(model_part("raw") + FILE)
        raw.wait_for(SOUND[:10])
        if chunked:
            caller.send(b"nonsense\r\n")
            assert status_of(watch.saw(caller.read_to_end())) == 400
        else:
            caller.reset()
        assert not raw.wait_until_left().endswith(END)
    [line] = [line for line in proxy.access_lines(since) if watch.ids[0] in line]
    assert "status=400" in line if chunked else "status=499 outcome=caller_gone" in line


def test_caller_that_leaves_while_the_upstream_reads_nothing_ends_the_request(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream
) -> None:
    stuck = threading.Event()
    raw.answer(SOUND[:10], partial(stuck.wait, LIMIT_S))
    with always_true(proxy, sandbox, secrets=KEYS) as watch:
        with RawCaller(proxy.port) as caller:
            send = begin(caller, watch, MOST_BYTES, chunked=False)
            send(model_part("raw") + FILE[:-2])
            raw.wait_for(SOUND[:10])
            caller.sock.settimeout(1)
            with suppress(TimeoutError):  # where all buffers on the way are full
                send(b"x" * 7_000_000)
            caller.reset()  # its end would wait behind what it has sent
        wait_for(lambda: any(watch.ids[0] in line for line in proxy.access_lines()))
        [line] = [line for line in proxy.access_lines() if watch.ids[0] in line]
        assert "outcome=caller_gone" in line
        stuck.set()


# Down


def test_speech_reaches_the_caller_while_the_upstream_still_speaks(
    proxy: ProxyProcess, sandbox: SandboxClient, raw: UploadUpstream
) -> None:
    heard = threading.Event()
    answer_head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: audio/mpeg\r\nContent-Length: 10\r\n\r\n"
    raw.answer(b"}", answer_head, b"first", partial(heard.wait, LIMIT_S), b"other")
    with always_true(proxy, sandbox, secrets=KEYS) as watch, RawCaller(proxy.port) as caller:
        fields = ["Authorization: Bearer caller-key-all", f"X-Request-Id: {watch.request_id()}"]
        caller.post("/v1/audio/speech", {"model": "raw", "input": "Hi", "voice": "x"}, *fields)
        come = caller.read_until(b"first\r\n")
        heard.set()
        [answer] = answers_of(watch.saw(come + caller.read_until(b"0\r\n\r\n")))
        assert (answer.field("Content-Type"), answer.body) == ("audio/mpeg", b"firstother")
