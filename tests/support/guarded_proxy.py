"""Settings of a proxy with client keys of all kinds, a model map without a wildcard, and small limits.

A key of a label is "key-LABEL". The tests of errors use it.
"""

import hashlib
import re
from typing import Any

from tests.support.sandbox_client import SandboxClient

MOST_BYTES = 1000
# RAGFlow sorts errors by these words and gives up on what it finds.
SORTED_WORDS = re.compile(r"auth|key|token|invalid|format|quota|credit|capacity|\b[1-5]\d\d\b", re.IGNORECASE)


def _client_key(label: str, **limits: Any) -> dict[str, Any]:
    return {"label": label, "sha256": hashlib.sha256(f"key-{label}".encode()).hexdigest(), **limits}


CLIENT_KEYS = [
    _client_key("all"),
    _client_key("old", expires_at="2020-01-01T00:00:00Z"),
    _client_key("some", models=["gpt-*"]),
    _client_key("slow", requests_per_minute=2),
    _client_key("one", max_concurrent=1),
]


def guarded_config(sandbox: SandboxClient, worker_class: str) -> dict[str, Any]:
    return sandbox.config(
        server={"worker_class": worker_class, "max_body_bytes": MOST_BYTES, "url_prefixes": ["/p", ""]},
        upstream={"models": {"gpt-*": "*", "m": "m"}},
        client_keys=CLIENT_KEYS,
    )
