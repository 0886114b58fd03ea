"""Each way to get a token, end to end: the upstream checks what arrives."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def oauth(**members: Any) -> dict[str, Any]:
    return {"type": "client_credentials", "client_id": "sandbox-app", "scope": "llm", **members}


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_client_credentials(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, auth_method: str) -> None:
    source = oauth(token_url=sandbox.url + "/oauth/token", client_secret="sandbox-secret", auth_method=auth_method)
    config = sandbox.config(server={"worker_class": worker_class}, token_sources={"corp": source})
    assert httpx.post(farm.proxy(config).url + CHAT, json=BODY, trust_env=False).status_code == 200
    assert sandbox.last()["token"] == "valid"


def test_refused_credentials_are_503_with_one_error_line_and_a_long_pause(
    farm: ProxyFarm, own_sandbox: SandboxClient, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    source = oauth(token_url=own_sandbox.url + "/oauth/token", client_secret={"file": str(secret)})
    proxy = farm.proxy(own_sandbox.config(token_sources={"corp": source}))
    refused = httpx.post(proxy.url + CHAT, json=BODY, trust_env=False)
    assert refused.status_code == 503
    # 30 s by the rules for refused credentials: it is no use to ask at once, and the log says so once.
    assert 25 <= int(refused.headers["Retry-After"]) <= 31
    assert proxy.log().count("ERROR") == 1
    assert "wrong" not in proxy.log()


def test_another_header_and_prefix(farm: ProxyFarm, sandbox: SandboxClient) -> None:
    upstream = {"token_header": "X-Gateway-Token", "token_prefix": ""}
    config = sandbox.config(upstream=upstream, token_sources={"corp": {"type": "static", "token": "abc-123"}})
    assert httpx.post(farm.proxy(config).url + CHAT, json=BODY, trust_env=False).status_code == 502
    headers = {name.lower(): value for name, value in sandbox.last()["headers"]}
    assert headers["x-gateway-token"] == "abc-123"
    assert "authorization" not in headers


def test_no_token_at_all_where_the_upstream_takes_none(farm: ProxyFarm, sandbox: SandboxClient) -> None:
    proxy = farm.proxy(sandbox.config(upstream={"token_source": None}))
    assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 502
    assert sandbox.last()["token"] == "missing"
    assert httpx.get(proxy.url + "/readyz", trust_env=False).status_code == 200
