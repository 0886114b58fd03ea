"""One fetch for the doctor, published as a holder would: an issuer may end the older token when it gives a new one.

A failed fetch is not published: the running proxy's back-off is about its own attempts, and one more by hand is no
reason to make it wait.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from proxy.tokens.record import Record, after_grant
from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.stores.base import Store
from proxy.tokens.token import Token, boot_clock

# Together longer than a fetch may take, so that one that is on its way has ended by then.
LOCK_TRIES = 30
LOCK_PAUSE_S = 0.25


class Attempt:
    """One fetch, and what was seen of it: the reply of a token endpoint, and the instants."""

    def __init__(self) -> None:
        self.begun_at = 0.0
        self.took_s = 0.0  # to the end of the reply where there is one, else to the end of the fetch
        self.reply: Reply | None = None
        self.replied_at = 0.0  # by the wall clock, for comparison with the reply's Date
        self.grant: Grant | None = None

    def observe(self, reply: Reply) -> None:
        """For TokenEndpoint: called with its reply before that is judged."""
        self.reply, self.replied_at = reply, time.time()
        self.took_s = time.monotonic() - self.begun_at

    def fetch(self, source: Source) -> Grant:
        """Raises TokenFetchError, also in place of whatever else a source throws, as the holder has it."""
        self.begun_at = time.monotonic()
        try:
            self.grant = source.fetch()
        except TokenFetchError:
            raise
        except Exception as error:
            raise TokenFetchError(f"unexpected {type(error).__name__}") from None
        finally:
            if self.reply is None:
                self.took_s = time.monotonic() - self.begun_at
        return self.grant


class LockLost(Exception):
    """Another process kept the store's lock all the time."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A good fetch: the token to use from now on, and whether those who share the source have it too."""

    token: Token
    where: Literal["published", "held already", "here alone", "lock lost"]


def fetch_and_publish(
    fetch: Callable[[], Grant], store: Store, *, may_go_unpublished: bool, pause_s: float = LOCK_PAUSE_S
) -> Fetched:
    """Fetch under the store's lock, and save the record with the new token.

    Raises TokenFetchError, and LockLost where the lock is not to be had; with `may_go_unpublished` the token is
    fetched all the same.
    """
    for _ in range(LOCK_TRIES):
        with store.try_lock() as won:
            if won:
                record = store.load()
                moved, token = _moved(record, fetch)
                store.save(moved)
                if not store.is_shared:
                    return Fetched(token, "here alone")
                return Fetched(token, "held already" if token is record.token else "published")
        time.sleep(pause_s)
    if not may_go_unpublished:
        raise LockLost
    return Fetched(_moved(Record(), fetch)[1], "lock lost")


def _moved(record: Record, fetch: Callable[[], Grant]) -> tuple[Record, Token]:
    """The record after the fetch, and its token: the new one whenever it ends, as the old one may be dead by now."""
    fetched_at = boot_clock()
    grant = fetch()
    moved = after_grant(record, grant, fetched_at=fetched_at, now=boot_clock(), jitter=random.random(), forced=True)
    if moved.token is None:
        raise TokenFetchError("no token was kept")  # never: a good fetch always leaves one
    return moved, moved.token
