"""An app with the hooks around one route, whose view is the test's; and what the hooks wrote and counted."""

import re
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any

from flask import Blueprint, Response
from werkzeug.test import EnvironBuilder

from proxy.auth import ClientKeys
from proxy.hooks import Hooks
from proxy.lean_flask import LeanFlask
from proxy.limits import RateLimits, Slots
from proxy.observability.metrics import Metrics
from proxy.observability.request_log import AccessLog
from proxy.request_state import current
from tests.support.counting_process import Samples, samples_of

PREFIXES = ("", "/v1", "/v1/v1", "/agent/api/llm_proxy", "/agent/api/llm_proxy/v1")
ROUTE = "/things/<path:name>"


class FakeBody:
    """An upstream's answer as a list of what its reads give: bytes or an error."""

    def __init__(self, *reads: bytes | BaseException) -> None:
        self._reads = list(reads)
        self.closed = 0

    def read(self, wait_s: float | None = None) -> bytes:
        read = self._reads.pop(0) if self._reads else b""
        if isinstance(read, BaseException):
            raise read
        return read

    def finish(self, wait_s: float) -> None:
        self.close()

    def close(self) -> None:
        self.closed += 1


class HookedApp:
    """The route is guarded, and under each prefix."""

    def __init__(
        self,
        view: Callable[[], Response],
        *,
        keys: ClientKeys | None = None,
        allowed_origins: tuple[str, ...] = (),
        tracing: Any = None,
    ) -> None:
        self.log = StringIO()
        self.metrics = Metrics(["llm"], [])
        self.slots = Slots(10)
        self.at_end = 0
        hooks = Hooks(
            keys or ClientKeys([]),
            RateLimits(),
            self.slots,
            AccessLog(stream=self.log),
            self.metrics,
            paths=PREFIXES,
            allowed_origins=allowed_origins,
            tracing=tracing,
        )
        self.app = LeanFlask("test")
        hooks.install(self.app)
        blueprint = Blueprint("test", __name__)

        def watched(name: str) -> Response:
            current().log.upstream = "llm"
            current().at_end.append(self._count_end)
            return view()

        blueprint.add_url_rule(ROUTE, "things", watched, methods=["GET", "POST"])
        hooks.guard(blueprint)
        for number, prefix in enumerate(PREFIXES):
            self.app.register_blueprint(blueprint, url_prefix=prefix or None, name=f"test{number}")

    def call(
        self,
        path: str = "/things/a",
        method: str = "POST",
        *,
        take: int = 1000,
        refuse_start: bool = False,
        **more: Any,
    ) -> SimpleNamespace:
        """A request as a server runs it: so many pieces of its answer are taken, then it is closed."""
        begun = SimpleNamespace(status="", headers=[], pieces=[])

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:
            if refuse_start:
                raise ValueError("a field that cannot be sent")
            begun.status, begun.headers = status, headers

        answer = self.app(EnvironBuilder(path, method=method, **more).get_environ(), start_response)
        try:
            pieces = iter(answer)
            for _ in range(take):
                piece = next(pieces, None)
                if piece is None:
                    break
                begun.pieces.append(piece)
        finally:
            answer.close()  # type: ignore[attr-defined]
        return begun

    def line(self) -> dict[str, str]:
        """The facts of the one line that was written."""
        lines = [line for line in self.log.getvalue().splitlines() if " request request_id=" in line]
        assert len(lines) == 1
        return dict(word.split("=", 1) for word in re.findall(r"\S+=\S+", lines[0]))

    def samples(self) -> Samples:
        return samples_of(self.metrics.collect())

    def check_that_it_is_over(self, status: int, route: str = ROUTE) -> None:
        """Nothing of it is left, and it was counted once."""
        samples = self.samples()
        assert samples["llm_proxy_in_flight"] == 0
        assert samples["llm_proxy_request_seconds_count"] == 1
        counted = {name: value for name, value in samples.items() if name.startswith("llm_proxy_requests_total ")}
        upstream = "-" if route == "-" else "llm"
        assert counted == {f"llm_proxy_requests_total {route} {status} {upstream}": 1}
        assert self.slots.running == 0
        assert self.at_end == (0 if route == "-" else 1)

    def _count_end(self) -> None:
        self.at_end += 1
