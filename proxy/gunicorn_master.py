"""gunicorn's master, changed in three ways.

Workers that were told to end do not count any more: gunicorn's own master stands still after a reload until the last of
them has ended, and takes no signal and replaces no worker that dies meanwhile. No worker misses that it is told to end.
And a drain is measured by a clock that nobody sets. `gunicorn.conf.py` installs it.
"""

import math
import signal
import time
from types import SimpleNamespace
from typing import Any

from gunicorn import arbiter
from gunicorn.app import base
from gunicorn.workers import ggevent

HELD_BACK = {signal.SIGTERM, signal.SIGQUIT}
STARTS_WITHIN_S = 30
_ENDING = math.inf  # the age of workers that were told to end


class Master(arbiter.Arbiter):  # type: ignore[misc]  # gunicorn has no types
    def manage_workers(self) -> None:
        """Fork and end workers until there are as many as there should be, besides those that end already.

        After a reload gunicorn waits as long as it sees an age from before it; theirs is none of these.
        """
        serving = sorted((each for each in self.WORKERS.values() if each.age != _ENDING), key=lambda each: each.age)
        for worker in serving[: max(0, len(serving) - self.num_workers)]:
            worker.age = _ENDING
            self.kill_worker(worker.pid, signal.SIGTERM)
        for _ in range(self.num_workers - len(serving)):
            self.spawn_worker()

    def reload(self) -> None:
        """Return once the new workers serve: of reloads on end each would else end the workers of the one before, until
        none has started."""
        super().reload()
        until = time.monotonic() + STARTS_WITHIN_S
        while not all(map(_has_started, self.WORKERS.values())) and time.monotonic() < until:
            time.sleep(0.1)
            self.reap_workers()

    def spawn_worker(self) -> None:
        """Until its own handlers stand, a worker has the master's, where a signal to end would be lost."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)  # the worker lets them through in init_signals()
        try:
            super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def _has_started(worker: Any) -> bool:
    """Whether it has told so: its file then shows the monotonic clock, and until then when it was made."""
    return bool(worker.tmp.last_update() <= time.monotonic())


def install() -> None:
    """gunicorn has settings for neither."""
    base.Arbiter = Master
    # They measure a drain by time.time(): an hour's step of the wall clock would cut it, or make it an hour longer.
    steady = SimpleNamespace(**{**vars(time), "time": time.monotonic})
    arbiter.time = ggevent.time = steady
