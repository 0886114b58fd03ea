"""A token from a program's output: plain text, or JSON of one of the forms that such programs have agreed on."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jiter

from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.sources.program import RUN_DEADLINE_S, Program
from proxy.tokens.sources.reply import ReplyShape, read_local_grant, read_text_grant

# https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
_EXEC_CREDENTIAL_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class CommandSource(Source):
    """Runs a program that prints a token."""

    takes_most_s = RUN_DEADLINE_S

    def __init__(
        self,
        program: Program,
        *,
        read_env: Callable[[], Mapping[str, str]] = dict,
        shape: ReplyShape | None = None,
        default_lifetime_s: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`read_env` gives what is added to the environment, secrets read anew. `shape` says where the output, then
        any JSON, has its token; without it the output's form is found by looking. `clock` is the wall clock."""
        self._program = program
        self._read_env = read_env
        self._shape = shape
        self._default_lifetime_s = default_lifetime_s
        self._clock = clock

    def fetch(self) -> Grant:
        """Get the token that the program prints (blocking, at most 10 s).

        Its expiry is the one printed, on this host's wall clock, else that of its claims, else the default.
        """
        now = self._clock()
        output = self._program.run(self._read_env())
        # A bearer token cannot begin with a brace.
        if self._shape is None and not output.lstrip().startswith(b"{"):
            return read_text_grant(output, "standard output", now=now, default_lifetime_s=self._default_lifetime_s)
        document = _parse(output)
        return read_local_grant(document, self._shape or self._form_of(document), now=now)

    def close(self) -> None:
        self._program.close()

    def _form_of(self, document: dict[str, Any]) -> ReplyShape:
        if document.get("kind") == "ExecCredential":
            if document.get("apiVersion") not in _EXEC_CREDENTIAL_VERSIONS:
                raise TokenFetchError(
                    f"command: an ExecCredential of neither {' nor '.join(_EXEC_CREDENTIAL_VERSIONS)}"
                )
            return self._shape_of("/status/token", "/status/expirationTimestamp")
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
        if document.get("Version") == 1:
            return self._shape_of("/SessionToken", "/Expiration")
        raise TokenFetchError("command: JSON of an unknown form, which needs token_pointer in the configuration")

    def _shape_of(self, token: str, expires_at: str) -> ReplyShape:
        return ReplyShape(token, None, expires_at, self._default_lifetime_s)


def _parse(output: bytes) -> Any:
    try:
        return jiter.from_json(output, cache_mode="none")
    except ValueError:
        raise TokenFetchError("command: the output is not JSON") from None
