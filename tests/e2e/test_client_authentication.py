"""Each way to prove who we are, end to end against oidc-provider, which checks the proof and signs the tokens."""

import base64
import hashlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from tests.support.authorization_server import AuthorizationServer, authorization_server
from tests.support.certificates import self_signed
from tests.support.token_gateway import TokenGateway, token_gateway

SCRIPT = Path(__file__).parent / "authorization_server" / "oidc_provider.mjs"
RESOURCE = "https://llm.example.com/"
SECRET = "s:e &%+/=?"  # each character that Basic needs encoded
KEYS = {"rsa": RSAKey, "p256": ECKey, "p384": ECKey, "p521": ECKey}
BY_SECRET = {"basic": "client_secret_basic", "post": "client_secret_post"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the server and of a client."""
    folder = tmp_path_factory.mktemp("clients")
    self_signed(folder / "server.pem", "server")
    self_signed(folder / "client.pem", "client")
    return folder


@pytest.fixture(scope="module")
def keys() -> dict[str, RSAKey | ECKey]:
    curves = {"p256": "P-256", "p384": "P-384", "p521": "P-521"}
    rsa = RSAKey.generate_key(2048, {"kid": "k1"})
    return {"rsa": rsa} | {name: ECKey.generate_key(curve) for name, curve in curves.items()}


@pytest.fixture(scope="module")
def server(folder: Path, keys: dict[str, RSAKey | ECKey]) -> Iterator[AuthorizationServer]:
    clients: list[dict[str, Any]] = [
        {"client_id": name, "client_secret": SECRET, "token_endpoint_auth_method": method}
        for name, method in BY_SECRET.items()
    ]
    clients += [
        {
            "client_id": name,
            "jwks": {"keys": [key.as_dict(private=False)]},
            "token_endpoint_auth_method": "private_key_jwt",
        }
        for name, key in keys.items()
    ]
    clients.append(
        {
            "client_id": "certificate",
            "token_endpoint_auth_method": "tls_client_auth",
            "tls_client_auth_subject_dn": "CN=client",
            "tls_client_certificate_bound_access_tokens": True,
        }
    )
    grant = {"grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [], "scope": "llm"}
    settings = {
        "certificate": str(folder / "server.pem"),
        "client_ca": str(folder / "client.pem"),
        "clients": [{**client, **grant} for client in clients],
    }
    with authorization_server(
        ["node", str(SCRIPT)], settings, folder, jwks_path="/jwks", ca_bundle=folder / "server.pem"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(folder: Path, keys: dict[str, RSAKey | ECKey], server: AuthorizationServer) -> Iterator[TokenGateway]:
    def source(client_id: str, auth_method: str, **members: Any) -> dict[str, Any]:
        shared = {
            "type": "client_credentials",
            "token_url": f"{server.url}/token",
            "ca_bundle": str(folder / "server.pem"),
        }
        return {**shared, "client_id": client_id, "auth_method": auth_method, "scope": "llm", **members}

    def by_key(client_id: str, text: str, **members: Any) -> dict[str, Any]:
        file = folder / f"{len(list(folder.iterdir()))}.key"
        file.write_text(text)
        return source(client_id, "private_key_jwt", private_key={"file": str(file)}, **members)

    pem = {name: key.as_pem(private=True).decode() for name, key in keys.items()}
    jwk = {name: json.dumps(key.as_dict(private=True)) for name, key in keys.items()}
    certificate = {name: str(folder / f"{name}.pem") for name in ("client", "server")}
    sources = {name: source(name, method, client_secret=SECRET) for name, method in BY_SECRET.items()}
    sources |= {f"{name}-pem": by_key(name, text) for name, text in pem.items()}
    sources |= {f"{name}-jwk": by_key(name, text) for name, text in jwk.items()}
    sources["ps256"] = by_key("rsa", pem["rsa"], signing_alg="PS256", key_id="k1")
    sources["issuer-as-audience"] = by_key("p256", jwk["p256"], assertion_audience=server.url)
    sources["certificate"] = source("certificate", "tls_client_auth", client_cert=certificate["client"])
    sources = {name: {**members, "resource": RESOURCE} for name, members in sources.items()}
    sources["opaque"] = source("basic", "client_secret_basic", client_secret=SECRET)
    sources["wrong-secret"] = source("post", "client_secret_post", client_secret="wrong")
    sources["wrong-key"] = by_key("p256", ECKey.generate_key("P-256").as_pem(private=True).decode())
    sources["wrong-audience"] = by_key("p256", pem["p256"], assertion_audience="https://elsewhere.example.com/")
    sources["wrong-certificate"] = source("certificate", "tls_client_auth", client_cert=certificate["server"])
    with token_gateway(sources, folder) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("source", "client_id"),
    [
        ("basic", "basic"),
        ("post", "post"),
        *[(f"{name}-{form}", name) for name in KEYS for form in ("pem", "jwk")],
        ("ps256", "rsa"),
        ("issuer-as-audience", "p256"),
        ("certificate", "certificate"),
    ],
)
def test_token_that_reaches_the_upstream_is_signed_by_the_server_for_this_client(
    server: AuthorizationServer, gateway: TokenGateway, source: str, client_id: str
) -> None:
    assert gateway.chat(source, 200).status_code == 200
    claims = server.claims_of(gateway.tokens()[-1])
    assert (claims["iss"], claims["client_id"], claims["sub"]) == (server.url, client_id, client_id)
    assert (claims["aud"], claims["scope"]) == (RESOURCE, "llm")


def test_token_by_certificate_is_bound_to_it(server: AuthorizationServer, gateway: TokenGateway, folder: Path) -> None:
    gateway.chat("certificate", 200)
    pem = (folder / "client.pem").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert server.claims_of(gateway.tokens()[-1])["cnf"] == {"x5t#S256": thumbprint}


def test_opaque_token_is_known_to_the_server_as_active(server: AuthorizationServer, gateway: TokenGateway) -> None:
    gateway.chat("opaque", 200)
    form = {"token": gateway.tokens()[-1], "client_id": "post", "client_secret": SECRET}
    answer = server.http.post("/token/introspection", data=form).raise_for_status().json()
    assert (answer["active"], answer["client_id"], answer["scope"]) == (True, "basic", "llm")


def test_refused_token_is_replaced_by_a_second_one_with_an_assertion_of_its_own(
    server: AuthorizationServer, gateway: TokenGateway
) -> None:
    # The server takes an assertion once: the same one again would be a failed fetch.
    assert gateway.chat("rsa-pem", 401, 200).status_code == 200
    first, second = gateway.tokens()[-2:]
    assert first != second
    assert server.claims_of(second)["client_id"] == "rsa"


@pytest.mark.parametrize("source", ["wrong-secret", "wrong-key", "wrong-audience", "wrong-certificate"])
def test_refused_client_is_503_with_one_error_line_that_names_the_reason_to_the_operator_alone(
    gateway: TokenGateway, source: str
) -> None:
    tokens = gateway.tokens()
    for answer in (gateway.chat(source), gateway.chat(source)):
        assert answer.status_code == 503
        shown = str(answer.headers) + answer.text
        assert not [word for word in ("invalid_client", "status 401", "endpoint", "127.0.0.1", "oidc") if word in shown]
    (line,) = gateway.errors(source)
    assert line.endswith("token endpoint: status 401, invalid_client")
    assert gateway.tokens() == tokens
