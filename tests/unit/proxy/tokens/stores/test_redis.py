"""The store of several hosts, on a real Redis: each host has a clock of its own and a store of its own under it."""

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import redis
from loguru import logger

from proxy.redis_client import AWAY_S, TIMEOUT_S, connect
from proxy.tokens.holder import TokenHolder
from proxy.tokens.record import Record, after_failure, after_grant
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.stores.redis import RedisStore
from proxy.tokens.token import Token
from tests.support.clock import Clock
from tests.support.loopback_server import LoopbackServer
from tests.support.redis_server import RedisServer
from tests.support.token_source import FakeSource

KEY = "llm-proxy:1:name"
LOCK = "llm-proxy:1:name:lock"
# What the way to Redis may take on a busy machine: a token's instants may be so much too early, and never too late.
WAY_S = 5.0
DRIP_S = 0.1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Host:
    """A host: its clock, its own store, and its view of the shared one."""

    def __init__(self, client: redis.Redis, now: float) -> None:
        self.clock = Clock(now)
        self.local = MemoryStore()
        self.store = RedisStore(client, "name", self.local, clock=self.clock)

    def save(self, record: Record) -> None:
        with self.store.try_lock() as won:
            assert won
            self.store.save(record)

    def granted(self, value: str, lifetime_s: float = 300.0, generation: int = 0) -> Record:
        now = self.clock.now
        before = replace(Record(), generation=generation)
        return after_grant(before, Grant(value, lifetime_s), fetched_at=now, now=now, jitter=0.0, forced=False)

    def value(self) -> str | None:
        token = self.store.load().token
        return None if token is None else token.value


@pytest.fixture
def make_host(server: RedisServer) -> Iterator[Callable[..., Host]]:
    clients: list[redis.Redis] = []

    def make_host(now: float = 1_000.0) -> Host:
        clients.append(connect(server.url))
        return Host(clients[-1], now)

    server.client.flushall()
    yield make_host
    for client in clients:
        client.close()


@pytest.fixture
def logs() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="TRACE", format="{level} {message}")
    yield lines
    logger.remove(sink)
    assert "s3cret" not in "".join(lines)


def test_nothing_saved_is_an_empty_record(make_host) -> None:
    assert make_host().store.load() == Record()


@pytest.mark.parametrize("theirs_now", [5.0, 1_000.0, 9e6], ids=["rebooted-just-now", "alike", "up-for-months"])
def test_token_lives_as_long_on_another_host_and_never_longer(make_host, theirs_now: float) -> None:
    ours, theirs = make_host(1_000.0), make_host(theirs_now)
    ours.save(ours.granted("token-1", 300.0))
    token = theirs.store.load().token
    assert token is not None
    assert (token.value, token.generation, token.lifetime_s) == ("token-1", 1, 300.0)
    assert theirs_now + 300 - WAY_S < token.expires_at <= theirs_now + 300
    assert token.expires_at - token.renew_at == 150


def test_back_off_and_budget_are_shared(make_host) -> None:
    ours, theirs = make_host(1_000.0), make_host(50.0)
    failed = after_failure(Record(), TokenFetchError("status 401", refused=True), now=1_000.0, jitter=0.0)
    ours.save(replace(failed, forced_at=(980.0, 999.0), breaker_until=1_040.0, breaker_s=30.0))
    record = theirs.store.load()
    assert (record.failures, record.refusals, record.breaker_s) == (1, 1, 30.0)
    assert 80 - WAY_S < record.retry_at <= 80
    assert 90 - WAY_S < record.breaker_until <= 90
    assert [49 - WAY_S < at + gap <= 49 for at, gap in zip(record.forced_at, (19, 0), strict=True)] == [True, True]


def test_record_read_back_by_its_writer_is_exact(make_host) -> None:
    host = make_host()
    host.save(host.granted("token-1"))
    assert host.store.load() is host.local.load()


def test_what_is_adopted_is_kept_for_the_host(make_host) -> None:
    ours, theirs = make_host(), make_host()
    ours.save(ours.granted("token-1"))
    adopted = theirs.store.load()
    assert theirs.local.load() is adopted
    assert theirs.store.load() is adopted


def test_key_goes_when_the_token_has_run_out(make_host, server: RedisServer) -> None:
    host = make_host()
    host.save(host.granted("token-1", 3600.0))
    assert 3500 < server.client.ttl(KEY) <= 3600


