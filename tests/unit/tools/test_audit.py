"""What the audit makes of pip-audit's reports; asking for real needs the network."""

import json
from typing import Any

import pytest

from tools.audit import CANARY, ROOT, Audit, read, requirements_files, verdict

BAD: dict[str, Any] = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["2.10.1", "2.11"], "description": "…"}],
}
UNFIXED: dict[str, Any] = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-3", "fix_versions": []}]}
GOOD: dict[str, Any] = {"name": "flask", "version": "3.1", "vulns": []}
SKIPPED = {"name": "ours", "skip_reason": "not found"}


def report(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_report_is_read() -> None:
    audit = read(report(BAD, UNFIXED, GOOD, SKIPPED))
    assert audit == Audit(
        4,
        ("jinja2 2.10: PYSEC-1, CVE-2; fixed in 2.10.1, 2.11", "a 1: PYSEC-3; fixed in no release"),
        ("ours: not found",),
    )


def test_audits_of_several_files_are_one() -> None:
    both = read(report(UNFIXED, SKIPPED)) + read(report(GOOD)) + read("")
    assert (both.releases, len(both.found), len(both.unknown)) == (3, 1, 2)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}"], ids=["nothing", "html", "list", "no-dependencies"])
def test_what_is_no_report_is_told_with_the_last_line_of_the_errors(text: str) -> None:
    audit = read(text, "INFO: begun\nERROR: no route to host\n")
    assert audit == Audit(0, (), ("pip-audit gave no report: ERROR: no route to host",))
    assert read(text).unknown == ("pip-audit gave no report: nothing said",)


@pytest.mark.parametrize(
    "canary", [read(report(GOOD)), read(report(SKIPPED)), read("")], ids=["clean", "skipped", "no-report"]
)
def test_audit_that_does_not_find_the_canary_fails_whatever_else_it_says(canary: Audit) -> None:
    for pins in (None, read(report(GOOD))):
        status, lines = verdict(canary, pins)
        assert status == 2
        assert lines[0].startswith(f"no advisory data here: {CANARY} ")


@pytest.mark.parametrize(
    ("pins", "status", "last"),
    [
        ([GOOD], 0, "1 releases, 0 vulnerabilities, 0 not looked up"),
        ([GOOD, BAD], 1, "2 releases, 1 vulnerabilities, 0 not looked up"),
        ([GOOD, SKIPPED], 2, "2 releases, 0 vulnerabilities, 1 not looked up"),
        ([BAD, SKIPPED], 1, "2 releases, 1 vulnerabilities, 1 not looked up"),
        ([], 2, "0 releases, 0 vulnerabilities, 0 not looked up"),
    ],
    ids=["good", "bad", "skipped", "bad-and-skipped", "nothing"],
)
def test_audit_passes_only_where_everything_was_looked_up_and_nothing_found(
    pins: list[dict[str, Any]], status: int, last: str
) -> None:
    answer = verdict(read(report(BAD)), read(report(*pins)))
    assert (answer[0], answer[1][-1]) == (status, last)


def test_every_file_of_pins_is_audited_and_pinned_by_hash() -> None:
    files = requirements_files()
    names = {str(path.relative_to(ROOT)) for path in files}
    assert {"requirements.txt", "requirements-dev.txt", "bench/peers/litellm.txt"} <= names
    for path in files:
        lines = path.read_text().splitlines()
        pins = [line for line in lines if "==" in line.split(";")[0].split("#")[0]]
        assert pins
        assert all(lines[lines.index(pin) + 1].strip().startswith("--hash=sha256:") for pin in pins), path
