"""Browsers from other origins: let in where the config names them, and told nothing elsewhere."""

from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
KEY = {"label": "a", "sha256": "0" * 64}
ALLOWED = "https://chat.example.com"


@pytest.fixture
def open_to_one(farm: ProxyFarm, sandbox: SandboxClient) -> ProxyProcess:
    return farm.proxy(sandbox.config(server={"allowed_origins": [ALLOWED]}, client_keys=[KEY]))


def preflight(proxy: ProxyProcess, origin: str) -> httpx.Response:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    return httpx.options(proxy.url + CHAT, headers={"Origin": origin, **asks}, trust_env=False)


def cors_fields(answer: httpx.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def test_a_preflight_of_an_allowed_origin_needs_no_key(open_to_one: ProxyProcess) -> None:
    answer = preflight(open_to_one, ALLOWED)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization, content-type"


def test_an_error_can_be_read_by_an_allowed_origin(open_to_one: ProxyProcess) -> None:
    answer = httpx.post(open_to_one.url + CHAT, headers={"Origin": ALLOWED}, json={}, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED


def test_another_origin_gets_no_cors_field(open_to_one: ProxyProcess) -> None:
    answer = preflight(open_to_one, "https://evil.example.com")
    assert answer.status_code == 401
    assert cors_fields(answer) == {}


def test_nobody_gets_a_cors_field_where_none_is_configured(proxy: ProxyProcess) -> None:
    assert cors_fields(preflight(proxy, ALLOWED)) == {}
    answer = httpx.get(proxy.url + "/healthz", headers={"Origin": ALLOWED}, trust_env=False)
    assert cors_fields(answer) == {}
