import base64
import json

import pytest

from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.jwt_claims import life_left_s, whole_life_s

_NOW = 1_763_114_400.0


def _jwt(claims: object) -> str:
    parts = [json.dumps({"alg": "none"}), claims if isinstance(claims, str) else json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    ("claims", "whole_s", "left_s"),
    [
        pytest.param({"iat": _NOW, "exp": _NOW + 300}, 300, 300, id="new"),
        pytest.param({"iat": _NOW - 100, "exp": _NOW + 200}, 300, 200, id="a-third-of-its-life-is-over"),
        pytest.param({"iat": _NOW - 299.5, "exp": _NOW + 0.5}, 300, 0.5, id="half-a-second-left"),
        pytest.param({"iat": _NOW + 50, "exp": _NOW + 350}, 300, 300, id="our-clock-is-late"),
        pytest.param({"exp": _NOW + 200}, None, 200, id="no-iat"),
        pytest.param({"iat": _NOW + 400, "exp": _NOW + 200}, None, 200, id="iat-after-exp"),
        pytest.param({"iat": "x", "exp": str(_NOW + 200)}, None, 200, id="exp-as-text"),
        pytest.param({"iat": _NOW}, None, None, id="no-exp"),
        pytest.param({"exp": float("inf"), "iat": 0}, None, None, id="infinite-exp"),
        pytest.param({"exp": 10**400, "iat": 0}, None, None, id="exp-of-401-digits"),
        pytest.param({"exp": 1.7e308, "iat": -1.7e308}, None, pytest.approx(1.7e308), id="a-life-beyond-floats"),
        pytest.param([_NOW], None, None, id="claims-are-a-list"),
        pytest.param("{", None, None, id="claims-are-no-json"),
        pytest.param("[" * 5000, None, None, id="claims-nested-too-deep"),
    ],
)
def test_life_is_read_from_the_claims(claims: object, whole_s: float | None, left_s: float | None) -> None:
    token = _jwt(claims)
    assert whole_life_s(token) == whole_s
    assert life_left_s(token, _NOW) == left_s


@pytest.mark.parametrize(
    "token", ["", "opaque", "a.b", "a.b.c", "a.b.c.d.e", "é.é.é", "..", _jwt({"exp": _NOW}) + ".x"]
)
def test_other_tokens_tell_no_life(token: str) -> None:
    assert whole_life_s(token) is None
    assert life_left_s(token, _NOW) is None


@pytest.mark.parametrize(("over_s", "words"), [(0, "0 s ago"), (35, "35 s ago")])
def test_token_that_has_run_out_is_a_failed_fetch(over_s: int, words: str) -> None:
    token = _jwt({"iat": _NOW - 300, "exp": _NOW - over_s})
    with pytest.raises(TokenFetchError, match=words) as caught:
        life_left_s(token, _NOW)
    assert token not in str(caught.value)
