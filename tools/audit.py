"""Looks every pinned release up among the published advisories; exits with 1 where one is known to be vulnerable.

Run from the root: `make audit`, or `python -m tools.audit`. pip-audit does the work. First it is asked about a release
that is known to be bad: behind a mirror of the package index there may be no advisories at all, and an audit that
cannot find that one would find nothing. Then, and where anything could not be looked up, it exits with 2.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CANARY = "jinja2==2.10"  # CVE-2019-10906, known since 2019
FOUND, UNKNOWN = 1, 2
_AUDIT = (sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner", "off", "--format", "json")


@dataclass(frozen=True, slots=True)
class Audit:
    """What pip-audit brought: how many releases it was asked about, what it found, and what it could not tell."""

    releases: int
    found: Sequence[str]
    unknown: Sequence[str]

    def __add__(self, other: "Audit") -> "Audit":
        return Audit(self.releases + other.releases, (*self.found, *other.found), (*self.unknown, *other.unknown))


def requirements_files() -> list[Path]:
    """Every file of pins in the repository."""
    return sorted(path for pattern in ("requirements*.txt", "bench/peers/*.txt") for path in ROOT.glob(pattern))


def read(report: str, errors: str = "") -> Audit:
    """pip-audit's report; where it wrote none, the last line of its `errors` is what it could not tell."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Audit(0, (), (f"pip-audit gave no report: {(errors.strip() or 'nothing said').splitlines()[-1]}",))
    found = (_line(entry, vulnerability) for entry in dependencies for vulnerability in entry.get("vulns", ()))
    unknown = (f"{entry['name']}: {entry['skip_reason']}" for entry in dependencies if "skip_reason" in entry)
    return Audit(len(dependencies), tuple(found), tuple(unknown))


def verdict(canary: Audit, pins: Audit | None = None) -> tuple[int, list[str]]:
    """The exit status and the lines that say why; `pins` are needed only where the canary was found."""
    if not canary.found or pins is None:
        return UNKNOWN, [f"no advisory data here: {CANARY} is known to be bad and was not found", *canary.unknown]
    lines = [*pins.found, *(f"not looked up: {line}" for line in pins.unknown)]
    lines.append(f"{pins.releases} releases, {len(pins.found)} vulnerabilities, {len(pins.unknown)} not looked up")
    if pins.found:
        return FOUND, lines
    return (UNKNOWN if pins.unknown or not pins.releases else 0), lines


def _line(entry: dict[str, Any], vulnerability: dict[str, Any]) -> str:
    names = ", ".join([vulnerability["id"], *vulnerability.get("aliases", ())])
    fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no release"
    return f"{entry['name']} {entry['version']}: {names}; fixed in {fixed}"


def _run(*words: str) -> Audit:
    done = subprocess.run([*_AUDIT, *words], capture_output=True, text=True, check=False)
    return read(done.stdout, done.stderr)


def _audit_canary() -> Audit:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(CANARY + "\n")
        file.flush()
        return _run("--no-deps", "--requirement", file.name)


def _audit_pins() -> Audit:
    # A run for each file: in one, a release that two files pin in two versions is an error.
    runs = (_run("--require-hashes", "--requirement", str(path)) for path in requirements_files())
    return sum(runs, start=Audit(0, (), ()))


def main() -> int:
    canary = _audit_canary()
    status, lines = verdict(canary, _audit_pins() if canary.found else None)
    print("\n".join(lines), file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
