"""How docs/compatibility.md comes from a run: this folder's conftest.py in another project, with made-up clients."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.compatibility import FEATURES
from tests.support.compatibility_page import PASS, Row, parse, render
from tests.support.proxy_process import ROOT

CLIENT_FILE = """
import pytest
from tests.support.compatibility import FEATURES, Client

GIVEN = dict.fromkeys(FEATURES[5:], "It has no\\nsuch call.")
CLIENTS = [Client("one", "1.0", GIVEN), Client("two", "?", dict.fromkeys(FEATURES, "It can nothing."), pinned=False)]
tries = []

@pytest.mark.cell(client="one", feature="chat")
@pytest.mark.parametrize("number", [1, 2])
def test_chat(number):
    tries.append(number)
    assert len(tries) > 1  # the first try fails, and is run again

@pytest.mark.cell(client="one", feature="stream")
def test_stream():
    pytest.skip("The upstream must stream.")

@pytest.mark.cell(client="one", feature="tools")
@pytest.mark.parametrize("number", [1, 2])
def test_tools(number):
    if number == 1:
        pytest.xfail("It calls none.")

@pytest.mark.parametrize("feature", CLIENTS[0].cells()[3:])
def test_others(feature):
    pass
"""
EXPECTED = {
    **dict.fromkeys(FEATURES, "It has no such call."),
    "chat": PASS,
    "stream": "The upstream must stream.",
    "tools": "It calls none.",
    "structured output": PASS,
    "embeddings (floats)": PASS,
}
WRITE = "--write-matrix"


class Project:
    """A project with a folder of client tests, whose page is written once."""

    def __init__(self, root: Path) -> None:
        folder = root / "suite" / "compatibility"  # a second "tests" would hide ours
        folder.mkdir(parents=True)
        (root / "docs").mkdir()
        (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib --reruns 1\n")
        shutil.copy(Path(__file__).with_name("conftest.py"), folder)
        self._root = root
        self.page = root / "docs" / "compatibility.md"
        self.file = folder / "test_client.py"
        self.file.write_text(CLIENT_FILE)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pytest", "-p", "pytest_rerunfailures", "-p", "no:cacheprovider", *words]
        return subprocess.run(command, cwd=self._root, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    done = project.run("suite/compatibility", WRITE)
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def project(written: Project, tmp_path: Path) -> Project:
    project = Project(tmp_path)
    shutil.copy(written.page, project.page)
    return project


def test_a_page_that_was_written_is_read_as_what_it_was_written_from() -> None:
    rows = {"b": Row("1 | 2", dict(EXPECTED)), "A": Row("", dict.fromkeys(FEATURES, PASS))}
    assert parse(render(rows)) == {"A": rows["A"], "b": Row("1 / 2", dict(EXPECTED))}
    assert parse("# Another page") == {}


def test_the_page_holds_what_the_last_try_of_each_test_showed(written: Project) -> None:
    assert parse(written.page.read_text()) == {
        "one": Row("1.0", EXPECTED),
        "two": Row("?", dict.fromkeys(FEATURES, "It can nothing.")),
    }


@pytest.mark.parametrize(
    "words", [[], ["suite/compatibility/test_client.py"], ["-k", "chat"]], ids=["all", "one file", "some tests"]
)
def test_a_run_that_agrees_passes_and_leaves_the_page(project: Project, words: list[str]) -> None:
    before = project.page.read_text()
    done = project.run(*words)
    assert done.returncode == 0, done.stdout
    assert project.page.read_text() == before


def test_each_disagreement_fails_the_run_and_is_told(project: Project) -> None:
    code = CLIENT_FILE.replace('"1.0"', '"1.1"').replace('"?"', '"another machine\'s"')
    code = code.replace("The upstream must stream.", "It is tired.").replace("pytest.xfail", "print")
    code = code.replace(".cells()[3:]", ".cells()[4:]").replace('"two"', '"new"')
    project.file.write_text(code)
    done = project.run()
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    for fault in (
        "one, version: 1.1 ran, the page says 1.0",
        "one, stream: It is tired.; the page says The upstream must stream.",
        "one, tools: yes; the page says It calls none.",
        "one, structured output: no test passed, and no reason is given",
        "new is not on the page",
        "two is on the page, and no test file has it",
    ):
        assert fault in done.stdout
    project.page.unlink()
    assert "one is not on the page" in project.run("-k", "chat").stdout


def test_no_page_is_written_from_tests_that_failed_or_are_missing(project: Project) -> None:
    before = project.page.read_text()
    project.file.write_text(CLIENT_FILE.replace("len(tries) > 1", "0").replace("FEATURES[5:]", "FEATURES[6:]"))
    code = project.file.read_text().replace("cells()[3:]", "cells()[3:4]")
    project.file.write_text(code)
    done = project.run("suite/compatibility", WRITE)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "one, chat: a test failed" in done.stdout
    assert "one, embeddings (base64): no test passed, and no reason is given" in done.stdout
    assert project.page.read_text() == before


def test_with_one_file_the_other_rows_stay(project: Project) -> None:
    other = project.file.with_name("test_other.py")
    other.write_text(CLIENT_FILE.replace('"one"', '"three"').replace('"two"', '"four"'))
    assert project.run(f"suite/compatibility/{other.name}", WRITE).returncode == 0
    assert parse(project.page.read_text()).keys() == {"one", "two", "three", "four"}
    other.unlink()
    assert project.run("suite/compatibility", WRITE).returncode == 0
    assert parse(project.page.read_text()).keys() == {"one", "two"}


@pytest.mark.parametrize(
    ("old", "new"),
    [('(client="one", feature="chat")', '(client="x", feature="chat")'), ('feature="chat"', 'feature="rerank"')],
    ids=["a client that the file has not", "a feature that has a reason"],
)
def test_a_mark_that_cannot_be_is_refused(project: Project, old: str, new: str) -> None:
    project.file.write_text(CLIENT_FILE.replace(old, new))
    assert project.run().returncode == pytest.ExitCode.USAGE_ERROR
