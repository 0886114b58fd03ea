"""Heads that are odd: refused where others may read them in another way, and never a way into the upstream.

Each goes with an honest request behind it, in one write, as in test_smuggling: what is refused gets one answer and
the connection is closed; what is served gets its own, and the honest one its own.
"""

import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.raw_answers import RawAnswer, answers_of
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.scripted_upstream import ScriptedUpstream

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hello"}]}'
FIRST = b"POST /v1/chat/completions HTTP/1.1\r\n"
FIELDS = b"Host: proxy\r\nContent-Length: %d\r\n" % len(BODY)
HONEST = b"GET /healthz HTTP/1.1\r\nHost: proxy\r\nX-Request-Id: honest\r\nConnection: close\r\n\r\n"
CONTROLS = [bytes([number]) for number in (0, 1, 8, 11, 12, 14, 27, 31, 127)]


def post(first: bytes = FIRST, fields: bytes = FIELDS) -> bytes:
    return first + fields + b"\r\n" + BODY


def exchange(proxy: ProxyProcess, data: bytes) -> list[RawAnswer]:
    with RawCaller(proxy.port) as caller:
        caller.send(data + HONEST)
        return answers_of(caller.read_to_end())


def statuses(answers: list[RawAnswer]) -> list[int]:
    """Of all of them; where the honest request was answered, that it was it which got the last one."""
    if len(answers) > 1:
        assert (answers[-1].field("X-Request-Id"), answers[-1].body) == ("honest", b'{"status":"ok"}\n')
    return [answer.status for answer in answers]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(post().replace(b"\r\n", b"\n"), id="LF everywhere"),
        pytest.param(post(FIRST.replace(b"\r\n", b"\n")), id="LF behind the first line"),
        pytest.param(post(fields=FIELDS.replace(b"\r\n", b"\n", 1)), id="LF behind a field"),
        pytest.param(post(fields=FIELDS.removesuffix(b"\r\n") + b"\n"), id="LF at the end"),
        pytest.param(post(fields=b"X: a\rb\r\n" + FIELDS), id="CR in a value"),
        pytest.param(post(fields=b"X: a\r\r\n" + FIELDS), id="CR at the end of a value"),
        pytest.param(post(fields=b"X: a\r" + FIELDS), id="CR behind a field"),
        pytest.param(post(fields=b"X\r: a\r\n" + FIELDS), id="CR in a name"),
        pytest.param(post(fields=FIELDS.removeprefix(b"Host: proxy\r\n")), id="no Host"),
        pytest.param(post(fields=FIELDS.replace(b"proxy", b"a/b?c#d")), id="a path in Host"),
        pytest.param(post(fields=FIELDS.replace(b"proxy", b"a b")), id="a blank in Host"),
        *[pytest.param(post(fields=b"X: a%bb\r\n" % byte + FIELDS), id=f"{byte!r} in a value") for byte in CONTROLS],
        *[pytest.param(post(fields=b"X%bY: a\r\n" % byte + FIELDS), id=f"{byte!r} in a name") for byte in CONTROLS],
        *[
            pytest.param(post(fields=line + b"\r\n" + FIELDS), id=repr(line)[2:-1])
            for line in (
                *(b"X : a", b"X\t: a", b" X: a", b"\tX: a", b": a", b"X", b"X Y: a", b"X: a\r\n b", b"X: a\r\n\tb"),
                *(b"(X): a", b"X@Y: a", b"X[]: a", b'"X": a', b"\xe9: a", b"X_Forwarded_For: 1.1.1.1", b"X_: a"),
                *(b"Content_Length: 0", b"Authorization_: x", b"Host: other", b"Content-Type: a\r\nContent-Type: b"),
            )
        ],
    ],
)
def test_field_that_others_may_read_otherwise_is_refused(
    proxy: ProxyProcess, sandbox: SandboxClient, data: bytes
) -> None:
    answers = exchange(proxy, data)
    assert (statuses(answers), answers[0].field("Connection")) == ([400], "close")
    assert answers[0].field("Content-Type") == "application/json"
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "first",
    [
        *(b"POST /v1/chat/completions\r\n", b"POST  /v1/chat/completions HTTP/1.1\r\n"),
        *(b"POST /v1/chat/completions  HTTP/1.1\r\n", b"POST\t/v1/chat/completions\tHTTP/1.1\r\n"),
        *(b" POST /v1/chat/completions HTTP/1.1\r\n", b"POST /v1/chat/completions HTTP/1.1 \r\n"),
        *(b"POST /v1/chat/completions HTTP/1.1\x00\r\n", b"POST /v1/chat/completions\x00 HTTP/1.1\r\n"),
        *(b"POST /v1/chat/completions\x0b HTTP/1.1\r\n", b"POST /v1/chat/completions\rX HTTP/1.1\r\n"),
        *(b"POST /v1/chat/\xe9 HTTP/1.1\r\n", b"POST v1/chat/completions HTTP/1.1\r\n", b"POST * HTTP/1.1\r\n"),
        *(b"POST proxy:80 HTTP/1.1\r\n", b"POST  HTTP/1.1\r\n", b"POST /v1/chat/completions http/1.1\r\n"),
        *(b"POST /v1/chat/completions HTTP/2.0\r\n", b"POST /v1/chat/completions HTTP/1.10\r\n"),
        b"POST /v1/chat/completions HTTP/1.2\r\n",
        *(b"POST /v1/chat/completions HTTP/0.9\r\n", b"POST /v1/chat/completions HTTP/1,1\r\n"),
        *(b"post /v1/chat/completions HTTP/1.1\r\n", b"P@ST /v1/chat/completions HTTP/1.1\r\n"),
        *(b"POST /v1/chat/completions#x HTTP/1.1\r\n", b"POST /v1/chat/completions?a#x HTTP/1.1\r\n"),
        *(b"POST http://u@evil/v1/chat/completions HTTP/1.1\r\n", b"POST http:///v1/chat/completions HTTP/1.1\r\n"),
        *(b"POST ftp://h/v1/chat/completions HTTP/1.1\r\n", b"POST http://h\\/v1/chat/completions HTTP/1.1\r\n"),
        *(b"POST http://h/v1/chat/completions#x HTTP/1.1\r\n", b"POST x/http://h/v1/chat/completions HTTP/1.1\r\n"),
        *(b"P\x00ST /v1/chat/completions HTTP/1.1\r\n", b"XX /v1/chat/completions HTTP/1.1\r\n", b"\r\n\r\n" + FIRST),
    ],
    ids=repr,
)
def test_first_line_that_breaks_http_is_refused(proxy: ProxyProcess, sandbox: SandboxClient, first: bytes) -> None:
    assert statuses(exchange(proxy, post(first))) == [400]
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /v1/models\r\n", id="0.9"),
        pytest.param(b"GET /v1/models\r\n\r\n", id="0.9 and a blank line"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(b"\0" * 5000 + b"\r\n\r\n", id="zeros"),
    ],
)
def test_other_protocols_are_refused(proxy: ProxyProcess, sandbox: SandboxClient, data: bytes) -> None:
    [status] = statuses(exchange(proxy, data))
    assert status in (400, 414)
    assert sandbox.log() == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(post(fields=b"".join(b"X-%d: a\r\n" % at for at in range(200)) + FIELDS), 431, id="200 fields"),
        pytest.param(post(fields=b"X: " + b"a" * 16_384 + b"\r\n" + FIELDS), 431, id="a line of 16 KB"),
        pytest.param(post(fields=b"X" * 16_384 + b": a\r\n" + FIELDS), 431, id="a name of 16 KB"),
        pytest.param(post(fields=b"X: a\r\n" * 500_000), 431, id="fields of 3 MB"),
        pytest.param(post(FIRST.replace(b"/v1", b"/" + b"v" * 5000)), 414, id="a path of 5 KB"),
        pytest.param(post(FIRST.replace(b"completions", b"completions?" + b"v" * 9000)), 414, id="a query of 9 KB"),
        pytest.param(post(fields=b"Expect: other\r\n" + FIELDS), 417, id="an expectation nobody knows"),
    ],
)
def test_head_past_the_limits_is_refused(proxy: ProxyProcess, sandbox: SandboxClient, data: bytes, status: int) -> None:
    with RawCaller(proxy.port) as caller:
        try:
            caller.send(data + HONEST)
        except ConnectionError:
            assert len(data) > 1_000_000  # refused before the end of it was sent
        answers = answers_of(caller.read_to_end())
    assert statuses(answers) == [status]
    assert sandbox.log() == []


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"TRACE /v1/chat/completions HTTP/1.1\r\n", [405, 200]),
        (b"TRACE /healthz HTTP/1.1\r\n", [405, 200]),
        (b"PROPFIND /v1/chat/completions HTTP/1.1\r\n", [405, 200]),
        (b"PUT /v1/chat/completions HTTP/1.1\r\n", [405, 200]),
        (b"CONNECT proxy:443 HTTP/1.1\r\n", [404]),
        (b"CONNECT /v1/chat/completions HTTP/1.1\r\n", [405]),
        (b"POST /v1/chat/completions%0d%0aX-Added:%20a HTTP/1.1\r\n", [404, 200]),
        (b"POST /%0d%0a/v1/chat/completions HTTP/1.1\r\n", [404, 200]),
        (b"POST /v1/chat/completions%00 HTTP/1.1\r\n", [404, 200]),
        (b"POST /v1/chat/completions%20 HTTP/1.1\r\n", [404, 200]),
        (b"POST /v1/chat%2fcompletions HTTP/1.1\r\n", [404, 200]),
        (b"POST /v1%2Fchat/completions HTTP/1.1\r\n", [404, 200]),
        (b"POST http://h/v1/chat%2Fcompletions HTTP/1.1\r\n", [404, 200]),
        (b"POST %2fv1/chat/completions HTTP/1.1\r\n", [400]),
    ],
    ids=repr,
)
def test_odd_method_or_path_reaches_no_upstream_and_is_not_sent_back(
    proxy: ProxyProcess, sandbox: SandboxClient, first: bytes, expected: list[int]
) -> None:
    answers = exchange(proxy, post(first, b"X-Marked: marked-5\r\n" + FIELDS))
    assert statuses(answers) == expected
    assert b"marked-5" not in answers[0].head + answers[0].body
    assert b"X-Added" not in answers[0].head
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(post(FIRST.replace(b" /", b" http://other.example.com/")), id="absolute, another host"),
        pytest.param(post(FIRST.replace(b" /", b" HTTP://[::1]:1/")), id="absolute, an address"),
        pytest.param(post(FIRST.replace(b"ns ", b"ns?a=b/%2f?c ")), id="a coded slash in a query"),
        pytest.param(post(FIRST.replace(b"ns ", b"ns?x=%0d%0aX-Added:%20a%0d%0a%0d%0aGET%20/ ")), id="CRLF in a query"),
        pytest.param(b"\r\n" + post(), id="an empty line before"),
        pytest.param(post(fields=FIELDS + b"X-Request-Id: a%0d%0aX-Added: a\r\n"), id="CRLF in an id"),
        pytest.param(post(fields=b"X: caf\xe9\r\n" + FIELDS), id="Latin-1 in a value"),
    ],
)
def test_odd_request_that_http_allows_is_served_by_our_own_upstream_alone(
    proxy: ProxyProcess, sandbox: SandboxClient, data: bytes
) -> None:
    answers = exchange(proxy, data)
    assert statuses(answers) == [200, 200]
    assert b"X-Added" not in answers[0].head
    [entry] = sandbox.log()
    assert (entry["path"], entry["body"], entry["token"]) == ("/v1/chat/completions", BODY, "valid")
    fields = dict(entry["headers"])
    assert f"http://{fields['Host']}" == sandbox.url
    assert "X-Added" not in fields


