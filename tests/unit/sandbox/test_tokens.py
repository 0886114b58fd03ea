"""Tokens against a hand-moved clock."""

import pytest

from sandbox.tokens import TokenMint


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("age_s", "state"),
    [(0.0, "valid"), (299.999, "valid"), (300.0, "expired"), (300.001, "expired")],
)
def test_token_is_good_until_just_before_its_expiry(clock: Clock, age_s: float, state: str) -> None:
    mint = TokenMint(b"key", 300.0, clock)
    token = mint.issue()
    clock.now += age_s
    assert mint.check(token).state == state


def test_revoking_refuses_what_was_issued_and_nothing_later(clock: Clock) -> None:
    mint = TokenMint(b"key", 300.0, clock)
    before = mint.issue()
    mint.revoke_all()
    after = mint.issue()  # at the same instant of a coarse clock
    assert [mint.check(before).state, mint.check(after).state] == ["revoked", "valid"]


def test_processes_that_share_a_key_accept_each_others_tokens(clock: Clock) -> None:
    token = TokenMint(b"key", 300.0, clock).issue()
    assert TokenMint(b"key", 10.0, clock).check(token).state == "valid"
    assert TokenMint(b"other", 10.0, clock).check(token).state == "bad"


def test_no_changed_spelling_of_a_token_is_accepted(clock: Clock) -> None:
    mint = TokenMint(b"key", 300.0, clock)
    token = mint.issue()
    middle = len(token) // 2
    flipped = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    wrong = [flipped, token + "=", token + "!", token[:-1], token.removeprefix("sbx_"), "", "sbx_", "é"]
    assert {mint.check(each).state for each in wrong} == {"bad"}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ([], "missing"),
        (["Bearer {}"], "valid"),
        (["bearer {}"], "valid"),
        (["Basic {}"], "bad"),
        (["{}"], "bad"),
        (["Bearer {}", "Bearer {}"], "bad"),
        (["Bearer {}, Bearer {}"], "bad"),
    ],
)
def test_one_bearer_field_is_expected(clock: Clock, fields: list[str], state: str) -> None:
    mint = TokenMint(b"key", 300.0, clock)
    token = mint.issue()
    assert mint.check_authorization([field.replace("{}", token) for field in fields]).state == state


def test_new_token_ends_those_before_it_where_only_one_is_active(clock: Clock) -> None:
    mint = TokenMint(b"key", 300.0, clock, single_active=True)
    first, second = mint.issue(), mint.issue()
    assert (mint.check(first).state, mint.check(second).state) == ("revoked", "valid")
