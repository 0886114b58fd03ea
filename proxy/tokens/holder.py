"""TokenHolder: a usable access token for every request, renewed ahead of time by one thread of its own.

Requests read a ready-made token and never call the issuer; only the holder's thread does. So a request that goes away
cannot end a fetch that others wait for, and a dead issuer gets one call a step however many requests there are.
The rules stand in `record` and `schedule`, one fetch in `renewal`, where the record is kept in `stores`, and how a
token is got in `sources`.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from loguru import logger

from proxy.errors import TokenUnavailable
from proxy.tokens import schedule
from proxy.tokens.record import Record, after_refusal
from proxy.tokens.renewal import Renewal
from proxy.tokens.sources.base import Source
from proxy.tokens.stores.base import Store
from proxy.tokens.token import State, Token, boot_clock

WAITERS_MOST = 256
LOST_LOCK_PAUSE_S = 0.25
STUCK_LOCK_S = 7.0


class TokenHolder:
    """Holds the token of one source for one process. Safe for threads and greenlets."""

    def __init__(
        self,
        name: str,
        source: Source,
        store: Store,
        *,
        clock: Callable[[], float] = boot_clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._renewal = Renewal(name, source, clock=clock, jitter=jitter)
        self._store = store
        self._clock = clock
        self._token: Token | None = None  # the snapshot: read without a lock, replaced whole
        self._changed = threading.Condition()  # guards all below
        self._thread: threading.Thread | None = None
        self._closed = False
        self._fetching = False
        self._woken = False  # the thread shall look again before it sleeps
        self._forced = False  # a fetch before its time is wanted, and the budget allows it
        self._refused_generation = -1  # of the token that an upstream refused last
        self._attempts = 0  # turns under the store's lock that have ended, with a token or without
        self._waiting = 0
        self._lost_lock_at: float | None = None

    def token(self) -> Token:
        """A token that may be sent now. Returns at once while one is held, else waits at most 6 s for the fetch.

        Raises TokenUnavailable: the fetch failed, or one failed just before and its cool-down still runs.
        """
        token = self._token
        if token is not None and self._clock() < token.usable_until:
            return token
        return self._await_token()

    def usable_token(self) -> Token | None:
        """The token that may be sent now, or None; never waits and never fetches."""
        token = self._token
        return token if token is not None and self._clock() < token.usable_until else None

    def replacement(self, refused: Token) -> Token | None:
        """A token to replay with after the upstream refused one, or None where none is to be had.

        Compares first: where the refused token is not the current one any more, the current one is the answer and
        nothing is fetched. Else asks for one forced fetch, shared by all who come meanwhile.
        """
        token = self.usable_token()
        if token is not None and token.generation != refused.generation:
            return token
        self.start()
        deadline = self._clock() + schedule.WAIT_DEADLINE_S
        with self._changed:
            self._refused_generation = max(self._refused_generation, refused.generation)
            if self.usable_token() is None:
                self._wake()  # the refused one has run out: its successor is due anyhow and no matter of the budget
            seen, fetches = self._attempts, self._store.load().fetches
            while self._newer_than(refused) is None and self._attempts == seen and not self._closed:
                left_s = deadline - self._clock()
                record = self._store.load()
                self._adopt(record)
                if left_s <= 0 or self._is_cooling_down() or record.fetches != fetches:
                    break
                if self.usable_token() is not None and not self._fetching and not self._ask_forced_fetch(refused):
                    break
                # Not longer at a time: another process that shares the store may be the one who fetches.
                self._changed.wait(min(left_s, LOST_LOCK_PAUSE_S))
            return self._newer_than(refused)

    def state(self) -> State:
        token = self._token
        return "empty" if token is None else token.state(self._clock())

    def seconds_to_expiry(self) -> float | None:
        token = self._token
        return None if token is None else token.expires_at - self._clock()

    def start(self) -> None:
        """Start the holder's thread unless it runs: in the worker, on first use, since threads don't survive a fork."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._changed:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._adopt(self._store.load())
            self._thread = threading.Thread(target=self._run, name=f"token-{self.name}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread after the fetch that may be in flight; waiting requests are told at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._renewal.close()

    def renew_if_due(self) -> float:
        """Fetch where a fetch is due or forced; returns the seconds until the next one is. Runs in the thread only."""
        now = self._clock()
        record = self._store.load()
        with self._changed:
            self._adopt(record)
            due_in_s = record.due_at(now) - now
            if due_in_s > 0 and not self._forced:
                self._changed.notify_all()  # another holder of the store may have done what callers wait for
                return due_in_s
            self._fetching = True
        won = False
        try:
            with self._store.try_lock() as won:
                if not won and not self._is_lock_stuck():
                    return LOST_LOCK_PAUSE_S
                self._lost_lock_at = None
                record = self._aligned(self._store.load())  # again: who had the lock before may have fetched
                if self._is_fetch_wanted(record):
                    refused = partial(self._is_refused, record)
                    self._store.save(self._renewal.run(record, is_refused=refused))
        finally:
            self._end_attempt(won)
        now = self._clock()
        return self._store.load().due_at(now) - now

    def _is_lock_stuck(self) -> bool:
        """Whether whoever has the lock has kept it for 7 s while this process has no token to send."""
        if self.usable_token() is not None:
            self._lost_lock_at = None
            return False
        if self._lost_lock_at is None:
            self._lost_lock_at = self._clock()
        return self._clock() - self._lost_lock_at >= STUCK_LOCK_S

    def _aligned(self, record: Record) -> Record:
        """The record, its generations going on from ours where the store has lost what it knew."""
        token = self._token
        if token is None or token.generation <= record.generation:
            return record
        return replace(record, generation=token.generation)

    def _is_fetch_wanted(self, record: Record) -> bool:
        now = self._clock()
        return record.due_at(now) <= now or (self._forced and self._is_refused(record))

    def _is_refused(self, record: Record) -> bool:
        return record.generation == self._refused_generation

    def _end_attempt(self, ended: bool) -> None:
        """Tell all who wait how the fetch went; a lost lock is no attempt, they wait on."""
        with self._changed:
            self._fetching = False
            if ended:
                self._forced = False
                self._attempts += 1
            self._adopt(self._store.load())
            self._changed.notify_all()

    def _await_token(self) -> Token:
        self.start()
        deadline = self._clock() + schedule.WAIT_DEADLINE_S
        with self._changed:
            if self._waiting >= WAITERS_MOST:
                raise TokenUnavailable(retry_after_s=1.0, cause=f"{WAITERS_MOST} requests wait for a token already")
            seen = self._attempts
            self._waiting += 1
            self._wake()  # a host that was suspended wakes with its timers behind the boot clock
            try:
                while True:
                    token = self.usable_token()
                    if token is not None:
                        return token
                    left_s = deadline - self._clock()
                    if left_s <= 0 or self._closed or self._attempts != seen or self._is_cooling_down():
                        raise self._unavailable()
                    self._changed.wait(left_s)
            finally:
                self._waiting -= 1

    def _is_cooling_down(self) -> bool:
        return not self._fetching and self._store.load().cooling_down(self._clock())

    def _unavailable(self) -> TokenUnavailable:
        left_s = self._store.load().retry_at - self._clock()
        return TokenUnavailable(retry_after_s=max(1.0, left_s), cause=f"no usable token from source {self.name}")

    def _newer_than(self, refused: Token) -> Token | None:
        token = self.usable_token()
        return token if token is not None and token.generation != refused.generation else None

    def _ask_forced_fetch(self, refused: Token) -> bool:
        """Note that a forced fetch is wanted and wake the thread; False where there is nothing to wait for.

        True as well where another process that shares the store has the lock, or has asked for one just now.
        """
        if self._forced:
            return True
        with self._store.try_lock() as won:
            if not won:
                return True
            record = self._store.load()
            self._adopt(record)
            if self._newer_than(refused) is not None:
                return False
            if record.forced_elsewhere(self._clock()):
                return True
            moved, self._forced = after_refusal(record, now=self._clock())
            if moved is not record:
                self._store.save(moved)
        if self._forced:
            self._wake()
        return self._forced

    def _adopt(self, record: Record) -> None:
        """Take the store's token, unless ours was fetched later than it."""
        theirs, ours = record.token, self._token
        if theirs is not None and (ours is None or theirs.fetched_at >= ours.fetched_at):
            self._token = theirs

    def _run(self) -> None:
        while not self._closed:
            try:
                pause_s = self.renew_if_due()
            except Exception as error:
                # The thread is the only one that fetches: whatever a store throws must not end it.
                logger.error("token source {}: unexpected {}", self.name, type(error).__name__)
                pause_s = schedule.RETRY_CAP_S
            with self._changed:
                if not self._closed and not self._woken and pause_s > 0:
                    self._changed.wait(min(pause_s, 3600.0))
                self._woken = False

    def _wake(self) -> None:
        """Make the thread look again; under the lock only. One that fetches looks again anyhow, when that has ended."""
        if not self._fetching and not self._woken:
            self._woken = True
            self._changed.notify_all()
