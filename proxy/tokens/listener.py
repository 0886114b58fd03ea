"""What a holder tells whoever counts; the metrics listen. Only numbers and names, never a token."""

from typing import Literal, Protocol

FetchResult = Literal["ok", "failed", "refused"]


class TokenListener(Protocol):
    """Called from requests and from the holder's thread; must be quick and must not raise."""

    def token_fetched(self, source: str, result: FetchResult, seconds: float) -> None:
        """A fetch has ended; `refused`: the issuer does not accept our credentials."""

    def token_replaced(self) -> None:
        """A request whose token the upstream refused got another one, and is sent once more."""
