"""A platform's token for one of our own, end to end against idpyoidc, whose own code does the exchange (RFC 8693)."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey

from tests.support.authorization_server import AuthorizationServer, authorization_server
from tests.support.token_gateway import TokenGateway, token_gateway

SCRIPT = Path(__file__).parent / "authorization_server" / "idpy_server.py"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
CALLBACK = "https://platform.example.com/callback"
SECRET = "a-secret-of-some-length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange")


@pytest.fixture(scope="module")
def key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": "k1"})


@pytest.fixture(scope="module")
def server(folder: Path, key: ECKey) -> Iterator[AuthorizationServer]:
    grants = ["authorization_code", "urn:ietf:params:oauth:grant-type:token-exchange"]
    shared = {"client_salt": "salt", "grant_types_supported": grants, "allowed_scopes": ["openid", "llm"]}
    clients: list[dict[str, Any]] = [
        {"client_id": "platform", "client_secret": SECRET, "redirect_uris": [[CALLBACK, None]]},
        {"client_id": "proxy", "client_secret": SECRET, "redirect_uris": []},
        {"client_id": "proxy-with-key", "jwks": {"keys": [key.as_dict(private=False)]}, "redirect_uris": []},
    ]
    settings = {"clients": [{**shared, "response_types_supported": ["code"], **client} for client in clients]}
    with authorization_server([sys.executable, str(SCRIPT)], settings, folder, jwks_path="/jwks.json") as server:
        yield server


@pytest.fixture(scope="module")
def subject_token(server: AuthorizationServer) -> str:
    """The token of the user `workload` at the client `platform`, by the authorization code grant."""
    query = {
        "response_type": "code",
        "client_id": "platform",
        "redirect_uri": CALLBACK,
        "scope": "openid llm",
        "state": "s",
    }
    redirect = server.http.get("/authorization", params=query).headers["Location"]
    (code,) = parse_qs(urlsplit(redirect).query)["code"]
    grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    answer = server.http.post("/token", data={**grant, "client_id": "platform", "client_secret": SECRET})
    return str(answer.raise_for_status().json()["access_token"])


@pytest.fixture(scope="module")
def gateway(folder: Path, server: AuthorizationServer, key: ECKey, subject_token: str) -> Iterator[TokenGateway]:
    def source(**members: Any) -> dict[str, Any]:
        (folder / "subject").write_text(subject_token + "\n")
        shared = {"type": "token_exchange", "token_url": f"{server.url}/token", "subject_token_type": ACCESS_TOKEN}
        proof = {"client_id": "proxy", "client_secret": SECRET}
        return {**shared, **proof, "subject_token": {"file": str(folder / "subject")}, "scope": "llm", **members}

    private_key = {
        "client_id": "proxy-with-key",
        "client_secret": None,
        "private_key": json.dumps(key.as_dict(private=True)),
    }
    sources = {
        "basic": source(),
        "post": source(auth_method="client_secret_post", requested_token_type=ACCESS_TOKEN),
        "key": source(auth_method="private_key_jwt", **private_key),
        "two-audiences": source(audience=["https://llm.example.com", "https://other.example.com"]),
        "wrong-secret": source(client_secret="wrong"),
        "wrong-subject": source(subject_token="no-token-of-this-server"),
        "wrong-target": source(resource="https://unknown.example.com/"),
    }
    with token_gateway(sources, folder) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("source", "client_id"),
    [("basic", "proxy"), ("post", "proxy"), ("key", "proxy-with-key"), ("two-audiences", "proxy")],
)
def test_token_that_reaches_the_upstream_is_the_servers_own_for_the_same_subject_and_our_client(
    server: AuthorizationServer, gateway: TokenGateway, subject_token: str, source: str, client_id: str
) -> None:
    assert gateway.chat(source, 200).status_code == 200
    given, exchanged = server.claims_of(subject_token), server.claims_of(gateway.tokens()[-1])
    assert exchanged["sub"] == given["sub"]
    assert (given["client_id"], exchanged["client_id"]) == ("platform", client_id)
    assert (given["scope"], exchanged["scope"]) == ("openid llm", "llm")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("wrong-secret", "status 401, invalid_client"),
        ("wrong-subject", "status 400, invalid_request"),
        ("wrong-target", "status 400, invalid_target"),
    ],
)
def test_refused_exchange_is_503_with_one_error_line_that_names_the_reason_to_the_operator_alone(
    gateway: TokenGateway, subject_token: str, source: str, reason: str
) -> None:
    tokens = gateway.tokens()
    for answer in (gateway.chat(source), gateway.chat(source)):
        assert answer.status_code == 503
        assert reason.split()[-1] not in str(answer.headers) + answer.text
    (line,) = gateway.errors(source)
    assert line.endswith(f"token endpoint: {reason}")
    assert gateway.tokens() == tokens
    assert subject_token not in gateway.log()
