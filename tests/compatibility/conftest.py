"""The matrix of clients and features, docs/compatibility.md: made from what the tests of this folder did.

To add a client, write a file here:

    CLIENTS = [Client("openai-python", version("openai"), not_there={"rerank": "The client has no such call."})]

    @pytest.mark.cell(client="openai-python", feature="chat")
    def test_chat_answers(proxy): ...

- `Client` and the names of the features are in tests/support/compatibility.py. Every feature of a client has a test
  that is marked for it, or a reason in `not_there`; a cell is a "yes" where all its tests passed.
- A test that is skipped, or marked `xfail(strict=True)`, makes its cell a "no" with its reason. A reason is a sentence
  for the page's reader: `pytest.skip("The upstream must ...")`.
- A client in a process of its own: let a module's fixture run it once and read a JSON object with a member for each
  feature, and take them by `@pytest.mark.parametrize("feature", CLIENTS[0].cells())`, which brings the marks.
- `pinned=False` where the machine brings the client (curl, a browser): its version may differ from the page's.
- Tests without the mark are tests like others.

`make matrix` (pytest tests/compatibility --write-matrix) writes the page; with one file given, the other rows stay.
Every other run compares what it ran with the page, and fails where they disagree. Of a rerun the last try counts.
Cells that are missing are told when whole files ran, rows too many when the whole folder did.
"""

from pathlib import Path

import pytest

from tests.support.compatibility_matrix import Matrix

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "compatibility.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-matrix", action="store_true", help="write docs/compatibility.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cell(client, feature): what this test shows in docs/compatibility.md")
    for name in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{name}: langchain-tests has it")
    # In a run of all tests this file is read too late to add an option.
    writes = config.getoption("--write-matrix", default=False)
    config.pluginmanager.register(Matrix(PAGE, FOLDER, writes=bool(writes)), "compatibility-matrix")


@pytest.fixture
def worker_class() -> str:
    """The default: tests/e2e runs both kinds, and a client cannot tell them apart."""
    return "gevent"