def test_absolute_target_makes_no_connection_to_the_host_that_it_names(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    with ScriptedUpstream() as other:
        target = f" http://127.0.0.1:{other.port}/".encode()
        assert statuses(exchange(proxy, post(FIRST.replace(b" /", target)))) == [200, 200]
        assert other.connections == []


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: %d\r\n\r\n" % len(HONEST) + HONEST, b"Transfer-Encoding: chunked\r\n\r\n1\r\nG\r\n0\r\n\r\n"],
)
def test_get_with_a_body_ends_where_its_body_does(proxy: ProxyProcess, sandbox: SandboxClient, body: bytes) -> None:
    """Chunks that nobody read may be without end: where the answer says so, it is the last one."""
    answers = exchange(proxy, b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n" + body)
    assert statuses(answers) == ([200] if answers[0].field("Connection") == "close" else [200, 200])
    assert b'"object":"list"' in answers[0].body


def test_coded_slash_in_the_name_of_a_model_is_a_slash_of_that_name(proxy: ProxyProcess) -> None:
    answers = exchange(proxy, b"GET /v1/models/a%2Fb HTTP/1.1\r\nHost: proxy\r\n\r\n")
    assert statuses(answers) == [404, 200]
    assert b"model_not_found" in answers[0].body


@pytest.mark.parametrize(
    "fields",
    [
        *(b"Connection: close, te\r\n", b"Connection: TE,close\r\n", b"Connection: Upgrade, \tCLOSE\r\n"),
        *(b"Connection: te\r\nConnection: close\r\n", b"Connection: keep-alive\r\nconnection: x, Close\r\n"),
        *(b"Connection: keep-alive, close\r\n", b"Connection: ,close,\r\n"),
    ],
    ids=repr,
)
def test_close_among_other_options_ends_the_connection(proxy: ProxyProcess, fields: bytes) -> None:
    [answer] = exchange(proxy, b"GET /healthz HTTP/1.1\r\nHost: proxy\r\n" + fields + b"\r\n")
    assert (answer.status, answer.field("Connection")) == (200, "close")


@pytest.mark.parametrize("option", [b"keep-alive", b"te", b"closed", b"x-close, te", b"keep-alive, te", b""])
def test_connection_without_close_stays(proxy: ProxyProcess, option: bytes) -> None:
    data = b"GET /healthz HTTP/1.1\r\nHost: proxy\r\nConnection: " + option + b"\r\n\r\n"
    assert statuses(exchange(proxy, data)) == [200, 200]


def test_script_name_of_a_caller_moves_no_path(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    data = post(FIRST.replace(b" /", b" /x/"), b"SCRIPT_NAME: /x\r\n" + FIELDS)
    assert statuses(exchange(proxy, data))[0] in (400, 404)
    assert sandbox.log() == []