@pytest.mark.parametrize("lifetime_s", [1.0, math.inf])
def test_key_of_an_odd_life_goes_too(make_host, server: RedisServer, lifetime_s: float) -> None:
    host = make_host()
    host.save(host.granted("token-1", lifetime_s))
    assert 200 < server.client.ttl(KEY) <= 30 * 86_400
    other = make_host().store.load().token
    assert other is not None
    assert other.lifetime_s == lifetime_s


def test_larger_generation_wins(make_host) -> None:
    fast, slow = make_host(), make_host()
    fast.save(fast.granted("new", generation=7))
    slow.save(slow.granted("old", generation=3))
    assert (make_host().value(), fast.value(), slow.value()) == ("new",) * 3


def test_of_two_hosts_that_were_apart_the_later_token_wins(make_host) -> None:
    early, late = make_host(), make_host()
    early.local.save(early.granted("early"))
    late.clock.move(20)
    late.local.save(late.granted("late"))
    assert (early.value(), late.value()) == ("early", "late")
    late.clock.move(0)
    early.clock.move(20)
    assert (early.value(), make_host().value()) == ("late", "late")


def test_emptied_redis_gets_the_record_back(make_host, server: RedisServer) -> None:
    host = make_host()
    host.save(host.granted("token-1"))
    server.client.flushall()
    assert host.value() == "token-1"
    assert make_host().value() == "token-1"


def test_lock_is_for_one_of_all_hosts(make_host, server: RedisServer) -> None:
    ours, theirs = make_host(), make_host()
    with ours.store.try_lock() as won:
        assert won
        with theirs.store.try_lock() as second:
            assert not second
        assert 14_000 < server.client.pttl(LOCK) <= 15_000
    with theirs.store.try_lock() as won:
        assert won


def test_lock_of_the_host_comes_first(make_host, server: RedisServer) -> None:
    host = make_host()
    with host.local.try_lock(), host.store.try_lock() as won:
        assert not won
        assert server.client.get(LOCK) is None


def test_lock_that_ran_out_is_left_to_who_has_it_now(make_host, server: RedisServer) -> None:
    host = make_host()
    with host.store.try_lock():
        server.client.set(LOCK, "another")
    assert server.client.get(LOCK) == b"another"
    assert host.store.is_shared


