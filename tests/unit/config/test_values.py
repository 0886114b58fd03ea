from collections.abc import Callable
from pathlib import Path

import pytest

_IN_A_FOLDER = "must be the path of a file in an existing folder"


def _text(path: object) -> str:
    return f"token_sources: {{corp: {{type: file, path: '{path}'}}}}"


def _bundle(path: object) -> str:
    return f"upstreams: [{{name: llm, base_url: 'https://llm.example.com', ca_bundle: '{path}'}}]"


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
def test_path_is_given_as_text(faults_of: Callable[..., tuple[str, ...]], value: str) -> None:
    assert faults_of(_text("x").replace("'x'", value)) == (
        "token_sources.corp.path: must be the path of a file, as text",
    )


_TOO_LONG = "a" * 256  # NAME_MAX is 255: the system refuses to look


@pytest.mark.parametrize("name", [_TOO_LONG, f"{_TOO_LONG}/file", "a/" * 2048 + "a"], ids=["name", "folder", "path"])
def test_path_that_cannot_be_looked_at_is_a_fault(faults_of: Callable[..., tuple[str, ...]], name: str) -> None:
    assert faults_of(_text(name)) == (f"token_sources.corp.path: {_IN_A_FOLDER} (File name too long)",)
    assert faults_of(_bundle(name)) == (
        "upstreams[0].ca_bundle: must be the path of an existing file (File name too long)",
    )


def test_path_with_nul_is_a_fault(faults_of: Callable[..., tuple[str, ...]]) -> None:
    assert faults_of(_text("x").replace("'x'", '"a\\0b"')) == (f"token_sources.corp.path: {_IN_A_FOLDER}",)
    assert faults_of(_bundle("x").replace("'x'", '"a\\0b"')) == (
        "upstreams[0].ca_bundle: must be the path of an existing file",
    )
