"""P3: whether a request near a renewal is slower than one elsewhere.

A machine has bad moments of its own, which come and go in seconds and move p99 by far more than 5 %. So two proxies
run under the same load at the same time: one renews often, the other holds a token that lasts. What is slow in both
at once is the machine; what is slow near a renewal in the first alone is the renewal.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.token_proofs.issuer import Call, Issuer
from bench.token_proofs.load import Load, Sample, failures
from bench.token_proofs.proxies import config_for, running, warm_up
from bench.token_proofs.rows import Lab, Row, share
from tests.support.sandbox_client import SandboxClient

LIFETIME_S = 32.0  # renewed every 13 to 16 s: about as much time near a renewal as elsewhere
LASTING_S = 36_000.0
ISSUER_TAKES_S = 3.0
NEAR_S = 2.0
WORKERS = 2
PER_SECOND = 110
MOST = 0.05
ERROR_MOST = 0.1  # beyond it the machine was too busy to say anything

Rule = Callable[[Sample], bool]


@dataclass(frozen=True)
class _Run:
    """The requests to both proxies in one stretch of time, and what counts as near a renewal in it."""

    renewing: list[Sample]
    lasting: list[Sample]
    is_near: Rule

    def p99_ms(self, samples: list[Sample], rule: Rule) -> float:
        return 1000 * share([sample.took_s for sample in samples if rule(sample)], 0.99)

    def difference(self, rule: Rule, other: Rule) -> float:
        """How much slower the renewing proxy is by the first rule than by the other, beyond what the lasting one is."""
        renewing = self.p99_ms(self.renewing, rule) / self.p99_ms(self.renewing, other)
        return renewing / (self.p99_ms(self.lasting, rule) / self.p99_ms(self.lasting, other)) - 1

    def figures(self) -> dict[str, float]:
        def is_elsewhere(sample: Sample) -> bool:
            return not self.is_near(sample)

        def is_odd(sample: Sample) -> bool:
            return is_elsewhere(sample) and int(sample.at) % 2 == 1

        def is_even(sample: Sample) -> bool:
            return is_elsewhere(sample) and int(sample.at) % 2 == 0

        return {
            "near_ms": round(self.p99_ms(self.renewing, self.is_near), 2),
            "elsewhere_ms": round(self.p99_ms(self.renewing, is_elsewhere), 2),
            "lasting_near_ms": round(self.p99_ms(self.lasting, self.is_near), 2),
            "lasting_elsewhere_ms": round(self.p99_ms(self.lasting, is_elsewhere), 2),
            "difference": round(self.difference(self.is_near, is_elsewhere), 4),
            "chance": round(self.difference(is_odd, is_even), 4),
            "near": sum(map(self.is_near, self.renewing)),
            "failed": len(failures(self.renewing + self.lasting)),
        }


def renewal_latency(lab: Lab) -> Row:
    """The median over several runs, beside the same figure for two halves of elsewhere: what chance makes of it."""
    runs, run_s = (3, 20.0) if lab.quick else (9, 50.0)
    with (
        SandboxClient.start() as sandbox,
        Issuer(LIFETIME_S, delay_s=ISSUER_TAKES_S) as issuer,
        Issuer(LASTING_S) as lasting,
        running(config_for(sandbox, issuer, workers=WORKERS), lab.place("renewing")) as first,
        running(config_for(sandbox, lasting, workers=WORKERS), lab.place("lasting")) as second,
    ):
        for proxy in (first, second):
            warm_up(proxy, WORKERS)
        found = []
        for number in range(runs):
            found.append(_one_run(first.port, second.port, sandbox, issuer, run_s).figures())
            lab.say("P3", f"run {number + 1} of {runs}: {found[-1]}")
    median = {name: statistics.median(run[name] for run in found) for name in found[0]}
    chance = statistics.median(abs(run["chance"]) for run in found)
    # Of the median of so many runs, were they normally distributed.
    error = 1.25 * statistics.stdev(run["difference"] for run in found) / len(found) ** 0.5
    return Row(
        "P3",
        f"p99 within {NEAR_S:.0f} s of a renewal that takes {ISSUER_TAKES_S:.0f} s, against elsewhere, beside a proxy "
        f"that renews nothing; medians of {runs} runs of {run_s:.0f} s, 2 x {PER_SECOND} requests/s",
        f"{median['near_ms']:.2f} ms near, {median['elsewhere_ms']:.2f} ms elsewhere; beside it at the same instants "
        f"{median['lasting_near_ms']:.2f} and {median['lasting_elsewhere_ms']:.2f} ms: {median['difference']:+.1%} "
        f"± {error:.1%} (two halves of elsewhere differ by {chance:.1%}); "
        f"{sum(run['failed'] for run in found):.0f} failed",
        "no slower by more than 5 %, give or take the standard error, which is 10 % at most",
        median["difference"] - error <= MOST
        and (lab.quick or error <= ERROR_MOST)
        and not any(run["failed"] for run in found),
        {"runs": found, "lifetime_s": LIFETIME_S},
    )


def _one_run(renewing: int, lasting: int, sandbox: SandboxClient, issuer: Issuer, seconds: float) -> _Run:
    began = time.monotonic()
    with (
        _no_pauses_of_ours(),
        Load(renewing, per_second=PER_SECOND) as one,
        Load(lasting, per_second=PER_SECOND) as two,
    ):
        while time.monotonic() < began + seconds:
            time.sleep(1)
            sandbox.reset()  # with thousands of requests in its log its garbage collector takes tenths of a second
    spans = _spans(issuer.calls)

    def is_near(sample: Sample) -> bool:
        return any(begin <= sample.at <= end for begin, end in spans)

    warm = [[sample for sample in load.samples() if sample.at > began + 1] for load in (one, two)]
    return _Run(warm[0], warm[1], is_near)


def _spans(calls: list[Call]) -> list[tuple[float, float]]:
    """From 2 s before each renewal's begin to 2 s after its end."""
    now = time.monotonic()
    return [(call.began - NEAR_S, (call.ended or now) + NEAR_S) for call in calls]


@contextmanager
def _no_pauses_of_ours() -> Iterator[None]:
    """No garbage collection in this process, whose samples are many and whose pauses would be taken for the proxy's."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
