"""Rates that several workers count in one real Redis; each worker is a SharedRates with connections of its own."""

import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from loguru import logger

from proxy.redis_client import AWAY_S, connect
from proxy.shared_rates import KEY, SharedRates
from tests.support.clock import Clock
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for

LIST = KEY + "a"
MINUTE_US = 60_000_000


@pytest.fixture(scope="module")
def server_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(server_of_module: RedisServer) -> RedisServer:
    server_of_module.client.flushall()
    return server_of_module


@pytest.fixture
def own_server(tmp_path) -> Iterator[RedisServer]:
    """For tests that stop it or hold it up."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def clients() -> Iterator[list[redis.Redis]]:
    clients: list[redis.Redis] = []
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def worker(clients: list[redis.Redis]) -> Callable[..., SharedRates]:
    """Makes a worker's view of the shared rates; it waits as long as a busy machine may need, where not told else."""

    def worker(server: RedisServer, clock: Clock | None = None, wait_s: float = 10.0) -> SharedRates:
        clients.append(connect(server.url, timeout_s=wait_s))
        return SharedRates(clients[-1], wait_s=wait_s, clock=clock or Clock())

    return worker


@pytest.fixture
def logs() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="TRACE", format="{level} {message}")
    yield lines
    logger.remove(sink)


def now_us(server: RedisServer) -> int:
    seconds, microseconds = server.client.time()
    return int(seconds) * 1_000_000 + int(microseconds)


# Counting


def test_workers_together_pass_what_the_key_may_send_and_no_more(server, worker) -> None:
    workers = [worker(server), worker(server), worker(server)]
    answers = [rates.take("a", 10) for _ in range(8) for rates in workers]
    assert answers[:10] == [0.0] * 10
    assert all(answer is not None and 0 < answer <= 60 for answer in answers[10:])


def test_many_threads_of_many_workers_pass_what_the_key_may_send_and_no_more(server, worker) -> None:
    workers = [worker(server) for _ in range(3)]
    answers: list[float | None] = []

    def ask(rates: SharedRates) -> None:
        for _ in range(10):
            answers.append(rates.take("a", 25))

    threads = [threading.Thread(target=ask, args=(rates,)) for rates in workers for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(answers), answers.count(0.0), answers.count(None)) == (240, 25, 0)


def test_keys_have_rates_of_their_own(server, worker) -> None:
    rates = worker(server)
    assert [rates.take(label, 1) for label in ("a", "b")] == [0.0, 0.0]
    assert rates.take("a", 1) != 0.0


@pytest.mark.parametrize(
    ("age_us", "left"),
    [
        pytest.param(MINUTE_US - 5_000_000, 1, id="within-the-minute"),
        pytest.param(MINUTE_US, 0, id="a-minute-ago"),
        pytest.param(-3_600_000_000, 0, id="of-a-clock-that-was-set-back"),
    ],
)
def test_request_counts_for_a_minute(server, worker, age_us: int, left: int) -> None:
    rates = worker(server)
    old = now_us(server) - age_us
    server.client.rpush(LIST, old)
    answer = rates.take("a", 1)
    assert (str(old).encode() in server.client.lrange(LIST, 0, -1)) == bool(left)
    assert answer is not None
    assert (answer == 0.0) == (not left)
    assert answer <= 5


def test_refused_request_does_not_count(server, worker) -> None:
    for rates in (worker(server), worker(server)):
        rates.take("a", 1)
    assert server.client.llen(LIST) == 1


def test_key_that_is_used_up_asks_redis_no_more_until_a_request_is_free(server, worker) -> None:
    clock = Clock()
    rates = worker(server, clock)
    assert rates.take("a", 1) == 0.0
    left_s = rates.take("a", 1)
    assert left_s is not None
    server.client.delete(LIST)
    clock.move(left_s - 1)
    assert rates.take("a", 1) == pytest.approx(1)
    clock.move(1)
    assert rates.take("a", 1) == 0.0


@pytest.mark.parametrize(
    ("ages_us", "left_s"),
    [
        pytest.param([50_000_000, 40_000_000, 30_000_000, 20_000_000], 30, id="the-second-last-leaves"),
        pytest.param([50_000_000, -3_600_000_000, -3_600_000_000], 60, id="of-a-clock-that-was-set-back"),
    ],
)
def test_rate_that_a_reload_lowered_tells_when_a_request_is_free(server, worker, ages_us, left_s: int) -> None:
    now = now_us(server)
    server.client.rpush(LIST, *(now - age_us for age_us in ages_us))
    answer = worker(server).take("a", 2)
    assert answer is not None
    assert left_s - 2 < answer <= left_s


