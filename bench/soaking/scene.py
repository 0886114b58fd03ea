"""The proxy of a run and its keys: every secret of it is marked, so that one that shows is found."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.soaking.load import Keys
from bench.token_proofs.marks import new_mark
from tests.support.sandbox_client import SandboxClient
from tests.support.secret_traces import found_in

BODY_MOST_BYTES = 1024 * 1024
IDLE_S = 8.0  # more than the pauses of the slowest streams
AT_A_TIME = 3  # requests of the key that is short of them, in each worker
_TOKEN_START = "sbx_"  # of the sandbox's tokens
_PIECE_BYTES = 16 * 1024 * 1024
_OVERLAP_BYTES = 4096


class Scene:
    """The settings of a proxy in front of this sandbox."""

    def __init__(self, sandbox: SandboxClient) -> None:
        self._sandbox = sandbox
        self._upstream_secret = new_mark("upstream-header")
        good, short = new_mark("key"), new_mark("short-key")
        self.secrets = (good, short, self._upstream_secret, "sandbox-secret")
        self.keys = Keys(good, short, (*self.secrets, _TOKEN_START))

    def config(self, *, workers: int, drain_s: float, requests_most: int) -> dict[str, Any]:
        """`requests_most`: of all callers in one worker, above which the proxy is full."""
        return self._sandbox.config(
            server={
                "workers": workers,
                "drain_s": drain_s,
                "max_body_bytes": BODY_MOST_BYTES,
                "max_concurrent_requests": requests_most,
            },
            client_keys=[
                {"label": "good", "sha256": _digest(self.keys.good)},
                {"label": "short", "sha256": _digest(self.keys.short), "max_concurrent": AT_A_TIME},
            ],
            upstream={
                "headers": {"X-App-Secret": self._upstream_secret},
                "timeouts": {"connect_s": 2, "first_byte_s": 5, "idle_s": IDLE_S, "total_s": 300},
            },
        )

    def leaks(self, log: Path, *texts: bytes) -> list[str]:
        """The secrets that a log or one of the texts shows in any form; never the secret itself."""
        found = set()
        for text in (*texts, *_pieces(log)):
            found |= {*found_in(text, self.secrets), *([_TOKEN_START] if _TOKEN_START.encode() in text else [])}
        return sorted(found)


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    """A large file in pieces that overlap, so that nothing is cut in two."""
    before = b""
    with file.open("rb") as opened:
        while data := opened.read(_PIECE_BYTES):
            yield before + data
            before = data[-_OVERLAP_BYTES:]
