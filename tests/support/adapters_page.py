"""The code of docs/adapters.md, put together as the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adapters.md"
_BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def company_module() -> str:
    return _file("company_llm.py")


def company_test() -> str:
    return _file("test_company_llm.py")


def _file(name: str) -> str:
    return "\n".join(code for file, code in _BLOCK.findall(PAGE.read_text()) if file == name)
