from collections.abc import Callable
from pathlib import Path

import pytest

from config import Settings
from proxy.doctor.foreign_text import ForeignText, media_type, secrets_of


@pytest.mark.parametrize("value", ["invalid_api_key", "model_not_found", "rate-limit", "e401", "a" * 40])
def test_short_identifier_is_shown(foreign: ForeignText, value: str) -> None:
    assert foreign.identifier(value) == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a" * 41, id="too-long"),
        pytest.param("Invalid", id="upper-case"),
        pytest.param("no such model", id="words"),
        pytest.param("", id="empty"),
        pytest.param("a\nb", id="line-break"),
        pytest.param("code\n", id="line-break-at-the-end"),
        pytest.param(401, id="number"),
        pytest.param(None, id="null"),
        pytest.param(["invalid_api_key"], id="list"),
        pytest.param("3f2a9c1e3f2a9c1e3f2a9c1e", id="looks-like-a-key"),
        pytest.param("s3cret-mark-header", id="secret-of-the-config"),
        pytest.param("echo_s3cret-mark-token_", id="holds-a-secret"),
    ],
)
def test_anything_else_is_no_identifier(foreign: ForeignText, value: object) -> None:
    assert foreign.identifier(value) is None


@pytest.mark.parametrize("value", ["access_token", "Ablauf", "expires in", "日付", "a.b/c~d", "n" * 64])
def test_plain_name_is_shown(foreign: ForeignText, value: str) -> None:
    assert foreign.name(value) == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("n" * 65, id="too-long"),
        pytest.param("a\x1b[31m", id="control-character"),
        pytest.param("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", id="looks-like-a-token"),
        pytest.param("s3cret-mark-token", id="secret-of-the-config"),
    ],
)
def test_odd_name_is_not_shown(foreign: ForeignText, value: str) -> None:
    assert foreign.name(value) is None


def test_fetched_token_is_a_secret_from_then_on(foreign: ForeignText) -> None:
    assert foreign.identifier("opaque-token") == "opaque-token"
    foreign.hide("opaque-token")
    assert foreign.identifier("opaque-token") is None


def test_short_setting_hides_no_ordinary_word(settings_of: Callable[..., Settings]) -> None:
    source = {"type": "http_json", "url": "http://127.0.0.1:1/", "form": {"grant": "token"}}
    assert ForeignText(settings_of(token_sources={"corp": source})).name("access_token") == "access_token"


def test_secrets_are_found_wherever_a_section_may_hold_them(
    settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    source = {
        "type": "http_json",
        "url": "http://127.0.0.1:1/",
        "headers": {"X-Key": "in-headers"},
        "query": {"q": "in-query"},
        "json": {"a": {"b": ["in-json", 1, None, {"file": "secret"}]}},
    }
    settings = settings_of(
        token_sources={"corp": source, "vendor": {"type": "static", "token": "in-static"}},
        token_store={"type": "redis", "url": "redis://:pw@127.0.0.1/0"},
    )
    expected = {"in-headers", "in-query", "in-json", "from-a-file", "in-static", "redis://:pw@127.0.0.1/0"}
    assert set(secrets_of(settings)) == expected


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("Text/HTML", "text/html"),
        ("application/problem+json", "application/problem+json"),
        ("text/s3cret-mark", "an unusual content type"),
        ("", "no content type"),
        (None, "no content type"),
    ],
)
def test_only_known_media_types_are_shown(content_type: str | None, shown: str) -> None:
    assert media_type(content_type) == shown
