import math
from collections.abc import Callable
from typing import Any

import pytest

from config import Settings
from proxy.doctor.token_states import print_token_states
from proxy.token_sources import build_store
from proxy.tokens.record import Record
from proxy.tokens.token import Token, boot_clock

_HTTP = {"type": "http_json", "url": "http://127.0.0.1:1/token", "json": {"appSecret": "s3cret-mark"}}
_STATIC = {"type": "static", "token": "s3cret-mark"}


def token(age_s: float, lifetime_s: float = 300.0) -> Token:
    fetched_at = boot_clock() - age_s
    return Token("s3cret-mark-1", fetched_at=fetched_at, lifetime_s=lifetime_s, generation=7, jitter=0.5)


@pytest.fixture
def print_states(settings_of: Callable[..., Settings], lines: list[str]) -> Callable[..., bool]:
    """The command's answer for a store that holds this record of the source."""

    def print_states(record: Record | None = None, **sources: Any) -> bool:
        settings = settings_of(token_sources=sources or {"corp": _HTTP})
        if record is not None:
            store = build_store(settings.token_sources["corp"], settings.token_store)
            with store.try_lock() as won:
                assert won
                store.save(record)
        return print_token_states(settings, lines.append)

    return print_states


@pytest.mark.parametrize(
    ("age_s", "words"),
    [
        pytest.param(10, "fresh, token 7a5b2c0e, generation 7, age 10 s, expires in 2", id="fresh"),
        pytest.param(200, "stale, token 7a5b2c0e, generation 7, age 200 s, expires in 1", id="stale"),
    ],
)
def test_usable_token_is_shown_by_its_fingerprint(
    print_states: Callable[..., bool], lines: list[str], age_s: float, words: str
) -> None:
    held = token(age_s)
    assert print_states(Record(token=held, generation=7))
    assert lines[0].startswith(f"corp (http_json): {words.replace('7a5b2c0e', held.fingerprint)}")
    assert ("renewal due now" in lines[0]) == (age_s == 200)
    assert len(lines) == 1


def test_expired_token_is_not_usable(print_states: Callable[..., bool], lines: list[str]) -> None:
    assert not print_states(Record(token=token(420), generation=7))
    assert ": expired, token " in lines[0]
    assert "expired 120 s ago, renewal due now" in lines[0]


def test_token_in_its_last_two_seconds_is_not_usable(print_states: Callable[..., bool], lines: list[str]) -> None:
    assert not print_states(Record(token=token(299), generation=7))
    assert ": expired, token " in lines[0]
    assert "expires in " in lines[0]


def test_token_that_does_not_expire(print_states: Callable[..., bool], lines: list[str]) -> None:
    assert print_states(Record(token=token(10, math.inf), generation=7))
    assert lines[0].endswith("age 10 s, does not expire")


def test_store_that_holds_none_says_so(print_states: Callable[..., bool], lines: list[str]) -> None:
    assert not print_states()
    assert lines[0].startswith("corp (http_json): the store holds none; ")


@pytest.mark.parametrize(
    ("refusals", "words"),
    [
        (0, "failed fetches: 2; next try in 28 s"),
        (1, "failed fetches: 2, the credentials are refused; next try in 28 s"),
    ],
)
def test_back_off_is_told(print_states: Callable[..., bool], lines: list[str], refusals: int, words: str) -> None:
    record = Record(token=token(200), generation=7, failures=2, refusals=refusals, retry_at=boot_clock() + 28.4)
    assert print_states(record)
    assert lines[1:] == [f"  {words}"]


def test_back_off_that_is_over_is_told_as_such(print_states: Callable[..., bool], lines: list[str]) -> None:
    assert not print_states(Record(failures=1, retry_at=boot_clock() - 1))
    assert lines == ["corp (http_json): the store holds none", "  failed fetches: 1; next try now"]


def test_breaker_is_told(print_states: Callable[..., bool], lines: list[str]) -> None:
    print_states(Record(token=token(10), generation=7, breaker_until=boot_clock() + 29.6))
    assert lines[1:] == ["  an upstream refuses fresh tokens: none is fetched for that in the next 30 s"]


@pytest.mark.parametrize("kind", ["static", "file"])
def test_what_each_worker_keeps_for_itself_is_told_and_is_no_fault(
    print_states: Callable[..., bool], lines: list[str], tmp_path, kind: str
) -> None:
    (tmp_path / "token").write_text("s3cret-mark")
    source = _STATIC if kind == "static" else {"type": "file", "path": str(tmp_path / "token")}
    assert print_states(vendor=source)
    assert lines == [f"vendor ({kind}): kept in each worker"]


def test_memory_store_is_kept_in_each_worker(settings_of: Callable[..., Settings], lines: list[str]) -> None:
    settings = settings_of(token_sources={"corp": _HTTP}, token_store={"type": "memory"})
    assert print_token_states(settings, lines.append)
    assert lines == ["corp (http_json): kept in each worker"]


def test_one_source_without_a_token_among_others_counts(print_states: Callable[..., bool], lines: list[str]) -> None:
    other = {**_HTTP, "url": "http://127.0.0.1:1/other"}
    assert not print_states(Record(token=token(10), generation=7), corp=_HTTP, other=other, vendor=_STATIC)
    assert len(lines) == 3
