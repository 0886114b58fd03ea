"""The code of docs/recipes as the tests run it: what a reader copies is what is tried."""

import re
from pathlib import Path

_RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"


def code_of(page: str, language: str) -> list[str]:
    """Each block of that language in a recipe, in turn, such as `code_of("browser", "js")`."""
    text = (_RECIPES / f"{page}.md").read_text()
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"no {language} in docs/recipes/{page}.md"
    return [str(block) for block in blocks]
