import pytest

from config.addresses import (
    check_base_url,
    check_bind,
    check_origin,
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
