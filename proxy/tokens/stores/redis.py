"""The store of several hosts: a Redis or Valkey that they share, with the host's own store under it.

Every save goes to the host's store first, so a host whose Redis is away goes on by itself: with the newest token, one
fetch for all its workers, and no word to its requests.

No instant crosses hosts as one: what is written counts from the end of the key, and a reader learns by the key's `PTTL`
how far away that end is. Both sides round to the safe side, so no host believes in a longer life than another.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import redis
from loguru import logger
from redis.exceptions import LockError

from proxy.redis_client import TIMEOUT_S, Breaker
from proxy.tokens import schedule
from proxy.tokens.record import Record
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.deadline import TimedCalls
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.record_json import (
    FORMAT,
    RECORD_MOST_BYTES,
    UnreadableRecord,
    check_clock,
    dump_record,
    load_record,
)
from proxy.tokens.token import boot_clock

CALL_S = 3 * TIMEOUT_S  # of a whole call, on a machine that may be busy
LOCK_S = 15.0  # outlives every fetch; a host that died with the lock holds the others up for no longer
KEEP_LEAST_S = 300.0
KEEP_MOST_S = 30 * 86_400.0

# A slower host must not bury the token of a faster one: the larger generation stays.
_SAVE = """
local held = tonumber(string.match(redis.call('GET', KEYS[1]) or '', '^%d+'))
if held and held > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '\\n' .. ARGV[2], 'PXAT', ARGV[3])
return 1
"""

T = TypeVar("T")


class RedisStore:
    """Keeps one source's record for all hosts."""

    def __init__(
        self, client: redis.Redis, name: str, local: Store, *, clock: Callable[[], float] = boot_clock
    ) -> None:
        """`name` as for the host's own store `local`: a digest of the source's whole definition."""
        self._client = client
        self._key = f"llm-proxy:{FORMAT}:{name}"  # releases of another format share among themselves
        self._local = local
        self._clock = clock
        self._save_script = client.register_script(_SAVE)
        self._breaker = Breaker("token store", "this host goes on by itself", clock=clock)
        self._calls = TimedCalls("token store")
        self._complained = ""

    @property
    def is_shared(self) -> bool:
        return not self._breaker.is_away

    def load(self) -> Record:
        """The newer of the shared record and the host's; the other one is brought up to date."""
        ours = self._local.load()
        theirs = self._ask(self._read)
        if theirs is None or _is_same(ours, theirs):
            return ours
        if _is_ahead(ours, theirs, self._clock()):
            self._ask(lambda: self._write(ours))
            return ours
        self._local.save(theirs)
        return theirs

    def save(self, record: Record) -> None:
        self._local.save(record)
        self._ask(lambda: self._write(record))

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """The host's lock and then the shared one: of each host only one process asks Redis."""
        with self._local.try_lock() as won:
            if not won:
                yield False
                return
            lock = self._client.lock(f"{self._key}:lock", timeout=LOCK_S, blocking=False, thread_local=False)
            taken = self._ask(lock.acquire)
            try:
                yield taken is not False  # None: Redis is away, and this host goes on by itself
            finally:
                if taken:
                    # Even if it is away by now: the others would wait for the lock's end.
                    self._breaker.ask(lambda: self._in_time(lambda: _release(lock)))

    def _ask(self, call: Callable[[], T]) -> T | None:
        return self._breaker.ask(lambda: self._in_time(call)) if self._breaker.may_ask() else None

    def _in_time(self, call: Callable[[], T]) -> T:
        """What the call returns. The client's own limit is for each read, and its peer may send a byte at a time.

        A call that was given up keeps its connection, which so is nobody else's before the answer has come whole. What
        it still does is as if another host did it: a lock that it takes runs out, and its record is not the newest.
        """
        try:
            return self._calls.run(call, CALL_S)
        except TokenFetchError as error:
            raise TimeoutError from error

    def _read(self) -> Record:
        """The shared record on this host's clock; an empty one where there is none, or none that can be read."""
        before = self._clock()  # the end is at least so far away from here
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.getrange(self._key, 0, RECORD_MOST_BYTES)
            pipeline.pttl(self._key)
            value, left_ms = pipeline.execute()
        try:
            if not value:
                return Record()
            record = load_record(value.partition(b"\n")[2]).shifted(before + left_ms / 1000)
            return check_clock(record, self._clock())
        except UnreadableRecord as error:
            if str(error) != self._complained:
                self._complained = str(error)
                logger.error("token store: the record in Redis is thrown away: {}", error)
            self._client.delete(self._key)  # a large generation in it would keep every good record out
            return Record()

    def _write(self, record: Record) -> None:
        seconds, microseconds = self._client.time()
        now = self._clock()  # after the answer: the end on Redis's clock is then no later than on ours
        keep_s = _keep_s(record, now)
        end_ms = seconds * 1000 + microseconds // 1000 + int(keep_s * 1000)
        text = dump_record(record.shifted(-(now + keep_s)))
        self._save_script(keys=[self._key], args=[record.generation, text, end_ms])


def _release(lock: Any) -> None:
    with suppress(LockError):  # it has run out: whoever has it now shall keep it
        lock.release()


def _is_same(ours: Record, theirs: Record) -> bool:
    """Whether both tell the same; their instants may differ by what the way to Redis and back took."""
    apart_s = 0.0 if ours.retry_at == theirs.retry_at else abs(ours.retry_at - theirs.retry_at)  # both may be -inf
    return _outline(ours) == _outline(theirs) and apart_s < 2 * TIMEOUT_S


def _outline(record: Record) -> tuple[object, ...]:
    value = None if record.token is None else record.token.value
    return (value, record.generation, record.failures, record.refusals, len(record.forced_at), record.breaker_s)


def _is_ahead(ours: Record, theirs: Record, now: float) -> bool:
    """Whether ours knows what Redis does not: it lost all, refused a write, or was away while a token was fetched."""
    if theirs == Record():
        return True
    if (ours.usable_token(now) is None) != (theirs.usable_token(now) is None):
        return theirs.usable_token(now) is None
    if ours.token is None or theirs.token is None or ours.token.value == theirs.token.value:
        return ours.retry_at > theirs.retry_at  # each fetch, good or failed, puts the next one off further
    return ours.token.is_newer_than(theirs.token)


def _keep_s(record: Record, now: float) -> float:
    """How long the record means something: until its last instant has passed."""
    ends = [record.retry_at, record.breaker_until, *(at + schedule.FORCED_WINDOW_S for at in record.forced_at)]
    if record.token is not None:
        ends.append(record.token.expires_at)
    return min(max(KEEP_LEAST_S, max(ends) - now), KEEP_MOST_S)
