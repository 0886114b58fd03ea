import pytest

from proxy.blueprints.own_host import is_own_host


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:5002", "127.0.0.1", "127.0.0.1:5002", "127.8.9.1:80", "[::1]", "[::1]:5002", "10.1.2.3:1"],
)
def test_address_or_localhost_is_own(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example.com",
        "rebound.example.com:5002",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "notlocalhost",
        "localhost.",
        "127.1",
        "[::1",
        "[v1.x]",
        "",
        ":5002",
    ],
)
def test_any_other_name_is_not(host: str) -> None:
    assert not is_own_host(host)
