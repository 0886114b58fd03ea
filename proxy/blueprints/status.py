"""How this worker stands, for an operator's eye (`/`) and for scripts (`/status`): both show the same facts.

Nothing here is of all workers; `/metrics` is. `app` makes the facts, and guards both routes.
"""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isinf
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request

from proxy.limits import Slots
from proxy.tokens.holder import TokenHolder

REFRESH_S = 5
_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """What may be shown of an upstream: the host of its base_url alone, and the models as in the config."""

    name: str
    host: str
    models: Mapping[str, str]
    token_source: str | None


class WorkerStatus:
    """Reads the facts of one worker anew at each call."""

    def __init__(
        self,
        holders: Mapping[str, TokenHolder],
        upstreams: Sequence[UpstreamFacts],
        slots: Slots,
        *,
        requests_most: int,
        is_ending: Callable[[], bool],
    ) -> None:
        """`is_ending`: the worker takes nobody new."""
        self._holders = holders
        self._upstreams = upstreams
        self._used = {upstream.token_source for upstream in upstreams}
        self._slots = slots
        self._requests_most = requests_most
        self._is_ending = is_ending
        self._began = time.monotonic()

    def not_ready(self) -> str | None:
        """Why the worker should be given no requests, or None where it is ready for them."""
        lacking = [name for name, holder in self._holders.items() if name in self._used and not _is_ready(holder)]
        if lacking:
            return f"no usable credential from: {', '.join(sorted(lacking))}"
        return "shutting down" if self._is_ending() else None

    def facts(self) -> dict[str, Any]:
        """As `/status` shows them, in JSON's types."""
        reason = self.not_ready()
        return {
            "ready": reason is None,
            "reason": reason,
            "token_sources": {name: self._source(name, holder) for name, holder in self._holders.items()},
            "upstreams": {
                upstream.name: {
                    "host": upstream.host,
                    "models": dict(upstream.models),
                    "token_source": upstream.token_source,
                }
                for upstream in self._upstreams
            },
            "requests_running": self._slots.running,
            "requests_most": self._requests_most,
            "uptime_s": round(time.monotonic() - self._began),
        }

    def _source(self, name: str, holder: TokenHolder) -> dict[str, Any]:
        failures = holder.failures()
        return {
            "used": name in self._used,
            "state": holder.state(),
            "seconds_to_expiry": _rounded(holder.seconds_to_expiry()),
            "failures": None if failures is None else asdict(failures),
        }


def status_blueprint(worker: WorkerStatus) -> Blueprint:
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/status")
    def status() -> Response:
        return jsonify(worker.facts())

    @blueprint.get("/")
    def status_page() -> Response:
        nonce = b64encode(os.urandom(16)).decode()
        refresh_s = None if request.args.get("refresh") == "off" else REFRESH_S
        page = render_template("status.html", **worker.facts(), nonce=nonce, refresh_s=refresh_s)
        response = Response(page, mimetype="text/html")
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return blueprint


def _is_ready(holder: TokenHolder) -> bool:
    holder.start()  # a worker that has had no request yet would else never become ready
    return holder.usable_token() is not None


def _rounded(seconds: float | None) -> float | None:
    """Whole seconds; null for no token and for one that never expires, which JSON has no number for."""
    return None if seconds is None or isinf(seconds) else round(seconds)
