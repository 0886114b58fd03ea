"""The memory of a proxy's one worker, by Linux's /proc: what it takes now, and the most that it took meanwhile."""

import re

from tests.support.process_facts import PROC, workers_of
from tests.support.proxy_process import ProxyProcess


class WorkerMemory:
    """Growth since this was made, in bytes."""

    def __init__(self, proxy: ProxyProcess) -> None:
        [worker] = workers_of(proxy)
        self._folder = PROC / str(worker)
        (self._folder / "clear_refs").write_text("5")  # the most is what it takes now
        self._before = self._bytes("VmRSS")

    def growth(self) -> int:
        return self._bytes("VmRSS") - self._before

    def growth_at_most(self) -> int:
        return self._bytes("VmHWM") - self._before

    def _bytes(self, name: str) -> int:
        match = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert match
        return int(match[1]) * 1024
