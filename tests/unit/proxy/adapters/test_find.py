import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.upstreams import ADAPTERS
from proxy.adapters.find import BUILT_IN, AdapterError, find_adapter, import_anew

GOOD = "from proxy.adapters import Adapter\n\n\nclass Own(Adapter):\n    pass\n"
Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the module; what is imported of it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # one file is written twice in a second
    yield lambda text: (tmp_path / "own_adapter.py").write_text(text) and None
    sys.modules.pop("own_adapter", None)


def faults(folder: Path, name: str = "own_adapter:Own") -> tuple[str, ...]:
    return import_anew({"upstreams[0].adapter": (name, folder)})


def test_config_knows_the_names_of_those_that_are_here(tmp_path: Path) -> None:
    assert set(ADAPTERS) == BUILT_IN.keys()
    assert [type(find_adapter(name, tmp_path)).__name__ for name in ADAPTERS] == ["DashScope", "PlainSse"]


def test_class_beside_the_config_is_found(write: Write, tmp_path: Path) -> None:
    write(GOOD)
    assert type(find_adapter("own_adapter:Own", tmp_path)).__name__ == "Own"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("import absent_module\n", "cannot be imported: ModuleNotFoundError absent_module", id="import"),
        pytest.param("raise SystemExit('s3cret-mark')\n", "cannot be imported: SystemExit", id="exit"),
        pytest.param("def (\n", "cannot be imported: SyntaxError", id="syntax"),
        pytest.param("Own = 1\n", "must name a subclass of proxy.adapters.Adapter", id="no class"),
        pytest.param("class Own: pass\n", "must name a subclass of proxy.adapters.Adapter", id="another class"),
        pytest.param("\n", "must name a subclass of proxy.adapters.Adapter", id="no such name"),
        pytest.param(
            GOOD.replace("pass", "def __init__(self, a): ..."),
            "cannot be made without arguments: TypeError",
            id="arguments",
        ),
    ],
)
def test_one_that_cannot_be_used_is_told_by_its_path(write: Write, tmp_path: Path, text: str, fault: str) -> None:
    write(text)
    assert faults(tmp_path) == (f"upstreams[0].adapter: {fault}",)
    with pytest.raises(AdapterError, match=fault):
        find_adapter("own_adapter:Own", tmp_path)


def test_edited_module_is_imported_anew_and_a_broken_one_leaves_the_one_before(write: Write, tmp_path: Path) -> None:
    write(GOOD + "    edit = 1\n")
    assert faults(tmp_path) == ()
    write(GOOD + "    edit = 2\n")
    assert faults(tmp_path) == ()
    assert find_adapter("own_adapter:Own", tmp_path).edit == 2  # type: ignore[attr-defined]
    write("def (\n")
    assert len(faults(tmp_path)) == 1
    assert find_adapter("own_adapter:Own", tmp_path).edit == 2  # type: ignore[attr-defined]


def test_adapters_that_are_here_stay_the_classes_that_they_are(tmp_path: Path) -> None:
    name = BUILT_IN["dashscope"]
    before = type(find_adapter(name, tmp_path))
    assert faults(tmp_path, name) == ()
    assert type(find_adapter(name, tmp_path)) is before
