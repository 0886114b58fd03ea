"""What the scripts beside share: each tries the features of one client and prints what became of them.

A script runs in the environment of its client, as `python NAME_client.py BASE_URL SANDBOX_URL`, so nothing here needs
more than Python. tests/support/foreign_client.py starts it and reads what it prints.
"""

import base64
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import Request, urlopen

KEY = "key-of-the-caller"
HELLO = "Hello wörld"
# What the sandbox makes of that question, whole and as arguments or an answer that follow TRIP.
ANSWER = f"You said: {HELLO}"
TRIP = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
A_TRIP = {"city": ANSWER, "days": 1}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
BASE_URL, SANDBOX_URL = sys.argv[1:]


class Sandbox:
    """The upstream behind the proxy: its faults, and what it was asked."""

    def fails(self, **fault: Any) -> None:
        """Let it fail that way from now on, and no other way."""
        self._ask("PUT", "/faults", {"upstream": [fault]})

    def refuses(self) -> None:
        """Let it answer with an error that a client should show to its user."""
        error = {"message": "max_tokens too large", "type": "some_error", "param": "max_tokens", "code": "x"}
        self.fails(kind="status", status=400, body=json.dumps({"error": error}))

    def ignores_base64(self) -> None:
        self.fails(kind="ignore_base64")

    def stalls(self) -> None:
        """Let streams be silent after their first words, until whoever reads them goes."""
        self.fails(kind="stall", frames=4)

    def asked(self) -> Any:
        """Get the body of the last request."""
        body = self._entries()[-1]["body"]
        return json.loads(base64.b64decode(body))

    def asked_at(self) -> str:
        """Get the path of the last request."""
        return str(self._entries()[-1]["path"])

    def wait_until_left(self) -> None:
        """Until no request is open any more; well before the proxy itself gives up on a silent upstream, after 3 s."""
        until = time.monotonic() + 1.5
        while self._ask("GET", "/state")["open"]:
            assert time.monotonic() < until, "the upstream's stream is still open after 1.5 s"
            time.sleep(0.02)
        assert self._entries()[-1]["end"] == "caller_gone"

    def reset(self) -> None:
        self._ask("POST", "/reset")

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for entry in self._ask("GET", "/log") if entry["kind"] == "upstream"]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(f"{SANDBOX_URL}/_sandbox{path}", data, headers, method=method), timeout=10) as answer:
            return json.loads(answer.read() or b"null")


sandbox = Sandbox()


def report(trials: Mapping[str, Callable[[], None]]) -> None:
    """Try each feature and print one JSON object: {feature: {"passed": bool, "why": str}}."""
    print(json.dumps({feature: _try(trial) for feature, trial in trials.items()}))


def _try(trial: Callable[[], None]) -> dict[str, Any]:
    sandbox.reset()
    try:
        trial()
    except Exception:
        return {"passed": False, "why": traceback.format_exc()}
    return {"passed": True, "why": ""}


def failure(call: Callable[[], Any], expected: type[Exception]) -> Any:
    """Get the exception that a call ends with; an AssertionError where it ends with none."""
    try:
        call()
    except expected as error:
        return error
    raise AssertionError(f"no {expected.__name__}")


def same_vectors(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of vectors are those of the same texts, give or take what float32 loses."""
    pairs = [pair for vectors in zip(one, other, strict=True) for pair in zip(*vectors, strict=True)]
    return bool(pairs) and all(abs(a - b) < 1e-6 for a, b in pairs)


def vectors_of(texts: list[str]) -> list[list[float]]:
    """Get what the proxy answers for each text by itself, as floats, with no client between."""
    return [_vector_of(text) for text in texts]


def _vector_of(text: str) -> list[float]:
    body = json.dumps({"model": "sandbox-embedding", "input": text, "encoding_format": "float"}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with urlopen(Request(f"{BASE_URL}/embeddings", body, headers), timeout=10) as answer:
        return list(json.load(answer)["data"][0]["embedding"])
