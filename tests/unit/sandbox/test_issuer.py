"""The token endpoints over HTTP."""

from typing import Any

import pytest

from tests.unit.sandbox.conftest import Toy

GRANT = {"grant_type": "client_credentials"}
IN_FORM = {"client_id": "sandbox-app", "client_secret": "sandbox-secret"}


def test_json_endpoint_gives_a_token_that_the_upstream_takes(toy: Toy) -> None:
    answer = toy.http.post("/token", json={"appId": "sandbox-app", "appSecret": "sandbox-secret"}).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 300)
    models = toy.http.get("/v1/models", headers={"Authorization": f"Bearer {answer['access_token']}"})
    assert models.status_code == 200
    assert toy.state()["fetches"] == 1


def test_json_endpoint_refuses_a_wrong_secret(toy: Toy) -> None:
    answer = toy.http.post("/token", json={"appId": "sandbox-app", "appSecret": "no"})
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize(
    "request_parts",
    [
        {"data": GRANT | {"scope": "a b"} | IN_FORM},
        {"data": GRANT | {"scope": "a b"}, "auth": ("sandbox-app", "sandbox-secret")},
        {"data": GRANT | {"scope": "a b"}, "auth": ("sandbox%2dapp", "sandbox%2Dsecret")},
    ],
    ids=["client_secret_post", "client_secret_basic", "percent-encoded"],
)
def test_oauth_endpoint_gives_a_token_and_the_scope(toy: Toy, request_parts: dict[str, Any]) -> None:
    answer = toy.http.post("/oauth/token", **request_parts)
    assert answer.headers["Cache-Control"] == "no-store"
    assert (answer.status_code, answer.json()["scope"]) == (200, "a b")


@pytest.mark.parametrize(
    ("request_parts", "status", "error"),
    [
        ({"data": IN_FORM}, 400, "invalid_request"),
        ({"data": IN_FORM | {"grant_type": "password"}}, 400, "unsupported_grant_type"),
        ({"data": GRANT}, 401, "invalid_client"),
        ({"data": GRANT, "auth": ("sandbox-app", "no")}, 401, "invalid_client"),
        ({"data": GRANT | IN_FORM, "auth": ("sandbox-app", "sandbox-secret")}, 400, "invalid_request"),
        ({"data": GRANT | IN_FORM | {"scope": 'a"b'}}, 400, "invalid_scope"),
        ({"json": GRANT | IN_FORM}, 400, "invalid_request"),
        ({"data": {"grant_type": ["client_credentials"] * 2} | IN_FORM}, 400, "invalid_request"),
    ],
)
def test_oauth_errors_follow_the_standard(
    toy: Toy,
    request_parts: dict[str, Any],
    status: int,
    error: str,
) -> None:
    answer = toy.http.post("/oauth/token", **request_parts)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    was_basic = status == 401 and "auth" in request_parts
    assert ("WWW-Authenticate" in answer.headers) == was_basic
