from collections.abc import Callable
from pathlib import Path

import pytest

_IN_A_FOLDER = "must be the path of a file in an existing folder"


def _text(path: object) -> str:
    return f"token_sources: {{corp: {{type: file, path: '{path}'}}}}"


@pytest.mark.parametrize("name", ["token", "later", "folder/later", "folder/../later", "link"])
def test_file_to_come_counts_from_the_config_file_and_need_not_exist(
    settings_of: Callable[..., object], tmp_path: Path, name: str
) -> None:
    (tmp_path / "token").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("later")
    assert settings_of(_text(name)).token_sources["corp"].path == tmp_path / name
    assert settings_of(_text(tmp_path / name)).token_sources["corp"].path == tmp_path / name


@pytest.mark.parametrize("name", ["absent/token", "token/token", "folder", ".", ""])
def test_file_to_come_must_be_in_an_existing_folder(
    faults_of: Callable[..., tuple[str, ...]], tmp_path: Path, name: str
) -> None:
    (tmp_path / "token").touch()
    (tmp_path / "folder").mkdir()
    assert faults_of(_text(name)) == (f"token_sources.corp.path: {_IN_A_FOLDER}",)


@pytest.mark.parametrize("value", ["3", "null", "[token]", "true"])
def test_file_to_come_is_given_as_text(faults_of: Callable[..., tuple[str, ...]], value: str) -> None:
    (fault,) = faults_of(_text("x").replace("'x'", value))
    assert fault.startswith("token_sources.corp.path: must be the path of")
