"""What a source is: one call that gets an access token, or says why not."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Grant:
    """A good reply: the access token and its lifetime in seconds from before the request was sent."""

    access_token: str = field(repr=False)
    lifetime_s: float


class TokenFetchError(Exception):
    """A fetch that brought no token. The text says why, without a secret and without the reply's text.

    `refused`: the issuer does not accept our credentials, so trying again soon is of no use.
    `connection`: no connection came about, or it broke: trying again at once may help.
    `retry_after_s`: what the issuer's `Retry-After` asked for.
    """

    def __init__(
        self, reason: str, *, refused: bool = False, connection: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.refused = refused
        self.connection = connection
        self.retry_after_s = retry_after_s


class Source(Protocol):
    def fetch(self) -> Grant:
        """Get a new token (blocking, at most 5 s for one of the network). Raises TokenFetchError."""

    def close(self) -> None:
        """Let go of connections; a fetch in flight may fail."""
