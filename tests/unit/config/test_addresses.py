from typing import Any

import httpx2
import pytest
from redis.connection import parse_url

from config.addresses import (
    check_absolute_uri,
    check_base_url,
    check_bind,
    check_http_proxy,
    check_origin,
    check_redis_url,
    check_token_url,
    is_loopback,
    split_bind,
)
from config.errors import Fault


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("[::1]:5002", "::1", 5002),
        ("localhost:5002", "localhost", 5002),
        ("proxy-1.example.com:80", "proxy-1.example.com", 80),
    ],
)
def test_bind_is_split_into_host_and_port(bind: str, host: str, port: int) -> None:
    assert split_bind(bind) == (host, port)


@pytest.mark.parametrize(
    "bind",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:",
        ":5002",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:5002\n",
        "::1:5002",
        "[::1]",
        "[127.0.0.1]:5002",
        "[::g]:5002",
        "256.0.0.1:5002",
        "127.1:5002",
        "a b:5002",
        "-a:5002",
        "http://127.0.0.1:5002",
        "unix:/run/proxy.sock",
    ],
)
def test_bind_that_is_no_host_and_port_is_refused(bind: str) -> None:
    with pytest.raises(Fault):
        check_bind(bind)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("128.0.0.0", False),
        ("126.255.255.255", False),
        ("0.0.0.0", False),
        ("::1", True),
        ("::2", False),
        ("::", False),
        ("LocalHost", True),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_known_by_its_spelling(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://llm.example.com/v1", "https://llm.example.com/v1"),
        ("https://llm.example.com/v1/", "https://llm.example.com/v1"),
        ("http://10.0.0.1:8000", "http://10.0.0.1:8000"),
        ("http://[fd00::1]:8000/v1", "http://[fd00::1]:8000/v1"),
        ("http://llm_server:8000/", "http://llm_server:8000"),
        ("https://llm.example.com./a%2Fb", "https://llm.example.com./a%2Fb"),
        (f"https://{'a' * 63}.{'b' * 63}.x-1_y", f"https://{'a' * 63}.{'b' * 63}.x-1_y"),
        (f"https://{'a.' * 126}b", f"https://{'a.' * 126}b"),
    ],
)
def test_base_url_loses_its_trailing_slash_only(url: str, expected: str) -> None:
    assert check_base_url(url) == expected


_NO_URL = [
    "",
    "llm.example.com/v1",
    "//llm.example.com",
    "ftp://llm.example.com",
    "https://",
    "https:///v1",
    "https://:80/v1",
    "https://llm.example.com:0/v1",
    "https://llm.example.com:65536/v1",
    "https://llm.example.com:x/v1",
    "https://[::1/v1",
    "https://[x]/v1",
    "https://llm.example.com/v 1",
    "https://llm.example.com/v1\n",
    "https://llm.exa\tmple.com/v1",
    "https://llm.example.com\\@evil/v1",
    "https://user:word@llm.example.com/v1",
    "https://@llm.example.com/v1",
    "https://llm.example.com/v1#part",
    "https://llm.example.com/v1#",
    "https://llm.example.com/%zz",
    "https://llm.example.com/%2",
    "https://llm..example.com/v1",
    "https://.llm.example.com/v1",
    "https://llm.example.com../v1",
    "https://llm.-example.com/v1",
    "https://llm-.example.com/v1",
    f"https://{'a' * 64}.example.com/v1",
    f"https://llm.{'a' * 64}/v1",
    f"https://{'a.' * 126}bc/v1",
]


