import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.file import FileSource
from proxy.tokens.sources.reply import TOKEN_MOST_CHARS
from tests.support.unsigned_jwt import unsigned_jwt

_NOW = 1_763_114_400.0
_MARK = "s3cret-mark"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def source(path: Path) -> FileSource:
    return FileSource(path, clock=lambda: _NOW)


def _replace(path: Path, text: str) -> None:
    """As a careful writer does it: whoever reads sees the old file or the new one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("text", ["token-1", "token-1\n", "token-1\r\n"])
def test_opaque_token_lives_for_ever(path: Path, source: FileSource, text: str) -> None:
    path.write_bytes(text.encode())
    assert source.fetch() == Grant("token-1", math.inf)


@pytest.mark.parametrize(
    ("issued_at", "expires_at", "lifetime_s"),
    [
        pytest.param(_NOW - 100, _NOW + 200, 200.0, id="in-the-midst-of-its-life"),
        pytest.param(_NOW + 5, _NOW + 305, 300.0, id="our-clock-is-late"),
        pytest.param(_NOW - 299, _NOW + 1, 1.0, id="nearly-over"),
    ],
)
def test_jwt_lives_for_what_its_claims_leave(
    path: Path, source: FileSource, issued_at: float, expires_at: float, lifetime_s: float
) -> None:
    token = unsigned_jwt({"iat": issued_at, "exp": expires_at})
    path.write_text(token)
    assert source.fetch() == Grant(token, lifetime_s)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(b"", "no token at PATH", id="empty"),
        pytest.param(b"\n", "no token at PATH", id="empty-line"),
        pytest.param(b"s3cret-mark\n\n", "more than one line at PATH", id="two-line-breaks"),
        pytest.param(b"s3cret-mark two", "the token at PATH has characters", id="blank"),
        pytest.param(b'{"token": "s3cret-mark"}', "the token at PATH has characters", id="json"),
        pytest.param(b"s3cret-mark\xff", "the token at PATH has characters", id="no-utf-8"),
        pytest.param(b"\xef\xbb\xbfs3cret-mark", "the token at PATH has characters", id="byte-order-mark"),
        pytest.param(b"x" * (TOKEN_MOST_CHARS + 1), "the token at PATH is longer than 16384", id="too-long"),
        pytest.param(b"x" * 10_000_000, "the token at PATH is longer than 16384", id="much-too-long"),
        pytest.param(
            unsigned_jwt({"exp": _NOW - 35}).encode(), "the token ran out 35 s ago", id="jwt-that-has-run-out"
        ),
        pytest.param(unsigned_jwt({"exp": _NOW}).encode(), "the token ran out 0 s ago", id="jwt-that-runs-out-now"),
    ],
)
def test_file_without_a_usable_token_is_a_failed_fetch_that_quotes_nothing(
    path: Path, source: FileSource, text: bytes, reason: str
) -> None:
    path.write_bytes(text)
    with pytest.raises(TokenFetchError) as caught:
        source.fetch()
    assert str(caught.value).startswith(reason.replace("PATH", str(path)))
    assert _MARK not in str(caught.value)
    assert not caught.value.refused


@pytest.mark.parametrize("line_break", ["", "\n", "\r\n"])
def test_token_of_16_kib_is_read_whole(path: Path, source: FileSource, line_break: str) -> None:
    path.write_bytes(b"x" * TOKEN_MOST_CHARS + line_break.encode())
    assert len(source.fetch().access_token) == TOKEN_MOST_CHARS


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path: None, "cannot be read: No such file or directory", id="missing"),
        pytest.param(Path.mkdir, "cannot be read: Is a directory", id="folder"),
        pytest.param(os.mkfifo, "not a regular file", id="named-pipe"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "not a regular file", id="device"),
        pytest.param(lambda path: path.symlink_to(path), "cannot be read: Too many levels", id="link-to-itself"),
    ],
)
def test_path_that_leads_to_no_file_is_a_failed_fetch_that_may_soon_be_better(
    path: Path, source: FileSource, make: Callable[[Path], object], reason: str
) -> None:
    make(path)
    with pytest.raises(TokenFetchError, match=reason) as caught:
        source.fetch()
    assert not caught.value.refused


def test_file_is_read_anew_for_each_fetch(path: Path, source: FileSource) -> None:
    path.write_text("token-1")
    assert source.fetch().access_token == "token-1"
    path.write_text("token-2")
    assert source.fetch().access_token == "token-2"


def test_file_is_looked_at_every_second(source: FileSource) -> None:
    assert source.watch_s == 1.0


def test_file_that_stays_has_not_changed(path: Path, source: FileSource) -> None:
    path.write_text("token-1")
    source.fetch()
    assert [source.has_changed() for _ in range(3)] == [False] * 3


def _write_more(path: Path) -> None:
    path.write_text("token-22")


def _replace_alike(path: Path) -> None:
    """Same size and same time: only the inode tells."""
    status = path.stat()
    new = path.with_suffix(".new")
    new.write_text("token-2")
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


def _write_in_place(path: Path) -> None:
    """Same size and same inode: only the time tells."""
    status = path.stat()
    path.write_text("token-2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("change", [_write_more, _replace_alike, _write_in_place])
def test_file_that_was_written_has_changed_until_it_is_read(
    path: Path, source: FileSource, change: Callable[[Path], None]
) -> None:
    path.write_text("token-1")
    source.fetch()
    change(path)
    assert [source.has_changed(), source.has_changed()] == [True, True]
    assert source.fetch().access_token.startswith("token-2")
    assert not source.has_changed()


def test_folder_that_kubernetes_swaps_under_a_link_has_changed(tmp_path: Path) -> None:
    # As kubelet writes a projected volume: token -> ..data/token, ..data -> a folder with a date.
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"token-{name}")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "token").symlink_to("..data/token")
    source = FileSource(tmp_path / "token")
    assert source.fetch().access_token == "token-1"
    (tmp_path / "..data_tmp").symlink_to("2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert source.has_changed()
    assert source.fetch().access_token == "token-2"


def test_missing_file_is_no_change_until_it_is_back(path: Path, source: FileSource) -> None:
    path.write_text("token-1")
    source.fetch()
    path.unlink()
    assert not source.has_changed()
    path.write_text("token-22")
    assert source.has_changed()


def test_file_that_comes_later_has_changed(path: Path, source: FileSource) -> None:
    assert not source.has_changed()
    with pytest.raises(TokenFetchError):
        source.fetch()
    assert not source.has_changed()
    _replace(path, "token-1")
    assert source.has_changed()
    source.fetch()
    assert not source.has_changed()


def test_bad_file_is_read_once_and_again_when_it_has_changed(path: Path, source: FileSource) -> None:
    path.write_text("")
    with pytest.raises(TokenFetchError):
        source.fetch()
    assert not source.has_changed()
    path.write_text("token-1")
    assert source.has_changed()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_path_that_cannot_be_read_is_no_news_each_time_it_is_looked_at(
    path: Path, source: FileSource, make: Callable[[Path], None]
) -> None:
    make(path)
    assert source.has_changed()
    with pytest.raises(TokenFetchError):
        source.fetch()
    assert not source.has_changed()


def test_same_file_that_vanished_for_a_failed_fetch_has_changed(path: Path, source: FileSource) -> None:
    path.write_text("token-1")
    source.fetch()
    path.rename(path.with_suffix(".away"))
    with pytest.raises(TokenFetchError):
        source.fetch()
    path.with_suffix(".away").rename(path)
    assert source.has_changed()


def test_file_is_closed_after_each_fetch(path: Path, source: FileSource) -> None:
    path.write_text("token-1")
    before = os.listdir("/proc/self/fd")
    source.fetch()
    source.close()
    assert os.listdir("/proc/self/fd") == before
