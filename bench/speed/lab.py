"""Where a run of the bench takes place: a folder, the CPUs, and the upstream that all targets share."""

import os
import sys
import time
from pathlib import Path

from bench.speed.processes import Child, free_port
from bench.speed.requests import PEER_KEY
from tests.support.authority import Authority


class Lab:
    """The upstream runs from the start of the lab to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # What is measured has a CPU to itself; upstream and load share another, or have one each where there are three.
        cpus = sorted(os.sched_getaffinity(0))
        pinned: list[int | None] = [cpus[0], cpus[1], cpus[-1]] if len(cpus) > 1 else [None] * 3
        self.proxy_cpu, self.upstream_cpu, self.load_cpu = pinned
        self.upstream_port, self.upstream_tls_port = free_port(), free_port()
        authority = Authority(folder)
        self.ca_bundle, certificate = authority.ca_bundle, authority.issue()
        self._began = time.monotonic()
        self._upstream = Child(
            [
                *(sys.executable, "-m", "bench.speed.upstream", "--port", str(self.upstream_port)),
                *("--tls-port", str(self.upstream_tls_port), "--certificate", str(certificate)),
            ],
            folder / "upstream.log",
            self.upstream_cpu,
        )
        try:
            self._upstream.wait_until_answers(self.upstream_port, "GET", "/v1/models", PEER_KEY, "", within_s=20)
        except BaseException:
            self.close()
            raise

    def base_url(self, *, tls: bool = False) -> str:
        """Of the upstream, with /v1."""
        scheme, port = ("https", self.upstream_tls_port) if tls else ("http", self.upstream_port)
        return f"{scheme}://127.0.0.1:{port}/v1"

    def place(self, name: str) -> Path:
        """A folder for the files of a target, the same each time; its processes log beside it."""
        place = self.folder / name
        place.mkdir(mode=0o700, exist_ok=True)
        return place

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{time.monotonic() - self._began:6.0f} s  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._upstream.stop()
