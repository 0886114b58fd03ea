import pytest

from proxy.doctor.jwt_times import JwtTimes, read_jwt
from tests.support.unsigned_jwt import unsigned_jwt


def test_times_are_read() -> None:
    times = read_jwt(unsigned_jwt({"iat": 100, "nbf": 101.5, "exp": 400, "sub": "s3cret-mark"}))
    assert times == JwtTimes("RS256", 100.0, 101.5, 400.0)
    assert times.lifetime_s == 300
    assert "s3cret-mark" not in repr(times)


@pytest.mark.parametrize(
    "value", ["400", True, None, [400], float("nan"), float("inf"), 10**400], ids=lambda value: type(value).__name__
)
def test_claim_that_is_no_number_counts_as_absent(value: object) -> None:
    times = read_jwt(unsigned_jwt({"iat": 100, "exp": value}))
    assert times is not None
    assert (times.expires_at, times.lifetime_s) == (None, None)


@pytest.mark.parametrize("algorithm", ["s3cret-mark", "", None, 5, ["RS256"]])
def test_only_registered_algorithms_are_shown(algorithm: object) -> None:
    times = read_jwt(unsigned_jwt({}, {"alg": algorithm}))
    assert times is not None
    assert times.algorithm == "an unregistered algorithm"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("opaque", id="opaque"),
        pytest.param("a.b", id="two-parts"),
        pytest.param("a.b.c.d.e", id="encrypted"),
        pytest.param("1.2.3", id="no-base64"),
        pytest.param("e30.e30.c2ln", id="no-alg"),
        pytest.param(unsigned_jwt([1]), id="claims-are-no-object"),
        pytest.param(unsigned_jwt({}, "x"), id="header-is-no-object"),
    ],
)
def test_anything_else_is_no_unsigned_jwt(token: str) -> None:
    assert read_jwt(token) is None
