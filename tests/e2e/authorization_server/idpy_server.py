"""An authorization server on loopback, the package idpyoidc, as a process: python idpy_server.py SETTINGS

SETTINGS is a JSON file: port, and clients, each with what the package keeps of it and its jwks. Here is only HTTP
around the package's endpoints: who may exchange which token for what is its own code. Anyone who comes to the
authorization endpoint is the user `workload`.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from idpyoidc.message.oauth2 import ResponseMessage
from idpyoidc.server import Server
from idpyoidc.server.configure import ASConfiguration
from idpyoidc.server.exception import ClientAuthenticationError

_OAUTH2 = "idpyoidc.server.oauth2"
_LIFETIME_S = 300


def configuration(issuer: str) -> dict[str, Any]:
    jwt = {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": _LIFETIME_S}}
    methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
    rules = {
        name: {"supports_minting": ["access_token"], "expires_in": _LIFETIME_S}
        for name in ("authorization_code", "access_token")
    }
    return {
        "issuer": issuer,
        "keys": {"uri_path": "jwks.json", "key_defs": [{"type": "EC", "crv": "P-256", "use": ["sig"]}]},
        "endpoint": {
            "authorization": {"path": "authorization", "class": f"{_OAUTH2}.authorization.Authorization", "kwargs": {}},
            "token": {
                "path": "token",
                "class": f"{_OAUTH2}.token.Token",
                "kwargs": {"client_authn_method": methods, "request_format": "urlencoded"},
            },
        },
        "authentication": {
            "anyone": {"acr": "any", "class": "idpyoidc.server.user_authn.user.NoAuthn", "kwargs": {"user": "workload"}}
        },
        "userinfo": {"class": "idpyoidc.server.user_info.UserInfo", "kwargs": {"db": {"workload": {}}}},
        "authz": {
            "class": "idpyoidc.server.authz.AuthzHandling",
            "kwargs": {"grant_config": {"usage_rules": rules, "expires_in": _LIFETIME_S}},
        },
        "token_handler_args": {"code": {"lifetime": _LIFETIME_S}, "token": jwt, "refresh": jwt},
    }


def build_server(issuer: str, clients: list[dict[str, Any]]) -> Server:
    server = Server(ASConfiguration(conf=configuration(issuer), base_path="."), cwd=".")
    for client in clients:
        server.keyjar.import_jwks(client.pop("jwks", {"keys": []}), client["client_id"])
        server.context.cdb[client["client_id"]] = client
    return server


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = urlsplit(self.path)
            if target.path == "/jwks.json":
                self._answer(200, json.dumps(server.keyjar.export_jwks()))
            else:
                self._ask("authorization", target.query)

        def do_POST(self) -> None:
            self._ask("token", self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _ask(self, name: str, form: str) -> None:
            endpoint = server.get_endpoint(name)
            try:
                request = endpoint.parse_request(form, http_info={"headers": dict(self.headers)})
            except ClientAuthenticationError:
                self._answer(401, json.dumps({"error": "invalid_client"}))
                return
            outcome = endpoint.process_request(request)
            if isinstance(outcome, ResponseMessage) and "error" in outcome:
                self._answer(400, outcome.to_json())
                return
            reply = endpoint.do_response(**outcome)
            if name == "authorization":
                self._answer(302, "", Location=reply["response"])
            else:
                self._answer(200, reply["response"])

        def _answer(self, status: int, body: str, **fields: str) -> None:
            self.send_response(status)
            for field, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **fields,
            }.items():
                self.send_header(field, value)
            self.end_headers()
            self.wfile.write(body.encode())

    return Handler


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    address = ("127.0.0.1", settings["port"])
    server = build_server(f"http://127.0.0.1:{settings['port']}", settings["clients"])
    ThreadingHTTPServer(address, handler_of(server)).serve_forever()
