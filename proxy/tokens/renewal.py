"""One fetch: asks the source, and says what becomes of the record. Keeps the log of it to one line a change.

Called by the holder's thread only, which decides when; the rules for what follows are in `record`.
"""

from collections.abc import Callable

from loguru import logger

from proxy.tokens.listener import FetchResult, TokenListener
from proxy.tokens.record import Record, after_failure, after_grant
from proxy.tokens.sources.base import Grant, Source, TokenFetchError


class Renewal:
    """Fetches from one source."""

    def __init__(
        self,
        name: str,
        source: Source,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        listener: TokenListener | None = None,
    ) -> None:
        self._name = name
        self._source = source
        self._clock = clock
        self._jitter = jitter
        self._listener = listener
        self._closed = False
        self._last_refusal = ""

    def run(self, record: Record, *, is_refused: Callable[[], bool]) -> Record:
        """The record after a fetch, good or failed; blocks as long as the source does.

        `is_refused`: whether the upstream has refused the record's token, maybe while this very fetch was on its way;
        then another token is a gain whenever it ends.
        """
        fetched_at = self._clock()  # before the request leaves: the life counts from the issuer's clock, not from ours
        try:
            grant = self._fetch(record)
            moved = after_grant(
                record, grant, fetched_at=fetched_at, now=self._clock(), jitter=self._jitter(), forced=is_refused()
            )
        except TokenFetchError as error:
            self._log_failure(error)
            self._tell("refused" if error.refused else "failed", fetched_at)
            return after_failure(record, error, now=self._clock(), jitter=self._jitter())
        self._last_refusal = ""
        self._tell("ok", fetched_at)
        logger.info("token source {}: {} lives {:.0f} s", self._name, moved.token, grant.lifetime_s)
        return moved

    def close(self) -> None:
        self._closed = True
        self._source.close()

    def _fetch(self, record: Record) -> Grant:
        try:
            return self._ask_source()
        except TokenFetchError as error:
            # With a token in hand the back-off is soon enough; without one callers wait for this very fetch.
            if record.usable_token(self._clock()) is not None or not error.connection or self._closed:
                raise
            return self._ask_source()

    def _ask_source(self) -> Grant:
        """One call; whatever a source throws is a failed fetch, so that the cool-down holds for its bugs too."""
        try:
            return self._source.fetch()
        except TokenFetchError:
            raise
        except Exception as error:
            raise TokenFetchError(f"unexpected {type(error).__name__}") from None

    def _tell(self, result: FetchResult, fetched_at: float) -> None:
        if self._listener is not None:
            self._listener.token_fetched(self._name, result, self._clock() - fetched_at)

    def _log_failure(self, error: TokenFetchError) -> None:
        """One ERROR line when the issuer begins to refuse us or changes its reason; a warning for the rest."""
        if error.refused and str(error) != self._last_refusal:
            self._last_refusal = str(error)
            logger.error("token source {}: {}", self._name, error)
        elif not error.refused:
            logger.warning("token source {}: {}", self._name, error)
