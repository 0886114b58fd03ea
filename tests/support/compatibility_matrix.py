"""What the tests of clients showed: docs/compatibility.md is written from it, or compared with it.

tests/compatibility/conftest.py registers it and says how it is used; `compatibility_page` is the page's text.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import compatibility_page
from tests.support.compatibility import FEATURES, Client
from tests.support.compatibility_page import PASS, Row

FAILED = "failed"
_NO_TEST = "no test passed, and no reason is given"
_COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


class Matrix:
    """Collects the outcome of each marked test; writes or compares the page when the session ends."""

    def __init__(self, page: Path, folder: Path, *, writes: bool) -> None:
        self._page = page
        self._folder = folder
        self._writes = writes
        self._clients: dict[str, Client] = {}
        self._cells: dict[str, tuple[str, str]] = {}  # by the test's node id
        self._outcomes: dict[str, str] = {}
        self._deselected = False
        self._faults: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for client in getattr(getattr(item, "module", None), "CLIENTS", ()):
                self._clients[client.name] = client
            if mark := item.get_closest_marker("cell"):
                self._cells[item.nodeid] = self._place(item, **mark.kwargs)

    def _place(self, item: pytest.Item, client: str, feature: str) -> tuple[str, str]:
        if client not in self._clients:
            raise pytest.UsageError(f"{item.nodeid}: {client} is not among the CLIENTS of its file")
        if feature not in FEATURES or feature in self._clients[client].not_there:
            raise pytest.UsageError(f"{item.nodeid}: {feature} is no feature, or not_there has it")
        return client, feature

    def pytest_deselected(self) -> None:
        self._deselected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self._cells:
            return
        if report.when == "setup" or str(report.outcome) == "rerun":
            self._outcomes.pop(report.nodeid, None)
        if report.failed:
            self._outcomes[report.nodeid] = FAILED
        elif report.skipped:
            self._outcomes[report.nodeid] = _why(report)
        elif report.when == "call":
            self._outcomes.setdefault(report.nodeid, PASS)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._clients or session.config.option.collectonly or session.exitstatus not in _COMPLETE:
            return
        written = compatibility_page.parse(self._page.read_text()) if self._page.exists() else {}
        ran = {name: self._row(client) for name, client in self._clients.items()}
        self._faults = (self._write if self._writes else self._compare)(session, written, ran)
        if self._faults:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._faults:
            terminalreporter.section("compatibility matrix")
            for fault in self._faults:
                terminalreporter.line(fault, red=True)

    def _row(self, client: Client) -> Row:
        """Build a row of the features that ran; the worst of its tests makes a cell."""
        cells = {feature: _one_line(reason) for feature, reason in client.not_there.items()}
        for node_id, outcome in self._outcomes.items():
            name, feature = self._cells[node_id]
            if name == client.name and cells.get(feature) != FAILED and (outcome or feature not in cells):
                cells[feature] = outcome
        return Row(client.version, cells)

    def _write(self, session: pytest.Session, written: dict[str, Row], ran: dict[str, Row]) -> list[str]:
        """Write the page; what stands in the way, where a cell would be empty or a test failed."""
        cells = [(name, feature, row.cells.get(feature)) for name, row in ran.items() for feature in FEATURES]
        faults = [f"{name}, {feature}: {_NO_TEST}" for name, feature, outcome in cells if outcome is None]
        faults += [f"{name}, {feature}: a test failed" for name, feature, outcome in cells if outcome == FAILED]
        if faults:
            return [*faults, "docs/compatibility.md was not written"]
        kept = {} if self._whole_folder(session) else written
        self._page.write_text(compatibility_page.render({**kept, **ran}))
        return []

    def _compare(self, session: pytest.Session, written: dict[str, Row], ran: dict[str, Row]) -> list[str]:
        """Get what the page says otherwise."""
        faults = [f"{name} is not on the page" for name in ran.keys() - written.keys()]
        for name in ran.keys() & written.keys():
            faults += [f"{name}, {fault}" for fault in self._differences(session, written[name], ran[name], name)]
        if self._whole_folder(session):
            faults += [f"{name} is on the page, and no test file has it" for name in written.keys() - ran.keys()]
        return sorted(faults) + ["docs/compatibility.md is not what ran: `make matrix` writes it"] * bool(faults)

    def _differences(self, session: pytest.Session, page: Row, ran: Row, name: str) -> Iterator[str]:
        if self._clients[name].pinned and page.version != ran.version:
            yield f"version: {ran.version} ran, the page says {page.version}"
        for feature in FEATURES:
            outcome, says = ran.cells.get(feature), page.cells.get(feature, "nothing")
            if outcome is None and self._whole_files(session):
                yield f"{feature}: {_NO_TEST}"
            if outcome not in (None, FAILED, says):
                yield f"{feature}: {outcome or 'yes'}; the page says {says or 'yes'}"

    def _whole_files(self, session: pytest.Session) -> bool:
        stopped = self._deselected or session.shouldstop or session.shouldfail
        return not stopped and not any("::" in path for path in session.config.args)

    def _whole_folder(self, session: pytest.Session) -> bool:
        asked = [(session.config.invocation_params.dir / path).resolve() for path in session.config.args]
        return self._whole_files(session) and any(self._folder.is_relative_to(path) for path in asked)


def _why(report: pytest.TestReport) -> str:
    """Get the reason of a skip or of an expected failure."""
    if expected := getattr(report, "wasxfail", ""):
        return _one_line(str(expected).removeprefix("reason: "))
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return _one_line(reason.removeprefix("Skipped: "))


def _one_line(text: str) -> str:
    return " ".join(text.split())