@pytest.mark.parametrize("url", [*_NO_URL, "https://llm.example.com/v1?a=b", "https://llm.example.com/v1?"])
def test_base_url_with_more_or_less_than_scheme_host_and_path_is_refused(url: str) -> None:
    with pytest.raises(Fault):
        check_base_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://iam.example.com/token?version=2",
        "http://127.0.0.1:5003/token",
        "http://127.9.9.9/token",
        "http://[::1]:5003/token",
        "http://localhost/token",
    ],
)
def test_token_url_is_https_or_on_loopback(url: str) -> None:
    assert check_token_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *_NO_URL,
        "http://iam.example.com/token",
        "http://128.0.0.1/token",
        "http://[::2]/token",
        "http://127.0.0.1.example.com/token",
        "http://localhost.example.com/token",
    ],
)
def test_token_url_in_the_clear_beyond_loopback_is_refused(url: str) -> None:
    with pytest.raises(Fault):
        check_token_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://r", {"host": "r"}),
        ("redis://r:1/", {"host": "r", "port": 1}),
        ("redis://10.0.0.1:65535/15", {"host": "10.0.0.1", "port": 65535, "db": 15}),
        ("redis://[::1]:6379/0", {"host": "::1", "port": 6379, "db": 0}),
        (
            "rediss://user:word@redis.example.com/0",
            {"host": "redis.example.com", "username": "user", "password": "word"},
        ),
        ("redis://:%2F%3F%23%40%25%5B%20@r", {"host": "r", "password": "/?#@%[ "}),
        ("redis://:a@b:c@r", {"host": "r", "password": "a@b:c"}),
        ("redis://:!$&'()*+,;=-._~@r", {"host": "r", "password": "!$&'()*+,;=-._~"}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("unix://:word@/run/redis.sock?db=3", {"path": "/run/redis.sock", "password": "word", "db": 3}),
    ],
)
def test_url_of_redis_is_taken_as_its_client_reads_it(url: str, expected: dict[str, Any]) -> None:
    assert check_redis_url(url) == url
    assert expected.items() <= parse_url(url).items()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("redis://:s3cret/mark@r:6379/0", id="slash"),
        pytest.param("redis://:s3cret?mark@r:6379/0", id="question-mark"),
        pytest.param("redis://:s3cret#mark@r:6379/0", id="hash"),
        pytest.param("redis://user:12/s3cret-mark@r/0", id="slash-after-what-could-be-a-port"),
        pytest.param("redis://user:12?s3cret-mark@r", id="question-mark-after-what-could-be-a-port"),
        pytest.param("redis://user:12#s3cret-mark@r", id="hash-after-what-could-be-a-port"),
        pytest.param("redis://:12@s3cret-mark/3@r", id="at-sign-and-slash"),
        pytest.param("redis://:s3cret-mark[@r", id="bracket"),
        pytest.param("redis://:[s3cret-mark]@r", id="brackets"),
        pytest.param("redis://:s3cret-mark%@r", id="percent-sign"),
        pytest.param("redis://:s3cret%-mark@r", id="percent-sign-before-no-digits"),
        pytest.param("redis://:s3cret mark@r", id="blank"),
        pytest.param("redis://:s3cret\tmark@r", id="tab"),
        pytest.param("redis://:s3cret-mark@r\n", id="line-break"),
        pytest.param("redis://:s3cret\\mark@r", id="backslash"),
        pytest.param("redis://:s3cret-\N{ACCOUNT OF}@r", id="character-that-becomes-a-slash"),
        pytest.param("redis://:s3cret-m\xe4rk@r", id="umlaut"),
        pytest.param("redis://r:0", id="port-0"),
        pytest.param("redis://r:65536", id="port-too-large"),
        pytest.param("redis://r:-1", id="negative-port"),
        pytest.param("redis://r:s3cret-mark", id="port-of-letters"),
        pytest.param("redis://:s3cret-mark@r:1:2", id="two-ports"),
        pytest.param("redis://", id="nothing"),
        pytest.param("redis:///0", id="no-host"),
        pytest.param("redis://:s3cret-mark@/0", id="password-without-a-host"),
        pytest.param("redis://:6379", id="port-without-a-host"),
        pytest.param("redis://a..b", id="no-host-name"),
        pytest.param("redis://r/s3cret-mark", id="database-of-letters"),
        pytest.param("redis://r/-1", id="negative-database"),
        pytest.param("redis://r/0/1", id="two-databases"),
        pytest.param("redis://r/12345", id="database-too-large"),
        pytest.param("redis://r?db=1", id="query"),
        pytest.param("rediss://r/0?ssl_cert_reqs=none", id="query-that-ends-the-checks-of-tls"),
        pytest.param("redis://r?", id="empty-query"),
        pytest.param("redis://r#", id="empty-fragment"),
        pytest.param("REDIS://r", id="upper-case"),
        pytest.param(" redis://r", id="blank-before"),
        pytest.param("redis:r", id="no-slashes"),
        pytest.param("http://r", id="another-scheme"),
        pytest.param("s3cret-mark", id="no-url"),
        pytest.param("unix://run/redis.sock", id="two-slashes-before-a-path"),
        pytest.param("unix://", id="no-path"),
        pytest.param("unix:///", id="root"),
        pytest.param("unix:///run/redis.sock?db=x", id="path-and-a-database-of-letters"),
        pytest.param("unix:///run/redis.sock?password=s3cret-mark", id="path-and-another-query"),
        pytest.param("unix:///run/redis.sock?db=1&password=s3cret-mark", id="path-and-two-queries"),
    ],
)
def test_url_that_redis_would_not_read_as_meant_is_a_fault_that_quotes_nothing(url: str) -> None:
    with pytest.raises(Fault) as caught:
        check_redis_url(url)
    assert str(caught.value) == (
        "must be a URL such as rediss://:password@redis.example.com:6379/0, odd characters in the password "
        "percent-encoded (/ is %2F)"
    )
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "host", "port", "auth"),
    [
        ("http://proxy.example.com:3128", "proxy.example.com", 3128, None),
        ("http://proxy.example.com:3128/", "proxy.example.com", 3128, None),
        ("HTTP://PROXY:81", "proxy", 81, None),
        ("http://p:80", "p", None, None),  # httpx2 leaves out the scheme's own port
        ("http://10.0.0.1:1", "10.0.0.1", 1, None),
        ("http://[fd00::1]:65535", "fd00::1", 65535, None),
        ("http://user:s3cret@p:1", "p", 1, ("user", "s3cret")),
        ("http://user:a:b@p:1", "p", 1, ("user", "a:b")),
        ("http://corp%5Cuser:%40%3A%2F%25%23%3F%20%E2%82%AC@p:1", "p", 1, ("corp\\user", "@:/%#? \u20ac")),
        ("http://u:!$&'()*+,;=~._-@p:1", "p", 1, ("u", "!$&'()*+,;=~._-")),
        ("http://user@p:1", "p", 1, ("user", "")),
        ("http://:word@p:1", "p", 1, ("", "word")),
        ("http://:@p:1", "p", 1, None),
    ],
)
def test_url_of_an_http_proxy_is_taken_and_httpx2_reads_it_as_meant(
    url: str, host: str, port: int | None, auth: tuple[str, str] | None
) -> None:
    proxy = httpx2.Proxy(check_http_proxy(url))
    assert (proxy.url.host, proxy.url.port, proxy.auth) == (host, port, auth)


