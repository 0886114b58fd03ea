"""Settings that survive a failed reload."""

from collections.abc import Callable
from pathlib import Path

import pytest

from config import ConfigError, keep, kept_settings, load_or_keep

GOOD = "upstreams: [{name: NAME, base_url: 'https://llm.example.com/v1'}]\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the config file that is read; nothing is kept yet."""
    file = tmp_path / "config.yaml"
    monkeypatch.setattr(keep, "_kept", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_PROXY_CONFIG", raising=False)
    return lambda text: file.write_text(text) and None


def test_a_bad_file_at_the_first_start_is_an_error(write: Callable[[str], None]) -> None:
    write("upstreams: []\n")
    with pytest.raises(ConfigError):
        load_or_keep()


def test_a_bad_file_at_a_reload_keeps_the_settings_and_tells_its_faults(write: Callable[[str], None]) -> None:
    write(GOOD)
    settings, faults = load_or_keep()
    assert faults == ()
    write("upstreams: []\n")
    kept, faults = load_or_keep()
    assert kept is settings
    assert faults
    assert kept_settings() is settings


def test_a_good_file_at_a_reload_takes_their_place(write: Callable[[str], None]) -> None:
    write(GOOD)
    load_or_keep()
    write(GOOD.replace("NAME", "other"))
    settings, faults = load_or_keep()
    assert (settings.upstreams[0].name, faults) == ("other", ())


def test_without_a_load_before_the_file_is_read(write: Callable[[str], None]) -> None:
    write(GOOD)
    assert kept_settings().upstreams[0].name == "NAME"


def test_what_another_finds_wrong_counts_like_a_fault_of_the_file(write: Callable[[str], None]) -> None:
    write(GOOD)
    with pytest.raises(ConfigError, match="odd"):
        load_or_keep(lambda _: ["odd"])
    settings, _ = load_or_keep(lambda _: [])
    write(GOOD.replace("NAME", "other"))
    assert load_or_keep(lambda new: [new.upstreams[0].name]) == (settings, ("other",))
