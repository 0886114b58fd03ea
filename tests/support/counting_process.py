"""A process that counts as a worker does, moved by its standard input; and what a scrape makes of a folder."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from prometheus_client import Metric

from tests.support.proxy_process import ROOT

Samples = dict[str, float]


class CountingProcess:
    """Counts in a folder until it is told to end or killed."""

    def __init__(self, folder: Path, upstream: str = "llm") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.counting_process", str(folder), upstream],
            cwd=ROOT,
            env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tell("nothing")  # returns when it has its place

    def tell(self, *commands: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for command in commands:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> "CountingProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


def samples_of(collected: Iterable[Metric]) -> Samples:
    """Each sample's value by its name and the values of its labels, in the order of the labels' names: `name a b`."""
    return {
        " ".join((sample.name, *(value for _, value in sorted(sample.labels.items())))): sample.value
        for metric in collected
        for sample in metric.samples
    }


def _main(folder: Path, upstream: str) -> None:
    from proxy.observability.metrics import REQUESTS_MOST, Metrics

    metrics = Metrics([upstream], ["corp"], folder)

    def end(status: int = 200) -> None:
        metrics.request_ended("/chat/completions", upstream, status, seconds=1.5, first_byte_s=0.2, overhead_s=0.0004)

    def flood() -> None:
        for status in range(3 * REQUESTS_MOST):
            end(status)

    commands = {"nothing": lambda: None, "begin": metrics.request_began, "end": end, "flood": flood}
    for line in sys.stdin:
        commands[line.strip()]()
        print("done", flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