def test_nothing_is_kept_of_a_key_after_a_minute_of_silence(server, worker) -> None:
    worker(server).take("a", 5)
    assert 0 < server.client.pttl(LIST) <= 60_000


def test_redis_that_forgot_all_counts_from_the_start(own_server, worker) -> None:
    rates = worker(own_server)
    assert rates.take("a", 2) == 0.0
    own_server.client.flushall()
    own_server.client.script_flush()
    assert rates.take("a", 2) == 0.0
    assert own_server.client.llen(LIST) == 1


# Redis away


def test_redis_that_is_away_is_asked_again_after_a_while_and_nobody_waits_for_that(own_server, worker, logs) -> None:
    clock = Clock()
    rates = worker(own_server, clock)
    assert rates.take("a", 5) == 0.0
    own_server.stop()
    assert rates.take("a", 5) is None
    own_server.start()
    clock.move(AWAY_S - 0.1)
    assert rates.take("a", 5) is None
    clock.move(0.1)
    assert rates.take("a", 5) is None  # this one asks
    wait_for(lambda: len(logs) == 2)
    assert rates.take("a", 5) == 0.0
    assert own_server.client.llen(LIST) == 2
    assert [line.split(" (")[0].strip() for line in logs] == ["ERROR rates: Redis is away", "INFO rates: Redis is back"]


def test_frozen_redis_is_left_alone(own_server, worker, logs) -> None:
    rates = worker(own_server, wait_s=0.25)
    own_server.freeze()
    assert [rates.take("a", 5) for _ in range(3)] == [None] * 3
    wait_for(lambda: logs == ["ERROR rates: Redis is away (TimeoutError); each worker counts for itself\n"])
    own_server.thaw()
    wait_for(lambda: own_server.client.llen(LIST) <= 1)  # of the one that asked; the others left no question behind


def test_what_is_no_list_of_ours_harms_nobody(server, worker, logs) -> None:
    rates = worker(server)
    server.client.set(LIST, "something else")
    assert rates.take("a", 5) is None
    assert logs[0].startswith("ERROR rates: Redis is away (ResponseError)")
    assert server.client.get(LIST) == b"something else"


# Redis that answers when the test says so


class HeldUp:
    """In a client's place: `began` tells that a call is out, `end` lets it and all that follow return."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.began = threading.Event()
        self.end = threading.Event()

    def register_script(self, script: str) -> "HeldUp":
        return self

    def __call__(self, keys: list[str], args: list[int]) -> list[int]:
        self.calls.append(keys)
        self.began.set()
        assert self.end.wait(10)
        return [0] * len(keys)


@pytest.fixture
def held_up() -> Iterator[HeldUp]:
    held_up = HeldUp()
    yield held_up
    held_up.end.set()


def take_in_thread(rates: SharedRates, answers: list[float | None]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(rates.take("a", 5)))
    thread.start()
    return thread


def test_nobody_else_waits_once_a_call_has_taken_longer_than_a_request_waits(held_up: HeldUp) -> None:
    clock, answers = Clock(), list[float | None]()
    rates = SharedRates(held_up, wait_s=10, clock=clock)
    first = take_in_thread(rates, answers)
    assert held_up.began.wait(10)
    clock.move(10.1)
    assert rates.take("a", 5) is None
    assert answers == []
    held_up.end.set()
    first.join()
    assert answers == [0.0]
    assert len(held_up.calls) == 1  # the other left no question behind


def test_request_waits_its_time_and_no_longer(held_up: HeldUp) -> None:
    assert SharedRates(held_up, wait_s=0.01).take("a", 5) is None


def test_slow_answer_to_many_requests_is_one_slow_answer(held_up: HeldUp, logs) -> None:
    clock, answers = Clock(), list[float | None]()
    rates = SharedRates(held_up, wait_s=10, clock=clock)
    threads = [take_in_thread(rates, answers)]
    assert held_up.began.wait(10)
    threads += [take_in_thread(rates, answers) for _ in range(5)]
    wait_for(lambda: rates._questions.qsize() == 5)
    clock.move(1)
    held_up.end.set()
    for thread in threads:
        thread.join()
    assert answers == [0.0] * 6
    assert [len(keys) for keys in held_up.calls] == [1, 5]
    assert logs == []
