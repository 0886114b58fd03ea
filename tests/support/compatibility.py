"""A client's row in docs/compatibility.md: its name, its version, and why some of its cells have no test.

The test files of tests/compatibility declare these; `compatibility_page` writes them down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

FEATURES = (
    "chat",
    "stream",
    "tools",
    "structured output",
    "embeddings (floats)",
    "embeddings (base64)",
    "token arrays",
    "rerank",
    "vision parts",
    "errors",
    "cancel",
)


@dataclass(frozen=True)
class Client:
    """One row. Every feature has tests that are marked for it, or a reason in not_there, in words for readers.

    pinned: the version is in this repository, so it must be the page's; else it is the machine's and may differ.
    """

    name: str
    version: str
    not_there: Mapping[str, str] = field(default_factory=dict)
    pinned: bool = True

    def cells(self) -> list[Any]:
        """Get a parameter for each feature that is not in not_there, marked as its cell and named after it."""
        return [
            pytest.param(feature, id=feature, marks=pytest.mark.cell(client=self.name, feature=feature))
            for feature in FEATURES
            if feature not in self.not_there
        ]
