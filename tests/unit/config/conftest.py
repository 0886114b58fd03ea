"""Settings and faults of a config text, read through `load` as at start."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from config import ConfigError, Settings, load
from tests.support.certificates import self_signed

# Starts every secret in these tests: no fault text and no repr may hold it.
MARK = "s3cret-mark"

_UPSTREAM = "\nupstreams: [{name: llm, base_url: 'https://llm.example.com/v1'}]\n"


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a text; where it names no upstreams, one is added."""

    def settings_of(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        file = tmp_path / "config.yaml"
        file.write_text(text if "upstreams:" in text else text + _UPSTREAM, encoding="utf-8")
        return load(file, environ or {})

    return settings_of


@pytest.fixture
def faults_of(settings_of: Callable[..., Settings]) -> Callable[..., tuple[str, ...]]:
    """Faults of a text that must be refused; each is checked to be one line without a marked secret."""

    def faults_of(text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            settings_of(text, environ)
        assert str(caught.value).splitlines() == list(caught.value.faults)
        assert MARK not in str(caught.value)
        return caught.value.faults

    return faults_of


@pytest.fixture
def client_pem(tmp_path: Path) -> Path:
    """`client.pem` beside the config: a certificate with its key, good as a client's and as a bundle."""
    return self_signed(tmp_path / "client.pem", "client")


@pytest.fixture
def mark() -> str:
    return MARK
