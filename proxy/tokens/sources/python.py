"""A token from a function of the operator's own, for whatever no other source can do."""

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.sources.deadline import TimedCalls
from proxy.tokens.sources.reply import ReplyShape, read_local_grant

CALL_DEADLINE_S = 10.0


class PythonSource(Source):
    """Calls `package.module:function`, imported when it is first needed: in the worker, and not at the start.

    Under gevent the function runs in a greenlet, so one that computes instead of waiting for I/O holds up the worker.
    """

    takes_most_s = CALL_DEADLINE_S

    def __init__(
        self,
        function: str,
        *,
        read_arguments: Callable[[], Mapping[str, Any]] = dict,
        default_lifetime_s: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`read_arguments` gives the arguments by name, secrets read anew."""
        self._module_name, _, self._function_name = function.partition(":")
        self._read_arguments = read_arguments
        self._default_lifetime_s = default_lifetime_s
        self._clock = clock
        self._calls = TimedCalls("python")

    def fetch(self) -> Grant:
        """Get the token that the function returns (blocking, at most 10 s): a text, (text, lifetime in seconds), or
        {"access_token": text, "expires_in": seconds}.

        Raises TokenFetchError; of what the function raised it names the type alone.
        """
        now, arguments = self._clock(), self._read_arguments()
        return self._calls.run(lambda: self._call(arguments, now), CALL_DEADLINE_S)

    def _call(self, arguments: Mapping[str, Any], now: float) -> Grant:
        function = self._import()
        try:
            answer = _plain(function(**arguments))
        except BaseException as error:  # SystemExit too: it is the function's failure, and must not end the worker
            raise TokenFetchError(f"python: the function raised {type(error).__name__}") from None
        return self._read(answer, now)

    def _import(self) -> Callable[..., object]:
        """The function; in the call's own thread, as an import may hang too."""
        try:
            module = importlib.import_module(self._module_name)
        except BaseException as error:
            missing = f" {error.name}" if isinstance(error, ModuleNotFoundError) else ""
            text = f"python: {self._module_name} cannot be imported: {type(error).__name__}{missing}"
            raise TokenFetchError(text, refused=True) from None
        function: object = getattr(module, self._function_name, None)
        if not callable(function):
            text = f"python: {self._module_name} has no function {self._function_name}"
            raise TokenFetchError(text, refused=True)
        return function

    def _read(self, answer: object, now: float) -> Grant:
        if isinstance(answer, str):
            return self._grant(answer, "", None, now)
        if isinstance(answer, tuple) and len(answer) == 2:
            return self._grant(list(answer), "/0", "/1", now)
        if isinstance(answer, Mapping):
            return self._grant(answer, "/access_token", "/expires_in", now)
        raise TokenFetchError(
            f"python: the function returned {type(answer).__name__}, and neither a text, (text, seconds) nor a mapping"
        )

    def _grant(self, document: object, token: str, expires_in: str | None, now: float) -> Grant:
        return read_local_grant(document, ReplyShape(token, expires_in, None, self._default_lifetime_s), now=now)


def _plain(answer: object) -> object:
    """The answer without the function's own types around it: reading a lazy mapping runs the function's code."""
    if isinstance(answer, Mapping):
        return dict(answer)
    return tuple(answer) if isinstance(answer, tuple) else answer
