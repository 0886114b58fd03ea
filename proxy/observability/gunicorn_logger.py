"""gunicorn's log lines through ours; its access log is off, since a request's own line says more."""

from typing import Any

from gunicorn.glogging import Logger

from proxy.observability.logging import InterceptHandler


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Replaces gunicorn's own handlers, which would write secrets and write past loguru."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = [InterceptHandler()]
        self.error_log.propagate = False
        self.access_log.handlers = []

    def access(self, *_: Any) -> None:
        """Nothing: see RequestLog."""
