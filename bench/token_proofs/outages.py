"""P4: an issuer that is away for 120 s, begun at every phase of a token's life by a simulated clock, and in real time;
and one that is away for longer than the token lives."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.token_proofs.issuer import Issuer, Mode
from bench.token_proofs.load import Load, Sample, failures, statuses
from bench.token_proofs.proxies import config_for, running, wait_for, warm_up, workers_of
from bench.token_proofs.rows import Lab, Row, share
from proxy.tokens.sources.base import TokenFetchError
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.simulated_outage import Failure, simulate_outage

PHASES = 300
ATTEMPTS_MOST = 20
WORKERS = 2
PER_SECOND = 20
RECOVERS_WITHIN_S = 12.0
AT_ONCE_S = 0.5  # of p99: who comes during an attempt hears how it went, from another worker after 250 ms
# As the sources report them: `connection` where none came about or it broke, the deadline of 5 s where nothing comes.
SIMULATED = (
    Failure("refuse", lambda: TokenFetchError("refused", connection=True)),
    Failure("hang", lambda: TokenFetchError("no answer within the deadline"), takes_s=5.0),
    Failure("503", lambda: TokenFetchError("status 503"), takes_s=0.1),
    Failure("429", lambda: TokenFetchError("status 429", retry_after_s=1e9), takes_s=0.1),
    Failure("tls error", lambda: TokenFetchError("certificate", connection=True), takes_s=0.01),
)
KINDS: tuple[Mode, ...] = ("refuse", "hang", "503", "429", "tls error")


@dataclass(frozen=True)
class _Times:
    """The shape of a real outage: the phase at which it begins is drawn from a span that lets it cover a renewal."""

    lifetime_s: float
    begins_s: tuple[float, float]
    lasts_s: float


def simulated(lab: Lab) -> Row:
    """300 phases of a life of 300 s for each kind, with several draws of the jitter, and with its least values."""
    draws = 1 if lab.quick else 10
    jitters = [random.Random(4).random] * draws + [lambda: 0.0]
    attempts: dict[str, int] = {}
    without_s: dict[str, float] = {}
    for failure in SIMULATED:
        outcomes = [
            simulate_outage(lifetime_s=300.0, age_s=float(phase), lasts_s=120.0, failure=failure, jitter=jitter)
            for phase in range(PHASES)
            for jitter in jitters
        ]
        attempts[failure.name] = max(outcome.attempts for outcome in outcomes)
        without_s[failure.name] = max(outcome.without_s for outcome in outcomes)
    return Row(
        "P4",
        f"outage of 120 s, simulated: {PHASES} phases, {len(SIMULATED)} kinds, {draws} draws of the jitter each "
        "and its shortest pauses",
        f"longest time without a token {max(without_s.values()):.1f} s, most attempts {max(attempts.values())}",
        f"never without a token, at most {ATTEMPTS_MOST} attempts",
        max(without_s.values()) == 0 and max(attempts.values()) <= ATTEMPTS_MOST,
        {"most_attempts": attempts, "longest_without_s": without_s},
    )


def short(lab: Lab) -> Row:
    """One proxy for each kind, side by side: an outage that the lead of 300 s tokens must ride out."""
    times = _Times(30.0, (3.0, 12.0), 11.0) if lab.quick else _Times(300.0, (30.0, 120.0), 120.0)
    with SandboxClient.start() as sandbox, ThreadPoolExecutor(len(KINDS)) as pool:
        found = dict(zip(KINDS, pool.map(lambda kind: _ride_out(lab, sandbox, kind, times), KINDS), strict=True))
    failed = sum(one["failed"] for one in found.values())
    attempts = {kind: one["attempts"] for kind, one in found.items()}
    return Row(
        "P4",
        f"outage of {times.lasts_s:.0f} s at a random phase of {times.lifetime_s:.0f} s tokens, real, "
        f"{PER_SECOND} requests/s on {WORKERS} workers for each kind",
        f"{failed} of {sum(one['requests'] for one in found.values())} requests failed; attempts: "
        + ", ".join(f"{kind} {count}" for kind, count in attempts.items()),
        f"0 failed, at most {ATTEMPTS_MOST} attempts each",
        failed == 0 and max(attempts.values()) <= ATTEMPTS_MOST and min(attempts.values()) > 0,
        {"kinds": found},
    )


def _ride_out(lab: Lab, sandbox: SandboxClient, kind: Mode, times: _Times) -> dict[str, Any]:
    folder = lab.place("outage")
    tls_folder = folder if kind == "tls error" else None
    phase_s = random.uniform(*times.begins_s)
    with Issuer(times.lifetime_s, delay_s=0.05, tls_folder=tls_folder) as issuer:
        config = config_for(sandbox, issuer, workers=WORKERS)
        if tls_folder is not None:
            config["token_sources"]["corp"]["ca_bundle"] = str(tls_folder / "good.pem")
        with running(config, folder) as proxy:
            warm_up(proxy, WORKERS)
            fetched_at = issuer.calls[0].began
            with Load(proxy.port, per_second=PER_SECOND, threads=4) as load:
                time.sleep(max(0.0, fetched_at + phase_s - time.monotonic()))
                before, logged = len(issuer.calls), _failures_logged(proxy)
                issuer.mode = kind
                time.sleep(times.lasts_s)
                # A closed port counts no calls; the proxy's log does.
                failed_calls = sum(call.outcome != "token" for call in issuer.calls[before:])
                attempts = failed_calls if kind != "refuse" else _failures_logged(proxy) - logged
                issuer.mode, tokens = "good", len(issuer.tokens())
                recovered_s = wait_for(lambda: len(issuer.tokens()) > tokens, 2 * RECOVERS_WITHIN_S, "new token")
                time.sleep(2)
            samples = load.samples()
    lab.say("P4", f"{kind}: {attempts} attempts, {len(failures(samples))} of {len(samples)} failed")
    return {
        "phase_s": round(phase_s, 1),
        "attempts": attempts,
        "failed": len(failures(samples)),
        "requests": len(samples),
        "statuses": statuses(samples),
        "recovered_after_s": round(recovered_s, 2),
        "longest_ms": round(1000 * max(sample.took_s for sample in samples), 1),
    }


def long(lab: Lab) -> Row:
    """One outage that no token bridges: clear answers at once, and back to work by itself."""
    times = _Times(10.0, (0.0, 5.0), 20.0) if lab.quick else _Times(300.0, (0.0, 150.0), 400.0)
    samples, expires_at, returned_at, is_same = _wait_out(lab, times)
    bad = failures(samples)
    refused = [sample.took_s for sample in bad if sample.status == 503 and sample.retry_after is not None]
    # The last two seconds of a life are not used: from there on no token is held.
    early = [sample for sample in bad if sample.at < expires_at - 3]
    last_bad_s = max((sample.at + sample.took_s for sample in bad), default=returned_at) - returned_at
    recovered_s = max(last_bad_s, _first_good(samples, returned_at))
    slow_s = share(refused, 0.99)
    return Row(
        "P4",
        f"outage of {times.lasts_s:.0f} s at a random phase of {times.lifetime_s:.0f} s tokens, real, {PER_SECOND} "
        f"requests/s on {WORKERS} workers",
        f"{len(refused)} of {len(bad)} failures are 503 with Retry-After (p50 {1000 * share(refused, 0.5):.1f} ms, p99 "
        f"{1000 * slow_s:.1f} ms); {len(early)} while a token was held; recovered {recovered_s:.1f} s after the return"
        + ("" if is_same else "; a worker was replaced"),
        f"all 503 with Retry-After, p99 {1000 * AT_ONCE_S:.0f} ms, none while a token is held, recovered in "
        f"{RECOVERS_WITHIN_S:.0f} s without a restart",
        len(refused) == len(bad) > 0
        and not early
        and slow_s <= AT_ONCE_S
        and recovered_s <= RECOVERS_WITHIN_S
        and is_same,
        {
            "requests": len(samples),
            "statuses": statuses(samples),
            "slowest_503_ms": round(1000 * max(refused, default=0.0), 1),
            "recovered_s": round(recovered_s, 2),
            "retry_after_values": sorted({sample.retry_after or "" for sample in bad}),
        },
    )


def _wait_out(lab: Lab, times: _Times) -> tuple[list[Sample], float, float, bool]:
    """The requests; when the last token before the outage ended, when the issuer was back; if the workers stayed."""
    phase_s = random.uniform(*times.begins_s)
    with (
        SandboxClient.start() as sandbox,
        Issuer(times.lifetime_s, delay_s=0.05) as issuer,
        running(config_for(sandbox, issuer, workers=WORKERS), lab.place("outage")) as proxy,
    ):
        warm_up(proxy, WORKERS)
        workers = workers_of(proxy)
        with Load(proxy.port, per_second=PER_SECOND, threads=4) as load:
            time.sleep(max(0.0, issuer.calls[0].began + phase_s - time.monotonic()))
            issuer.mode = "refuse"
            expires_at = issuer.tokens()[-1].began + times.lifetime_s
            time.sleep(times.lasts_s)
            issuer.mode, returned_at = "good", time.monotonic()
            time.sleep(RECOVERS_WITHIN_S + 3)
        return load.samples(), expires_at, returned_at, workers_of(proxy) == workers


def _first_good(samples: list[Sample], returned_at: float) -> float:
    """Seconds from the issuer's return to the first request that was answered; inf where there was none."""
    ends = [sample.at + sample.took_s for sample in samples if sample.status == 200 and sample.at >= returned_at]
    return min(ends, default=float("inf")) - returned_at


def _failures_logged(proxy: ProxyProcess) -> int:
    return sum("token source corp: token endpoint:" in line for line in proxy.log().splitlines())
