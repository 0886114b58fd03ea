import copy
import hashlib
import math
import pickle
import time

import pytest

from proxy.tokens.token import Token, boot_clock, fingerprint


def _token(lifetime_s: float = 300.0, value: str = "token-1", jitter: float = 0.0) -> Token:
    return Token(value, fetched_at=1_000.0, lifetime_s=lifetime_s, generation=7, jitter=jitter)


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        pytest.param(0.0, "fresh", id="at-once"),
        pytest.param(149.999, "fresh", id="just-before-renewal"),
        pytest.param(150.0, "stale", id="at-renewal"),
        pytest.param(150.001, "stale", id="just-after-renewal"),
        pytest.param(297.999, "stale", id="just-before-the-guard"),
        pytest.param(298.0, "expired", id="at-the-guard"),
        pytest.param(298.001, "expired", id="just-after-the-guard"),
        pytest.param(300.0, "expired", id="at-expiry"),
    ],
)
def test_token_of_300_s_is_fresh_to_150_s_and_expired_from_298_s(age_s: float, state: str) -> None:
    assert _token().state(1_000.0 + age_s) == state


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        pytest.param(0.499, "fresh", id="just-before-renewal"),
        pytest.param(0.5, "stale", id="at-renewal"),
        pytest.param(0.749, "stale", id="just-before-the-guard"),
        pytest.param(0.75, "expired", id="at-the-guard"),
    ],
)
def test_token_of_one_second_goes_through_all_states(age_s: float, state: str) -> None:
    assert _token(1.0).state(1_000.0 + age_s) == state


def test_jitter_brings_renewal_forward_by_up_to_a_tenth_of_the_life() -> None:
    assert _token(jitter=0.5).renew_at == 1_135.0


def test_token_without_expiry_stays_fresh() -> None:
    token = _token(math.inf)
    assert token.expires_at == math.inf
    assert token.state(1e12) == "fresh"


@pytest.mark.parametrize("lifetime_s", [300.0, math.inf], ids=["300-s", "never-expires"])
@pytest.mark.parametrize("show", [repr, str, format, "{!r:>90}".format, lambda token: f"{token}"])
def test_printed_token_shows_its_fingerprint_and_not_its_value(mark: str, show, lifetime_s: float) -> None:
    text = show(_token(lifetime_s, value=mark))
    assert mark not in text
    assert fingerprint(mark) in text


@pytest.mark.parametrize("store_away", [pickle.dumps, copy.copy, copy.deepcopy])
def test_token_refuses_to_be_pickled_or_copied(mark: str, store_away) -> None:
    with pytest.raises(TypeError) as caught:
        store_away(_token(value=mark))
    assert mark not in str(caught.value)


def test_fingerprint_is_8_hex_digits_of_a_digest() -> None:
    assert fingerprint("token-1") == hashlib.sha256(b"token-1").hexdigest()[:8]
    assert fingerprint("token-1") != fingerprint("token-2")


def test_boot_clock_counts_suspend_and_never_goes_back() -> None:
    before, reading, after = time.clock_gettime(time.CLOCK_BOOTTIME), boot_clock(), boot_clock()
    assert before <= reading <= after
