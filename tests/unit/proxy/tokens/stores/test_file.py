"""The file store: shared by all who open the same name, private to the user, and never a reason to fail."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from proxy.tokens.holder import TokenHolder
from proxy.tokens.record import Record
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.file import ALONE_S, FileStore, StoreError, open_folder
from proxy.tokens.stores.record_json import dump_record
from proxy.tokens.token import Token
from tests.support.clock import Clock
from tests.support.token_source import FakeSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def make_store(folder: Path, clock: Clock) -> Callable[[], FileStore]:
    """One more store of the same source, as another process would open it."""
    return lambda: FileStore(folder, "name", clock=clock)


def record(clock: Clock, generation: int = 1) -> Record:
    token = Token(f"token-{generation}", fetched_at=clock(), lifetime_s=300.0, generation=generation)
    return Record(token=token, generation=generation)


def save(store: FileStore, kept: Record) -> None:
    with store.try_lock() as won:
        assert won
        store.save(kept)


def value_of(store: FileStore) -> str | None:
    token = store.load().token
    return None if token is None else token.value


def test_nothing_saved_is_an_empty_record(make_store: Callable[[], FileStore]) -> None:
    assert make_store().load() == Record()


def test_what_one_saves_the_other_loads(make_store: Callable[[], FileStore], clock: Clock) -> None:
    one, other = make_store(), make_store()
    save(one, record(clock))
    assert value_of(other) == "token-1"


@pytest.mark.parametrize(("after_s", "expected"), [(0.24, "token-1"), (0.25, "token-2")])
def test_the_file_is_looked_at_every_250_ms(
    make_store: Callable[[], FileStore], clock: Clock, after_s: float, expected: str
) -> None:
    one, other = make_store(), make_store()
    save(one, record(clock))
    assert value_of(other) == "token-1"
    save(one, record(clock, 2))
    clock.move(after_s)
    assert value_of(other) == expected


def test_the_winner_of_the_lock_sees_what_was_saved_just_before(
    make_store: Callable[[], FileStore], clock: Clock
) -> None:
    one, other = make_store(), make_store()
    assert value_of(other) is None
    save(one, record(clock))
    with other.try_lock() as won:
        assert won
        assert value_of(other) == "token-1"


def test_one_at_a_time_has_the_lock(make_store: Callable[[], FileStore]) -> None:
    one, other = make_store(), make_store()
    with one.try_lock() as first, other.try_lock() as second, one.try_lock() as again:
        assert (first, second, again) == (True, False, False)
    with other.try_lock() as free:
        assert free


def test_the_file_is_the_users_alone_and_no_other_is_left(
    make_store: Callable[[], FileStore], folder: Path, clock: Clock
) -> None:
    save(make_store(), record(clock))
    assert sorted(path.name for path in folder.iterdir()) == ["name.json", "name.lock"]
    assert stat.S_IMODE((folder / "name.json").stat().st_mode) == 0o600


def _foreign_mode(path: Path) -> None:
    path.chmod(0o644)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _long(path: Path) -> None:
    path.write_text(path.read_text() + " " * 70_000)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("nonsense"),
        lambda path: path.write_text(path.read_text()[:-10]),
        lambda path: path.write_text(""),
        _foreign_mode,
        _link,
        _long,
        _pipe,
    ],
    ids=["nonsense", "cut", "empty", "readable by others", "link", "long", "pipe"],
)
def test_a_spoilt_or_hostile_file_counts_as_none_and_is_replaced(
    make_store: Callable[[], FileStore], folder: Path, clock: Clock, logs: list[str], spoil: Callable[[Path], None]
) -> None:
    save(make_store(), record(clock))
    spoil(folder / "name.json")
    store = make_store()
    assert store.load() == Record()
    assert any(line.startswith("ERROR") for line in logs)
    save(store, record(clock, 2))
    assert value_of(make_store()) == "token-2"


def test_a_record_of_another_clock_counts_as_none(make_store: Callable[[], FileStore], clock: Clock) -> None:
    save(make_store(), record(clock))
    clock.move(-500)  # the host has started anew
    assert make_store().load() == Record()


def test_a_folder_that_goes_away_leaves_the_process_alone_but_at_work(
    make_store: Callable[[], FileStore], folder: Path, clock: Clock, logs: list[str]
) -> None:
    store = make_store()
    folder.rename(folder.with_name("moved"))
    save(store, record(clock))
    assert value_of(store) == "token-1"
    assert any("goes on by itself" in line for line in logs)
    with store.try_lock() as won, store.try_lock() as again:
        assert (won, again) == (True, False)


def test_folder_in_the_files_place_leaves_the_process_alone_but_at_work(
    make_store: Callable[[], FileStore], folder: Path, clock: Clock, logs: list[str]
) -> None:
    (folder / "name.json").mkdir()
    descriptors = os.listdir("/proc/self/fd")
    store = make_store()
    assert store.load() == Record()
    save(store, record(clock))
    assert value_of(store) == "token-1"
    assert any("goes on by itself" in line for line in logs)
    assert os.listdir("/proc/self/fd") == descriptors


def test_the_folder_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = open_folder()
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert open_folder() == folder


@pytest.mark.parametrize("spoil", [lambda f: f.chmod(0o755), lambda f: (f.rmdir(), f.symlink_to(f.parent))])
def test_a_folder_that_others_could_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    spoil(open_folder())
    with pytest.raises(StoreError):
        open_folder()


# Two holders over one file, as two workers have


def test_a_second_holder_adopts_the_token_and_fetches_nothing(
    make_store: Callable[[], FileStore], make_holder: Callable[..., TokenHolder]
) -> None:
    source = FakeSource()
    first = make_holder(source, make_store()).token()
    assert make_holder(source, make_store()).token().value == first.value
    assert source.fetches == 1


def test_holders_that_start_at_once_make_one_fetch(
    make_store: Callable[[], FileStore], make_holder: Callable[..., TokenHolder]
) -> None:
    source = FakeSource()
    source.hold()
    holders = [make_holder(source, make_store()) for _ in range(4)]
    values: list[str] = []
    threads = [threading.Thread(target=lambda holder=holder: values.append(holder.token().value)) for holder in holders]
    for thread in threads:
        thread.start()
    source.await_fetch()
    source.let_go()
    # The clock stands still, so the others look at the file under the lock that is free again.
    for thread in threads:
        thread.join(10)
    assert (values, source.fetches) == (["token-1"] * 4, 1)


def test_a_failed_fetch_is_shared_so_the_other_holder_calls_nobody(
    make_store: Callable[[], FileStore], make_holder: Callable[..., TokenHolder]
) -> None:
    source = FakeSource(TokenFetchError("down"))
    one, other = make_holder(source, make_store()), make_holder(source, make_store())
    assert one.renew_if_due() > 0
    assert other.renew_if_due() > 0
    assert source.fetches == 1


def test_a_refused_token_is_replaced_once_for_both_holders(
    make_store: Callable[[], FileStore], make_holder: Callable[..., TokenHolder], clock: Clock
) -> None:
    source = FakeSource()
    one, other = make_holder(source, make_store()), make_holder(source, make_store())
    refused = one.token()
    assert other.token().value == refused.value
    clock.move(1)
    first = one.replacement(refused)
    clock.move(1)
    second = other.replacement(refused)
    assert first is not None
    assert second is not None
    assert first.value == second.value != refused.value
    assert source.fetches == 2


def test_a_stuck_lock_stops_a_holder_without_a_token_for_7_s_only(
    make_store: Callable[[], FileStore], make_holder: Callable[..., TokenHolder], clock: Clock
) -> None:
    source = FakeSource(Grant("mine", 300.0))
    holder = make_holder(source, make_store())
    with make_store().try_lock():
        holder.renew_if_due()
        clock.move(6.9)
        holder.renew_if_due()
        assert source.fetches == 0
        clock.move(0.2)
        holder.renew_if_due()
    assert source.fetches == 1
    assert holder.token().value == "mine"


def test_a_lost_file_does_not_bring_an_old_generation_back(
    make_store: Callable[[], FileStore], make_holder: Callable[..., TokenHolder], folder: Path, clock: Clock
) -> None:
    source = FakeSource()
    holder = make_holder(source, make_store())
    holder.renew_if_due()
    first = holder.token()
    (folder / "name.json").unlink()
    clock.move(1)
    holder.renew_if_due()
    second = holder.token()
    assert second.value != first.value
    assert second.generation == first.generation + 1


def test_the_text_in_the_file_is_the_record(make_store: Callable[[], FileStore], folder: Path, clock: Clock) -> None:
    kept = record(clock)
    save(make_store(), kept)
    assert (folder / "name.json").read_text() == dump_record(kept)


def test_worker_that_could_not_use_the_file_shares_again_after_a_while(
    make_store: Callable[[], FileStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = make_store(), make_store()
    save(store, record(clock))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _no_descriptors)
        save(store, replace(record(clock), failures=3))
    assert (store.is_shared, store.load().failures, other.load().failures) == (False, 3, 0)
    clock.move(ALONE_S)
    assert (store.load().failures, store.is_shared) == (0, True)


def test_file_that_cannot_be_opened_for_a_moment_is_not_forgotten(
    make_store: Callable[[], FileStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    save(store, record(clock))
    clock.move(1)
    monkeypatch.setattr(os, "open", _no_descriptors)
    assert store.load().token is not None


def test_instant_that_no_rule_could_have_set_is_of_another_clock(
    make_store: Callable[[], FileStore], folder: Path, clock: Clock
) -> None:
    save(make_store(), replace(Record(), failures=1, retry_at=clock.now + 1e6))
    assert make_store().load() == Record()


def _no_descriptors(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")
