from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import pytest

from proxy.auth import ANYONE, Caller, ClientKeys
from proxy.errors import InvalidClientKey, InvalidRequest

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
KEY = "sk-ragflow"
UNICODE_BLANKS = ["\xa0", "\x85", "\x1f", "\u2003", "\u3000"]  # str.strip() takes them
RAGFLOW = Caller("ragflow", models=("gpt-*",))


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def keys_of(*entries: tuple[str, Caller]) -> ClientKeys:
    return ClientKeys([(digest(key), caller) for key, caller in entries], now=lambda: NOW)


@pytest.fixture
def keys() -> ClientKeys:
    return keys_of((KEY, RAGFLOW), ("sk-other", Caller("other")))


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        pytest.param(f"Bearer {KEY}", None, id="bearer"),
        pytest.param(f"bearer {KEY}", None, id="lower case"),
        pytest.param(f"BEARER   {KEY} ", None, id="upper case and blanks"),
        pytest.param(None, KEY, id="api-key"),
        pytest.param(None, f" {KEY} ", id="api-key with blanks"),
        pytest.param(f"\tBearer \t{KEY}\t ", "\t" + KEY, id="tabs"),
        pytest.param(f"Bearer {KEY}", KEY, id="both, and they agree"),
    ],
)
def test_key_opens_the_proxy(keys: ClientKeys, authorization: str | None, api_key: str | None) -> None:
    assert keys.authenticate(authorization, api_key) is RAGFLOW


def test_each_key_has_its_own_caller(keys: ClientKeys) -> None:
    assert keys.authenticate("Bearer sk-other", None).label == "other"


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param("", None, id="empty"),
        pytest.param("Bearer", None, id="scheme only"),
        pytest.param("Bearer ", None, id="scheme and a blank"),
        pytest.param(None, "", id="empty api-key"),
        pytest.param("Bearer sk-wrong", None, id="unknown"),
        pytest.param(f"Bearer {KEY}x", None, id="longer"),
        pytest.param(f"Bearer {KEY[:-1]}", None, id="shorter"),
        pytest.param(f"Bearer {KEY.upper()}", None, id="other case"),
        pytest.param(f"Bearer {KEY} {KEY}", None, id="twice"),
        pytest.param(KEY, None, id="no scheme"),
        pytest.param(f"Basic {KEY}", None, id="other scheme"),
        pytest.param(f"Bearer{KEY}", None, id="no blank"),
        *[pytest.param(f"Bearer {KEY}{blank}", None, id=f"{blank!r} behind") for blank in UNICODE_BLANKS],
        *[pytest.param(f"Bearer {blank}{KEY}", None, id=f"{blank!r} before") for blank in UNICODE_BLANKS],
        *[pytest.param(f"{blank}Bearer {KEY}", None, id=f"{blank!r} before the scheme") for blank in UNICODE_BLANKS],
        *[pytest.param(None, f"{KEY}{blank}", id=f"{blank!r} behind, api-key") for blank in UNICODE_BLANKS],
        pytest.param(f"Bearer {digest(KEY)}", None, id="the hash of a key"),
        pytest.param("Bearer ключ", None, id="not ASCII"),
        pytest.param("Bearer \udcff\xff", None, id="not UTF-8"),
        pytest.param("Bearer " + "x" * 8192, None, id="8 KB"),
        pytest.param("Bearer x' OR 1=1--", None, id="SQL"),
    ],
)
def test_other_credentials_are_refused_all_with_the_same_text(
    keys: ClientKeys, authorization: str | None, api_key: str | None
) -> None:
    with pytest.raises(InvalidClientKey) as caught:
        keys.authenticate(authorization, api_key)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.message == "Missing, unknown or expired API key."


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        pytest.param(f"Bearer {KEY},Bearer {KEY}", None, id="joined fields"),
        pytest.param(f"Bearer {KEY},", None, id="comma"),
        pytest.param(None, f"{KEY},{KEY}", id="joined api-key fields"),
        pytest.param(f"Bearer {KEY}", "sk-other", id="both, and they disagree"),
        pytest.param(f"Bearer {KEY}", f"{KEY}x", id="both, and one is longer"),
        pytest.param(f"Bearer {KEY}", "", id="both, one empty"),
        pytest.param("Basic abc", KEY, id="other scheme beside a good key"),
        pytest.param("sk-unknown,", "sk-unknown", id="unknown keys too"),
    ],
)
def test_more_than_one_key_is_a_bad_request(keys: ClientKeys, authorization: str | None, api_key: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keys.authenticate(authorization, api_key)
    assert caught.value.status == 400
    assert KEY not in caught.value.message


@pytest.mark.parametrize(
    ("expires_at", "is_let_in"),
    [
        pytest.param(NOW + timedelta(microseconds=1), True, id="just before"),
        pytest.param(NOW, False, id="at"),
        pytest.param(NOW - timedelta(microseconds=1), False, id="just after"),
        pytest.param(NOW.astimezone(timezone(timedelta(hours=5))), False, id="at, in another zone"),
        pytest.param((NOW + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=-5))), True, id="other zone"),
        pytest.param(None, True, id="never"),
    ],
)
def test_key_is_good_until_it_expires(expires_at: datetime | None, is_let_in: bool) -> None:
    keys = keys_of((KEY, Caller("ragflow", expires_at=expires_at)))
    if is_let_in:
        assert keys.authenticate(f"Bearer {KEY}", None).label == "ragflow"
    else:
        with pytest.raises(InvalidClientKey):
            keys.authenticate(f"Bearer {KEY}", None)


def test_hash_may_be_written_in_upper_case() -> None:
    assert ClientKeys([(digest(KEY).upper(), RAGFLOW)]).authenticate(None, KEY) is RAGFLOW


def test_clock_of_the_machine_is_the_default() -> None:
    expired = Caller("ragflow", expires_at=datetime(2000, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidClientKey):
        ClientKeys([(digest(KEY), expired)]).authenticate(None, KEY)


@pytest.mark.parametrize("authorization", [None, "Bearer anything", "Basic abc", ""], ids=repr)
def test_everyone_is_let_in_where_there_are_no_keys(authorization: str | None) -> None:
    assert ClientKeys([]).authenticate(authorization, None) is ANYONE


def test_two_keys_are_a_bad_request_even_where_none_is_needed() -> None:
    with pytest.raises(InvalidRequest):
        ClientKeys([]).authenticate("Bearer a, Bearer b", None)
