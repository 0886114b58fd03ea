"""What the security page and the page on updates name as the proof of a claim is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"`((?:proxy|config|tests|docs|bench)/[\w./-]+|[\w.-]+\.(?:txt|md|conf\.py))(?:::(\w+))?`")


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/updating.md"])
def test_every_file_and_test_that_a_page_names_is_there(page: str) -> None:
    named = _NAMED.findall((ROOT / page).read_text())
    assert len(named) > 20
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or (test and f"def {test}(" not in (ROOT / path).read_text())
    ]
    assert missing == []