@pytest.mark.parametrize(
    "value",
    [b"", b"nonsense", b"7\n", b"7\n{}", b"99999999999999999999999\n[]", b"\xff" * 100, b"1" * 1_000_000],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_no_record_of_ours_is_thrown_away(make_host, server: RedisServer, logs, value) -> None:
    server.client.set(KEY, value)
    host = make_host()
    assert host.store.load() == Record()
    assert host.store.load() == Record()
    assert sum("thrown away" in line for line in logs) == (1 if value else 0)
    host.save(host.granted("token-1"))
    assert make_host().value() == "token-1"


def test_hostile_token_in_redis_is_thrown_away(make_host, server: RedisServer) -> None:
    host = make_host()
    host.save(host.granted("token-1"))
    generation, _, text = server.client.get(KEY).partition(b"\n")
    members = json.loads(text)
    members["token"]["value"] = "a\r\nX-Evil: s3cret"
    server.client.set(KEY, generation + b"\n" + json.dumps(members).encode(), px=60_000)
    assert make_host().store.load() == Record()


def test_key_of_another_type_is_as_if_redis_were_away(make_host, server: RedisServer) -> None:
    server.client.rpush(KEY, "a")
    host = make_host()
    host.save(host.granted("token-1"))
    assert host.value() == "token-1"


class Outage:
    """Ways in which Redis can be away, and how it comes back."""

    def __init__(self, kind: str, server: RedisServer) -> None:
        self._end = {"stopped": server.start, "frozen": server.thaw}[kind]
        {"stopped": server.stop, "frozen": server.freeze}[kind]()

    def end(self) -> None:
        self._end()


@pytest.fixture(params=["stopped", "frozen"])
def begin_outage(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[Callable[[], Outage]]:
    outages: list[Outage] = []

    def begin_outage() -> Outage:
        outages.append(Outage(request.param, server))
        return outages[-1]

    yield begin_outage
    server.stop()
    server.start()


def test_without_redis_the_host_goes_on_by_itself_and_shares_again_when_it_is_back(
    make_host, begin_outage, logs
) -> None:
    ours, theirs = make_host(), make_host()
    ours.save(ours.granted("first"))
    assert theirs.value() == "first"
    outage = begin_outage()
    assert (ours.value(), theirs.value()) == ("first", "first")
    assert not ours.store.is_shared
    ours.save(ours.granted("second", generation=1))
    with ours.store.try_lock() as won, ours.store.try_lock() as again:
        assert (won, again) == (True, False)
    assert (ours.value(), theirs.value()) == ("second", "first")
    outage.end()
    assert ours.value() == "second"
    assert not ours.store.is_shared  # it is left alone for a while
    for host in (ours, theirs):
        host.clock.move(AWAY_S)
        assert host.value() == "second"
        assert host.store.is_shared
    assert [line.split(" ", 1)[0] for line in logs] == ["ERROR", "ERROR", "INFO", "INFO"]


class DrippingRedis(LoopbackServer):
    """Sends its answer byte by byte, each of them in time for a read, and ends it when a call should be over."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        super().__init__()

    def _serve(self, sock: socket.socket) -> None:
        sock.recv(1)
        for _ in range(round(4 * TIMEOUT_S / DRIP_S)):
            sock.sendall(b"+")
            if self._closed.wait(DRIP_S):
                return
        sock.sendall(b"\r\n")

    def close(self) -> None:
        self._closed.set()
        super().close()


def test_redis_that_drips_is_away_when_the_time_of_a_call_is_over(logs) -> None:
    with DrippingRedis() as server, closing(connect(f"redis://127.0.0.1:{server.port}/0")) as client:
        host = Host(client, 1_000.0)
        assert host.store.load() == Record()
        assert not host.store.is_shared
        host.save(host.granted("token-1"))
        assert host.value() == "token-1"
    assert [line.split(";")[0] for line in logs] == ["ERROR token store: Redis is away (TimeoutError)"]


def test_lock_is_given_back_though_redis_went_away_meanwhile(make_host, server: RedisServer) -> None:
    host = make_host()
    with host.store.try_lock():
        server.client.rpush(KEY, "a")
        host.store.save(host.granted("token-1"))
        assert not host.store.is_shared
    assert server.client.get(LOCK) is None


def test_host_that_starts_without_redis_fetches_for_itself(make_host, begin_outage, make_holder) -> None:
    begin_outage()
    holder: TokenHolder = make_holder(FakeSource(), make_host().store)
    assert holder.token().value == "token-1"


def test_token_that_the_key_outlives_is_not_used_again(make_host) -> None:
    ours, theirs = make_host(), make_host(50.0)
    ours.local.save(Record(Token("old", fetched_at=600.0, lifetime_s=300.0, generation=1), 1))
    ours.store.load()
    assert theirs.store.load().usable_token(theirs.clock.now) is None


def test_back_off_outlives_a_redis_that_takes_no_writes(make_host, monkeypatch) -> None:
    host = make_host()
    host.save(host.granted("token-1"))
    monkeypatch.setattr(host.store, "_write", lambda record: None)
    host.clock.move(150)
    failed = after_failure(host.store.load(), TokenFetchError("no answer"), now=host.clock.now, jitter=1.0)
    host.save(failed)
    assert host.store.load().failures == 1


def test_pause_after_the_same_token_again_is_shared(make_host) -> None:
    ours, theirs = make_host(), make_host()
    ours.save(ours.granted("token-1"))
    assert theirs.value() == "token-1"
    ours.save(replace(ours.store.load(), retry_at=ours.clock.now + 40))
    assert theirs.store.load().retry_at == pytest.approx(theirs.clock.now + 40, abs=WAY_S)


def test_token_that_has_run_out_is_never_ahead(make_host) -> None:
    old, new = make_host(), make_host()
    old.local.save(Record(Token("old", fetched_at=600.0, lifetime_s=300.0, generation=9), 9))
    new.save(new.granted("new", generation=3))
    assert (old.value(), make_host().value()) == ("new", "new")


@pytest.mark.parametrize(
    "members",
    [{"retry_at": 1e7}, {"retry_at": math.inf}, {"breaker_until": 1e7}, {"retry_at": 10**400}, {"generation": 2**53}],
    ids=lambda members: next(iter(members)),
)
def test_record_that_no_rule_could_have_made_is_thrown_away(make_host, server: RedisServer, members) -> None:
    host = make_host()
    host.save(host.granted("token-1"))
    generation, _, text = server.client.get(KEY).partition(b"\n")
    server.client.set(KEY, generation + b"\n" + json.dumps(json.loads(text) | members).encode(), px=60_000)
    assert make_host().store.load() == Record()
