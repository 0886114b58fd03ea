"""What the hooks and the views of one request share."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from proxy.auth import Caller
from proxy.observability.request_log import RequestLog


@dataclass(slots=True)
class RequestState:
    """One request's state; `at_end` runs once, when the last byte is out or the caller is gone."""

    environ: dict[str, Any]  # of WSGI
    log: RequestLog
    caller: Caller | None = None
    finished: bool = False
    at_end: list[Callable[[], None]] = field(default_factory=list)


# Set at the begin of each request; Flask's own `g` would take ten times as long to find it again.
_current: ContextVar[RequestState] = ContextVar("llm_proxy.request_state")
begin = _current.set
current = _current.get
