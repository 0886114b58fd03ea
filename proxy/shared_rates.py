"""Rates in a Redis or Valkey that workers and hosts share: exact over all of them for as long as it answers in time.

The counting is one script, by Redis's own clock, so no two workers can take the last request of a minute. One thread of
the worker asks for all of its requests, one call after another, so a request waits for an answer and for nothing else.
What becomes of a request that Redis did not count is decided by `limits`, which alone calls this.
"""

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from proxy.redis_client import Breaker

# Of a request for its answer, whatever Redis, the way to it or the look-up of its name take. A worker that starts in a
# burst on a busy machine may need 0.3 s.
WAIT_S = 1.0
KEY = "llm-proxy:rates:"

# The moments, in µs, of a key's requests of the last minute, oldest first. One that lies ahead is of a clock that was
# set back since: it would shut the key out for as long.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local most = tonumber(ARGV[i])
  local function moment(index) return tonumber(redis.call('LINDEX', key, index)) end
  local first = moment(0)
  while first and (first <= now - 60000000 or first > now) do
    redis.call('LPOP', key)
    first = moment(0)
  end
  local count = redis.call('LLEN', key)
  if count < most then
    redis.call('RPUSH', key, string.format('%.0f', now))
    redis.call('PEXPIRE', key, 60000)
    answers[i] = 0
  else
    answers[i] = math.min(moment(count - most), now) + 60000000 - now
  end
end
return answers
"""


@dataclass(eq=False, slots=True)
class _Question:
    label: str
    most: int
    answered: threading.Event = field(default_factory=threading.Event)
    left_s: float | None = None


class SharedRates:
    """Requests per minute of each client key, counted for all who name the same Redis."""

    def __init__(
        self, client: redis.Redis, *, wait_s: float = WAIT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The thread and its connection come with the first request that is to be counted."""
        self._script = client.register_script(_TAKE)
        self._wait_s = wait_s
        self._clock = clock
        self._breaker = Breaker("rates", "each worker counts for itself", clock=clock)
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._overdue_at = math.inf  # when the call that is out has taken longer than a request waits
        self._full_until: dict[str, float] = {}
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self, label: str, most: int) -> float | None:
        """0.0 where the request was counted, else the seconds until one is free; None where Redis did not say in time.

        A key whose rate is used up is refused without a question: nothing frees a request earlier. While Redis is away
        nobody waits: a request that goes on without an answer leaves its question, which shows whether it is back.
        """
        now = self._clock()
        left_s = self._full_until.get(label, 0.0) - now
        if left_s > 0:
            return left_s
        if now > self._overdue_at or not self._breaker.may_ask():
            return None
        question = _Question(label, most)
        self._questions.put(question)
        self._start()
        if not self._breaker.is_away:
            question.answered.wait(self._wait_s)
        return question.left_s

    def _start(self) -> None:
        """In the worker, on first use, since threads don't survive a fork."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="rates", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            questions = [self._questions.get()]
            while not self._questions.empty():
                questions.append(self._questions.get())
            if self._breaker.may_ask():
                self._ask(questions)
            for question in questions:
                question.answered.set()

    def _ask(self, questions: list[_Question]) -> None:
        keys, mosts = [KEY + question.label for question in questions], [question.most for question in questions]
        self._overdue_at = self._clock() + self._wait_s
        answers = self._breaker.ask(lambda: [int(left_us) / 1e6 for left_us in self._script(keys=keys, args=mosts)])
        self._overdue_at = math.inf
        for question, left_s in zip(questions, answers or (), strict=False):
            question.left_s = left_s
            if left_s > 0:
                self._full_until[question.label] = self._clock() + left_s
