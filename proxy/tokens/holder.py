"""TokenHolder: a usable access token for every request, renewed ahead of time by one thread of its own.

Requests read a ready-made token and never call the issuer; only the holder's thread does. So a request that goes away
cannot end a fetch that others wait for, and a dead issuer gets one call a step however many requests there are.
The rules stand in `record` and `schedule`, one fetch in `renewal`, where the record is kept in `stores`, and how a
token is got in `sources`.
"""

import math
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from loguru import logger

from proxy.errors import TokenUnavailable
from proxy.tokens import schedule
from proxy.tokens.listener import TokenListener
from proxy.tokens.record import Failures, Record, after_refusal
from proxy.tokens.renewal import Renewal
from proxy.tokens.sources.base import Source
from proxy.tokens.stores.base import Store
from proxy.tokens.token import State, Token, boot_clock

WAITERS_MOST = 256
LOST_LOCK_PAUSE_S = 0.25
STUCK_LOCK_S = 7.0
LOOK_EVERY_S = 30.0  # even if nothing is due: a host that was suspended wakes with its timers behind the boot clock
FIRST_LOOK_MOST_S = 1.0
LOOKED_JUST_NOW_S = 0.25  # requests are answered by what was seen of the record so long ago


class TokenHolder:
    """Holds the token of one source for one process. Safe for threads and greenlets."""

    def __init__(
        self,
        name: str,
        source: Source,
        store: Store,
        *,
        single_active: bool = False,
        clock: Callable[[], float] = boot_clock,
        jitter: Callable[[], float] = random.random,
        listener: TokenListener | None = None,
    ) -> None:
        """`single_active`: the issuer ends the old token when it gives a new one; so none is fetched early unshared."""
        self.name = name
        self._source = source
        self._renewal = Renewal(name, source, clock=clock, jitter=jitter, listener=listener)
        self._listener = listener
        self._store = store
        self._single_active = single_active
        self._clock = clock
        self._token: Token | None = None  # the snapshot: read without a lock, replaced whole
        self._changed = threading.Condition()  # guards all below
        self._thread: threading.Thread | None = None
        self._closed = False
        self._record = Record()  # as the thread saw it last, and when
        self._looked_at = -math.inf
        self._busy = False  # the thread has the store's lock, or tries to get it
        self._polling = False  # it has lost the lock, and will look again soon without being asked
        self._woken = False  # it shall look again before it sleeps
        self._refused = ""  # the token that an upstream refused last
        self._forced = False  # a replacement for it is wanted
        self._turns = 0  # under the store's lock that have ended, with a token or without
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
        token = self._other_than(refused) or self._await_replacement(refused)
        if token is not None and self._listener is not None:
            self._listener.token_replaced()
        return token

    def state(self) -> State:
        token = self._token
        return "empty" if token is None else token.state(self._clock())

    def seconds_to_expiry(self) -> float | None:
        token = self._token
        return None if token is None else token.expires_at - self._clock()

    def failures(self) -> Failures | None:
        """What has failed since the last good fetch, whoever of those who share the record made it; None: nothing."""
        return self._record.failures_at(self._clock())

    def start(self) -> None:
        """Start the holder's thread unless it runs: in the worker, on first use, since threads don't survive a fork."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._changed:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name=f"token-{self.name}", daemon=True)
            self._thread.start()
            # So that a new worker whose fellows hold a token is ready when it is asked for the first time.
            self._changed.wait_for(lambda: self._looked_at > -math.inf, FIRST_LOOK_MOST_S)

    def close(self) -> None:
        """End the thread after the fetch that may be in flight; waiting requests are told at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._renewal.close()

    def renew_if_due(self) -> float:
        """Fetch where a fetch is due or wanted; returns the seconds until the next one is. Runs in the thread only."""
        self._see(self._store.load())
        due_in_s = self._due_in_s(self._record)
        with self._changed:
            self._polling = False
            if due_in_s > 0 and not self._forced and not self._source.has_changed():
                return due_in_s
            self._busy = True
        try:
            return self._take_turn()
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take_turn(self) -> float:
        """Fetch under the store's lock, unless whoever had it before has done so; a lost lock is no turn."""
        with self._store.try_lock() as won:
            if not won and not self._is_lock_stuck():
                self._polling = True
                return LOST_LOCK_PAUSE_S
            self._lost_lock_at = None
            self._see(self._store.load())
            record = self._aligned(self._record)
            moved = self._moved(record)
            if moved is not record:
                self._store.save(moved)
                moved = self._store.load()  # after the save: what this process sends, others must find
            self._see(moved, ends_turn=True)
            return self._due_in_s(moved)

    def _see(self, record: Record, *, ends_turn: bool = False) -> None:
        """Note the record, take its token unless ours is newer, and tell all who wait.

        `ends_turn`: at the same instant, so that who is refused the new token from now on begins a turn of its own.
        """
        with self._changed:
            if record is not self._record:
                self._lost_lock_at = None  # who had the lock has ended a turn: if it is lost again, to another one
            self._record, self._looked_at = record, self._clock()
            theirs, ours = record.token, self._token
            if theirs is not None and (ours is None or self._is_outdone(ours, theirs)):
                self._token = theirs
            if ends_turn:
                self._busy = self._forced = False
                self._turns += 1
            self._changed.notify_all()

    def _is_outdone(self, ours: Token, theirs: Token) -> bool:
        """Whether the record's token is to be sent in the place of ours: it is newer, or ours is good for nothing."""
        return ours.value == self._refused or self._clock() >= ours.usable_until or not ours.is_newer_than(theirs)

    def _due_in_s(self, record: Record) -> float:
        now = self._clock()
        token = record.usable_token(now)
        if token is not None and self._single_active and not self._store.is_shared:
            return token.usable_until - now  # a new one would end the token that all others go on using
        return record.due_at(now) - now

    def _moved(self, record: Record) -> Record:
        """The record after the fetch that is due or wanted; the same one where there is none to make."""
        if self._source.has_changed():
            return self._renewal.run(record, is_refused=lambda: True)  # the old token is out of date, whenever it ends
        is_refused = partial(self._is_refused, record)
        if self._due_in_s(record) <= 0:
            return self._renewal.run(record, is_refused=is_refused)
        if not self._forced or not is_refused():
            return record
        record, allowed = after_refusal(record, now=self._clock())
        return self._renewal.run(record, is_refused=is_refused) if allowed else record

    def _is_lock_stuck(self) -> bool:
        """Whether whoever has the lock has kept it too long while this process has no token to send."""
        if self.usable_token() is not None and not self._forced:
            self._lost_lock_at = None
            return False
        if self._lost_lock_at is None:
            self._lost_lock_at = self._clock()
        return self._clock() - self._lost_lock_at >= max(STUCK_LOCK_S, self._source.takes_most_s + LOST_LOCK_PAUSE_S)

    def _aligned(self, record: Record) -> Record:
        """The record, its generations going on from ours where the store has lost what it knew."""
        token = self._token
        if token is None or token.generation <= record.generation:
            return record
        return replace(record, generation=token.generation)

    def _is_refused(self, record: Record) -> bool:
        return record.token is not None and record.token.value == self._refused

    def _await_token(self) -> Token:
        deadline = self._clock() + schedule.WAIT_DEADLINE_S
        self.start()
        with self._changed:
            if self._waiting >= WAITERS_MOST:
                raise TokenUnavailable(retry_after_s=1.0, cause=f"{WAITERS_MOST} requests wait for a token already")
            seen = self._turns
            self._waiting += 1
            try:
                while (token := self.usable_token()) is None:
                    left_s = deadline - self._clock()
                    if left_s <= 0 or self._closed or self._turns != seen or self._is_cooling_down():
                        raise self._unavailable()
                    self._wake()
                    self._changed.wait(left_s)
                return token
            finally:
                self._waiting -= 1

    def _await_replacement(self, refused: Token) -> Token | None:
        deadline = self._clock() + schedule.WAIT_DEADLINE_S
        self.start()
        with self._changed:
            seen = self._turns
            # No limit on those who wait here: they hold a place among the worker's requests already.
            while (token := self._other_than(refused)) is None:
                left_s = deadline - self._clock()
                if left_s <= 0 or self._closed or self._turns != seen or self._is_denied():
                    break
                self._refused, self._forced = refused.value, True
                self._wake()
                self._changed.wait(left_s)
            return token

    def _is_cooling_down(self) -> bool:
        return self._is_up_to_date() and self._record.cooling_down(self._clock())

    def _is_denied(self) -> bool:
        """Whether nothing will be fetched now in place of a refused token."""
        now = self._clock()
        if not self._is_up_to_date() or self._record.due_at(now) <= now:
            return False
        return not after_refusal(self._record, now=now)[1]

    def _is_up_to_date(self) -> bool:
        return not self._busy and self._clock() - self._looked_at < LOOKED_JUST_NOW_S

    def _unavailable(self) -> TokenUnavailable:
        left_s = self._record.retry_at - self._clock()
        return TokenUnavailable(retry_after_s=max(1.0, left_s), cause=f"no usable token from source {self.name}")

    def _other_than(self, refused: Token) -> Token | None:
        token = self.usable_token()
        return token if token is not None and token.value != refused.value else None

    def _run(self) -> None:
        while not self._closed:
            try:
                pause_s = self.renew_if_due()
            except Exception as error:
                # The thread is the only one that fetches: whatever a store throws must not end it.
                logger.error("token source {}: unexpected {}", self.name, type(error).__name__)
                pause_s = schedule.RETRY_CAP_S
                self._polling = True  # who waits must not wake it at once, to fail again
            with self._changed:
                if not self._closed and not self._woken and pause_s > 0:
                    self._changed.wait(min(pause_s, LOOK_EVERY_S, self._source.watch_s))
                self._woken = False

    def _wake(self) -> None:
        """Make the thread look again; under the lock only. One that is busy or polls looks again anyhow."""
        if not self._busy and not self._polling and not self._woken:
            self._woken = True
            self._changed.notify_all()
