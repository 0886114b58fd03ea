"""What the hooks and the views of one request share, on Flask's `g`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flask import g

from proxy.auth import Caller
from proxy.observability.request_log import RequestLog


@dataclass(slots=True)
class RequestState:
    """One request's state; `at_end` runs once, when the last byte is out or the caller is gone."""

    log: RequestLog
    caller: Caller | None = None
    finished: bool = False
    at_end: list[Callable[[], None]] = field(default_factory=list)


def current() -> RequestState:
    state: RequestState = g.state
    return state