_NO_HTTP_PROXY = (
    "must be a URL such as http://user:password@proxy.example.com:3128, odd characters in user and password "
    "percent-encoded (@ is %40)"
)
_OTHER_PROXY = "must start with http://: a proxy that is itself reached by TLS or by SOCKS is not supported"
_NO_BASIC = "must have no control character in user or password, and no colon in the user (RFC 7617)"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("https://p:3128", _OTHER_PROXY, id="tls"),
        pytest.param("socks5://p:1080", _OTHER_PROXY, id="socks"),
        pytest.param("s3cret-mark://p:1", _OTHER_PROXY, id="unknown-scheme"),
        pytest.param("", _NO_HTTP_PROXY, id="nothing"),
        pytest.param("p:3128", _NO_HTTP_PROXY, id="no-scheme"),
        pytest.param("//p:3128", _NO_HTTP_PROXY, id="no-scheme-but-slashes"),
        pytest.param("http:p:3128", _NO_HTTP_PROXY, id="no-slashes"),
        pytest.param("http://p", _NO_HTTP_PROXY, id="no-port"),
        pytest.param("http://p:", _NO_HTTP_PROXY, id="empty-port"),
        pytest.param("http://p:0", _NO_HTTP_PROXY, id="port-0"),
        pytest.param("http://p:65536", _NO_HTTP_PROXY, id="port-too-large"),
        pytest.param("http://:3128", _NO_HTTP_PROXY, id="no-host"),
        pytest.param("http://a..b:1", _NO_HTTP_PROXY, id="no-host-name"),
        pytest.param("http://127.1:1", _NO_HTTP_PROXY, id="short-address"),
        pytest.param("http://[v1.a]:1", _NO_HTTP_PROXY, id="address-of-the-future"),
        pytest.param("http://u:s3cret[mark]@p:1", _NO_HTTP_PROXY, id="brackets"),
        pytest.param("http://p:1/path", _NO_HTTP_PROXY, id="path"),
        pytest.param("http://p:1?", _NO_HTTP_PROXY, id="empty-query"),
        pytest.param("http://p:1#", _NO_HTTP_PROXY, id="empty-fragment"),
        pytest.param("http://p:1\n", _NO_HTTP_PROXY, id="line-break"),
        pytest.param("http://u:s3cret@mark@p:1", _NO_HTTP_PROXY, id="at-sign"),
        pytest.param("http://u:s3cret/mark@p:1", _NO_HTTP_PROXY, id="slash"),
        pytest.param("http://u:12/s3cret-mark@p:1", _NO_HTTP_PROXY, id="slash-after-what-could-be-a-port"),
        pytest.param("http://u:12#s3cret-mark@p:1", _NO_HTTP_PROXY, id="hash-after-what-could-be-a-port"),
        pytest.param("http://u:s3cret%mark@p:1", _NO_HTTP_PROXY, id="percent-sign"),
        pytest.param("http://u:s3cret mark@p:1", _NO_HTTP_PROXY, id="blank"),
        pytest.param("http://u:s3cret\N{EURO SIGN}@p:1", _NO_HTTP_PROXY, id="not-ascii"),
        pytest.param("http://a%3Ab:s3cret-mark@p:1", _NO_BASIC, id="colon-in-the-user"),
        pytest.param("http://u:s3cret%0D%0Amark@p:1", _NO_BASIC, id="line-break-in-the-password"),
        pytest.param("http://u%7F:s3cret-mark@p:1", _NO_BASIC, id="delete-in-the-user"),
        pytest.param("http://u:s3cret-mark%FF@p:1", "must have a user and a password in UTF-8", id="not-utf-8"),
    ],
)
def test_url_of_no_http_proxy_is_a_fault_that_quotes_nothing(url: str, expected: str) -> None:
    with pytest.raises(Fault) as caught:
        check_http_proxy(url)
    assert str(caught.value) == expected
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "uri",
    [
        "https://api.example.com",
        "https://api.example.com/a?b=c",
        "urn:example:api",
        "api://0a1b",
        "HTTP://[::1]/%7E",
        "x:y",
    ],
)
def test_uri_with_a_scheme_is_absolute(uri: str) -> None:
    assert check_absolute_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "api",
        "/api",
        "//api.example.com",
        ":api",
        "1a:b",
        "https:",
        "https://a#b",
        "https://a#",
        "a:b c",
        "a:é",
        "a:%g0",
    ],
)
def test_uri_without_a_scheme_or_with_a_fragment_is_refused(uri: str) -> None:
    with pytest.raises(Fault, match="must be an absolute URI without a fragment"):
        check_absolute_uri(uri)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("*", "*"),
        ("https://chat.example.com", "https://chat.example.com"),
        ("HTTP://Localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origin_is_taken_in_the_spelling_of_browsers(origin: str, expected: str) -> None:
    assert check_origin(origin) == expected


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "chat.example.com",
        "https://",
        "https://a/",
        "https://a/b",
        "https://a:b",
        "https://u@a",
        "https://*.a",
        "null",
    ],
)
def test_origin_with_more_or_less_than_scheme_host_and_port_is_refused(origin: str) -> None:
    with pytest.raises(Fault):
        check_origin(origin)
