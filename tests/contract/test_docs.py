"""The configs that the docs show are good ones: each YAML block with sections of config.yaml is loaded."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import load
from config.schema import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/tokens.md",
    "docs/operations.md",
    "docs/adding-a-source.md",
    "docs/adapters.md",
    "docs/recipes/browser.md",
    "docs/recipes/fastchat.md",
    "docs/recipes/litellm.md",
    "docs/recipes/llama-cpp.md",
    "docs/recipes/ragflow.md",
    "docs/recipes/vllm.md",
)
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REST: dict[str, Any] = {"upstreams": [{"name": "llm", "base_url": "https://llm.example.com/v1"}]}


def _blocks() -> list[Any]:
    found = []
    for page in PAGES:
        for number, text in enumerate(_BLOCK.findall((ROOT / page).read_text()), 1):
            if isinstance(yaml.safe_load(text), dict) and yaml.safe_load(text).keys() <= Settings.model_fields.keys():
                found.append(pytest.param(text, id=f"{page}-{number}"))
    return found


def _with_files(value: Any, folder: Path, key: str) -> Any:
    """The same with every path of a file that the docs name put into the test's folder, where the file is made."""
    if isinstance(value, dict):
        return {name: _with_files(item, folder, key) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_files(item, folder, key) for item in value]
    if not isinstance(value, str) or not value.startswith(("/run/", "/var/run/", "/etc/")):
        return value
    file = folder / value.replace("/", "-")
    file.write_text(key if value.endswith(".pem") else "a-secret")
    return str(file)


@pytest.mark.parametrize("text", _blocks())
def test_config_in_the_docs_is_a_good_one(text: str, tmp_path: Path, private_key_pem: str) -> None:
    document = _with_files(yaml.safe_load(text), tmp_path, private_key_pem)
    for key in document.get("client_keys", ()):
        key["sha256"] = "0" * 64  # the docs say where it comes from
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**_REST, **document}))
    names = re.findall(r"\$\{(\w+)\}", text)
    assert load(file, dict.fromkeys(names, "a")).upstreams


def test_tokens_page_shows_every_type_of_source() -> None:
    shown = set(re.findall(r"^    type: (\w+)$", (ROOT / "docs/tokens.md").read_text(), re.MULTILINE))
    assert shown == {
        "http_json",
        "client_credentials",
        "token_exchange",
        "command",
        "file",
        "static",
        "python",
    }


@pytest.fixture(scope="session")
def private_key_pem() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
