"""Writes what production runs as a CycloneDX document: `make sbom`, or `python -m tools.sbom FILE`.

Made from the pins, not from what is installed: it holds every release of requirements.txt with its hashes, those for
other systems too, and nothing else. It needs no network.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write(file: Path) -> None:
    """Raises CalledProcessError where the tool refuses; it checks the document against the schema."""
    words = ("requirements", "--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible")
    output = ("--output-format", "JSON", "--output-file", str(file.absolute()))
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *words, *output, "requirements.txt"], cwd=ROOT, check=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
