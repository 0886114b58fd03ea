"""Who shares a record: those whose definitions of the source are the same, by the rules for each secret."""

from pathlib import Path
from typing import Any

import pytest

from config.schema import TokenStore
from config.sources import ClientCredentialsSource, FileSource, HttpJsonSource, TokenExchangeSource
from proxy.token_sources.stores import _digest, build_store
from proxy.tokens.stores.file import FileStore
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.stores.redis import RedisStore

URL = "https://iam.example.com/token"


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("first")
    return file


def _client(secret: object, **members: Any) -> ClientCredentialsSource:
    return ClientCredentialsSource.model_validate(
        {"type": "client_credentials", "token_url": URL, "client_id": "a", "client_secret": secret, **members}
    )


def _exchange(subject: object) -> TokenExchangeSource:
    return TokenExchangeSource.model_validate(
        {"type": "token_exchange", "token_url": URL, "client_id": "a", "auth_method": "none", "subject_token": subject}
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "shared"),
    [
        pytest.param({}, {}, True, id="alike"),
        pytest.param({}, {"scope": "llm"}, False, id="another-scope"),
        pytest.param({}, {"client_secret": "other"}, False, id="another-secret"),
        pytest.param({}, {"fields": {"a": "b"}}, False, id="another-secret-within"),
    ],
)
def test_those_with_the_same_definition_share(ours: dict[str, Any], theirs: dict[str, Any], shared: bool) -> None:
    assert (_digest(_client("first", **ours)) == _digest(_client("first", **theirs))) == shared


def test_ca_bundle_is_the_hosts_own_matter() -> None:
    ours, theirs = _client("a"), _client("a")
    assert _digest(ours.model_copy(update={"ca_bundle": Path("/a")})) == _digest(theirs)


def test_rotated_secret_begins_a_record_with_the_next_load_of_the_config(secret: Path) -> None:
    ours = _client({"file": str(secret)})
    before = _digest(ours)
    secret.write_text("second")
    assert _digest(ours) == before  # a worker that starts now shares with its fellows
    assert _digest(_client({"file": str(secret)})) != before


def test_secret_that_is_gone_stops_no_worker(secret: Path) -> None:
    ours = _client({"file": str(secret)})
    secret.unlink()
    assert isinstance(build_store(ours, TokenStore()), FileStore)


def test_users_of_a_single_active_issuer_share_over_a_rotation(secret: Path) -> None:
    ours = _client({"file": str(secret)}, issuer="single_active")
    secret.write_text("second")
    assert _digest(_client({"file": str(secret)}, issuer="single_active")) == _digest(ours)


def test_subject_token_counts_by_its_file_and_else_by_its_text(secret: Path, tmp_path: Path) -> None:
    ours = _exchange({"file": str(secret)})
    secret.write_text("second")
    assert _digest(_exchange({"file": str(secret)})) == _digest(ours)
    other = tmp_path / "other"
    other.write_text("second")
    assert _digest(_exchange({"file": str(other)})) != _digest(ours)
    assert _digest(_exchange("a")) != _digest(_exchange("b"))


def test_store_is_what_the_config_says(tmp_path: Path) -> None:
    http_json = HttpJsonSource.model_validate({"type": "http_json", "url": URL})
    redis = TokenStore.model_validate({"type": "redis", "url": "redis://127.0.0.1:1/0"})
    assert isinstance(build_store(http_json, TokenStore()), FileStore)
    assert isinstance(build_store(http_json, TokenStore(type="memory")), MemoryStore)
    assert isinstance(build_store(http_json, redis), RedisStore)
    watched = FileSource.model_validate({"type": "file", "path": str(tmp_path / "token")})
    assert isinstance(build_store(watched, redis), MemoryStore)
