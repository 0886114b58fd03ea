import copy
import pickle
from pathlib import Path

import pytest

from config import ConfigError, SecretRef


def test_text_is_revealed_as_given() -> None:
    assert SecretRef(text=" a\n").reveal() == " a\n"


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"abc", "abc"), (b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc\n\n", "abc\n"), (b" abc ", " abc ")],
    ids=["no break", "break", "windows break", "two breaks", "spaces"],
)
def test_one_line_break_at_the_end_of_a_file_is_left_out(tmp_path: Path, content: bytes, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert SecretRef(path=file).reveal() == secret


def test_file_is_read_anew_at_each_call(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    reference = SecretRef(path=file)
    file.write_text("old")
    assert reference.reveal() == "old"
    file.write_text("new")
    assert reference.reveal() == "new"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"], ids=["missing", "empty", "break", "binary"])
def test_unreadable_file_is_named_by_its_path(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        SecretRef(path=file).reveal()
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, lambda ref: f"{[ref]}"], ids=["repr", "str", "format", "in a list"]
)
def test_value_is_never_shown(show, mark: str) -> None:
    assert mark not in show(SecretRef(text=mark))
    assert "SecretRef(****)" in show(SecretRef(text=mark))
    assert "SecretRef(file=/run/secret)" in show(SecretRef(path=Path("/run/secret")))


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickling_and_copying_are_refused(copier) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        copier(SecretRef(text="a"))


def test_references_to_the_same_source_are_equal() -> None:
    assert SecretRef(text="a") == SecretRef(text="a") != SecretRef(text="b")
    assert SecretRef(path=Path("a")) == SecretRef(path=Path("a")) != SecretRef(text="a")
    assert len({SecretRef(text="a"), SecretRef(text="a")}) == 1
    assert SecretRef(text="a") != "a"


@pytest.mark.parametrize("arguments", [{}, {"text": "a", "path": Path("a")}], ids=["neither", "both"])
def test_either_text_or_path_must_be_given(arguments) -> None:
    with pytest.raises(TypeError):
        SecretRef(**arguments)


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff"], ids=["gone", "empty", "a-line-break", "not-UTF-8"])
def test_file_in_the_midst_of_its_rotation_gives_what_it_gave_before(
    tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    secret = SecretRef(path=file)
    assert secret.reveal() == "first"
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert secret.reveal() == "first"
    file.write_text("second")
    assert secret.reveal() == "second"


def test_version_is_that_of_the_first_reading(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    secret, text = SecretRef(path=file), SecretRef(text="first")
    assert secret.version == text.version
    file.write_text("second")
    assert secret.reveal() == "second"
    assert secret.version == text.version != SecretRef(path=file).version


def test_version_of_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        _ = SecretRef(path=tmp_path / "missing").version
