"""A record as text: all of it comes back, and whatever is no record of ours is refused."""

import json
import math
from typing import Any

import pytest

from proxy.tokens.record import Record
from proxy.tokens.stores.record_json import UnreadableRecord, dump_record, load_record
from proxy.tokens.token import Token

TOKEN = Token("t0k.en", fetched_at=100.5, lifetime_s=300.0, generation=7, jitter=0.25)
RECORD = Record(TOKEN, 7, 2, 1, 130.25, (90.0, 100.0), 120.0, 30.0)


def plain(record: Record) -> dict[str, Any]:
    members = {name: getattr(record, name) for name in Record.__slots__ if name != "token"}
    token = record.token
    return members | {f"token.{name}": getattr(token, name) for name in (Token.__slots__ if token is not None else ())}


@pytest.mark.parametrize("record", [Record(), RECORD], ids=["empty", "full"])
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert plain(load_record(dump_record(record))) == plain(record)


def test_a_token_that_never_expires_comes_back() -> None:
    token = Token("t", fetched_at=1.0, lifetime_s=math.inf, generation=1)
    assert load_record(dump_record(Record(token, 1))).token.renew_at == math.inf  # type: ignore[union-attr]


def _changed(**members: Any) -> str:
    return json.dumps({**json.loads(dump_record(RECORD)), **members})


def _with_token(**members: Any) -> str:
    return _changed(token={**json.loads(dump_record(RECORD))["token"], **members})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        dump_record(RECORD)[:-20],
        _changed(format=2),
        _changed(generation=-1),
        _changed(generation=True),
        _changed(retry_at="soon"),
        _changed(retry_at=math.nan),
        _changed(forced_at=5),
        _changed(token="t0k.en"),
        _with_token(value=""),
        _with_token(value="a\r\nX-Evil: 1"),
        _with_token(lifetime_s=0),
        _with_token(jitter=1.0),
        _with_token(fetched_at=math.inf),
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_what_is_no_record_of_ours_is_refused_and_not_quoted(text: str | bytes) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        load_record(text)
    assert "t0k" not in str(caught.value)
