from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from proxy.gunicorn_request import PlainParser

PEERS = {"trusted": ("127.0.0.1", 1), "stranger": ("192.0.2.1", 1)}


def config_of(**settings: Any) -> Config:
    """gunicorn's, as gunicorn.conf.py has it."""
    config = Config()
    for name, value in {"header_map": "refuse", "http_parser": "python", **settings}.items():
        config.set(name, value)
    return config


CONFIG = config_of(limit_request_fields=6, limit_request_field_size=80)  # limits that a test can reach


def read(kind: type[RequestParser], data: bytes, config: Config, peer: tuple[str, int]) -> Any:
    """What a parser makes of the bytes: all that a request holds, or the kind of its error."""
    try:
        request = next(kind(config, iter([data]), peer))
        body = request.body.read()
    except (ParseException, NoMoreData) as error:
        return type(error)
    facts = (request.method, request.uri, request.version, request.headers, request.scheme, body)
    return (*facts, request._expected_100_continue, request.should_close())


def check_that_it_is_read_as_by_gunicorn(data: bytes, config: Config) -> Any:
    for peer in PEERS.values():
        ours = read(PlainParser, data, config, peer)
        assert ours == read(RequestParser, data, config, peer)
    return ours


_PLAIN_LINE = st.builds(
    lambda name, blank, value: name + b":" + blank + value,
    st.sampled_from([b"Host", b"Content-Type", b"X-A", b"x-b", b"Authorization", b"Accept", b"!#$%&'*+-.^`|~9"]),
    st.sampled_from([b"", b" ", b"\t "]),
    st.sampled_from([b"", b"a", b"a b ", b"\xe9\xff", b"a:b, c", b"\t", b"~"]),
)
_ODD_LINE = st.sampled_from(
    [
        b"Expect: 100-continue", b"Expect: other", b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http",
        b"X-Forwarded-Ssl: on", b"X_A: 1", b"Script_Name: /a", b"X-A : 1", b" folded", b"\tfolded", b"no colon", b":x",
        b"", b"X-A: a\x00", b"X-A: a\x7f", b"X-A: a\nX-B: b", b"X-A: a\rb", b"X\xe9: 1", b"Content-Length: 0",
        b"Content-Length: 2", b"Content-Length: +1", b"content-length: 1", b"Transfer-Encoding: chunked", b"\xdf: 1",
        b"Transfer-Encoding: gzip", b"Connection: close", b"Connection: keep-alive", b"X-Long: " + b"x" * 90,
    ]
)  # fmt: skip
_FIRST = st.sampled_from([b"POST /v1/chat HTTP/1.1", b"GET / HTTP/1.0", b"GET /a?b=c HTTP/1.1"])


@given(_FIRST, st.lists(_PLAIN_LINE | _ODD_LINE, max_size=8), st.sampled_from([b"", b"ab", b"2\r\nok\r\n0\r\n\r\n"]))
def test_any_head_is_read_as_gunicorn_reads_it(first: bytes, lines: list[bytes], body: bytes) -> None:
    data = b"\r\n".join([first, *lines, b"", b""]) + body
    check_that_it_is_read_as_by_gunicorn(data, CONFIG)


@given(st.binary(max_size=60))
def test_any_bytes_in_a_head_are_read_as_gunicorn_reads_them(junk: bytes) -> None:
    check_that_it_is_read_as_by_gunicorn(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + junk + b"\r\n\r\n", CONFIG)
    check_that_it_is_read_as_by_gunicorn(b"GET / HTTP/1.1\r\nHost: a\r\n" + junk + b"\r\n\r\n", CONFIG)


@pytest.mark.parametrize("number", range(256), ids=hex)
def test_any_byte_in_a_name_and_in_a_value_is_read_as_gunicorn_reads_it(config: Config, number: int) -> None:
    byte = bytes([number])
    for line in (b"X" + byte + b"A: 1", byte + b"A: 1", b"XA" + byte + b": 1", b"X: a" + byte + b"b", b"X:" + byte):
        data = b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\nX-Z: 1\r\n\r\n"
        check_that_it_is_read_as_by_gunicorn(data, config)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_limits_are_gunicorns_to_the_byte(more: int) -> None:
    size = CONFIG.limit_request_field_size + more - len("X-A: \r\n")
    seen = check_that_it_is_read_as_by_gunicorn(b"GET / HTTP/1.1\r\nX-A: " + b"x" * size + b"\r\n\r\n", CONFIG)
    assert isinstance(seen, type) is (more > 0)
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(CONFIG.limit_request_fields + more))
    seen = check_that_it_is_read_as_by_gunicorn(b"GET / HTTP/1.1\r\n" + lines + b"\r\n", CONFIG)
    assert isinstance(seen, type) is (more > 0)


@pytest.fixture(scope="module")
def config() -> Config:
    return config_of()


@pytest.fixture
def _no_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("gunicorn's own parser was asked")

    monkeypatch.setattr(Request, "parse_headers", refuse)


@pytest.mark.usefixtures("_no_long_way")
def test_head_of_a_usual_client_takes_the_short_way(config: Config) -> None:
    data = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:5002\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        b"User-Agent: OpenAI/Python 3.54.0\r\nX-Stainless-Lang: python\r\nAuthorization: Bearer k\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    method, uri, _, headers, *_ = read(PlainParser, data, config, PEERS["trusted"])
    assert (method, uri, len(headers)) == ("POST", "/v1/chat/completions", 9)
    assert ("AUTHORIZATION", "Bearer k") in headers
