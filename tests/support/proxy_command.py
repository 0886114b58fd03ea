"""`python -m proxy COMMAND` as an operator runs it: a process with a config file and a runtime folder of its own."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.support.proxy_process import ROOT

# Starts every secret of these tests; the others are the sandbox's own, and the start of its tokens.
MARK = "s3cret-mark"
SECRETS = (
    MARK,
    quote(MARK, safe=""),
    base64.b64encode(MARK.encode()).decode().rstrip("=")[:-1],
    "sandbox-secret",
    "sbx_",
)
ENDS_WITHIN_S = 60.0


def run_command(config: dict[str, Any], folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The ended command, checked to have shown no secret; `folder` is the runtime folder of the proxy asked about."""
    file = folder / "command.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    ended = subprocess.run(
        [sys.executable, "-m", "proxy", "--config", str(file), *arguments],
        cwd=ROOT,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
    )
    assert not [secret for secret in SECRETS if secret in ended.stdout + ended.stderr]
    assert "Traceback" not in ended.stderr
    return ended
