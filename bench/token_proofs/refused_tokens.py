"""P6 and P7: an upstream that refuses a token before its time, once or for ever."""

import json
import time
from collections import Counter

from bench.token_proofs.issuer import Issuer
from bench.token_proofs.load import Load, failures, statuses
from bench.token_proofs.proxies import config_for, running, warm_up
from bench.token_proofs.rows import Lab, Row
from tests.support.sandbox_client import SandboxClient

WORKERS = 2
REVOKED_PER_SECOND = 200
REFUSED_PER_SECOND = 50
FORCED_MOST = 3
MINUTE_S = 60.0


def revoked(lab: Lab) -> Row:
    """The upstream drops the token under load; more than once, far enough apart for the budget of forced fetches."""
    times, apart_s = (1, 6.0) if lab.quick else (3, 25.0)
    with SandboxClient.start() as sandbox, Issuer(300.0, delay_s=0.5) as issuer:
        with running(config_for(sandbox, issuer, workers=WORKERS), lab.place("revoked")) as proxy:
            warm_up(proxy, WORKERS)
            fetches = []
            with Load(proxy.port, per_second=REVOKED_PER_SECOND, threads=48) as load:
                time.sleep(3)
                for _ in range(times):
                    before = len(issuer.calls)
                    sandbox.revoke()
                    time.sleep(apart_s)
                    fetches.append(len(issuer.calls) - before)
            samples = load.samples()
        refused = sandbox.state()["tokens"]["revoked"]
    longest_ms = 1000 * max(sample.took_s for sample in samples)
    return Row(
        "P6",
        f"token revoked {times} times under {REVOKED_PER_SECOND} requests/s, issuer takes 0.5 s, {WORKERS} workers",
        f"{len(failures(samples))} of {len(samples)} requests failed; fetches for each: "
        f"{', '.join(map(str, fetches))} ({refused} refusals replayed, longest request {longest_ms:.0f} ms)",
        "0 errors, 1 fetch each",
        not failures(samples) and fetches == [1] * times and refused >= times,
        {"fetches": fetches, "refused": refused, "statuses": statuses(samples), "longest_ms": round(longest_ms, 1)},
    )


def always_refused(lab: Lab) -> Row:
    """The upstream answers 401 whatever it gets."""
    lasts_s = 20.0 if lab.quick else 150.0
    with SandboxClient.start() as sandbox, Issuer(300.0, delay_s=0.2) as issuer:
        with running(config_for(sandbox, issuer, workers=WORKERS), lab.place("refused")) as proxy:
            warm_up(proxy, WORKERS)
            sandbox.reset()
            sandbox.faults(upstream=[{"kind": "refuse_token"}])
            began, before = time.monotonic(), len(issuer.calls)
            with Load(proxy.port, per_second=REFUSED_PER_SECOND, threads=16) as load:
                time.sleep(lasts_s)
            samples = load.samples()
        forced = [call.began - began for call in issuer.calls[before:]]
        sent = Counter(json.loads(entry["body"])["user"] for entry in sandbox.log())
    first_minute = [at for at in forced if at < MINUTE_S]
    most_sent, replays = max(sent.values()), sum(sent.values()) - len(sent)
    seen = statuses(samples)
    return Row(
        "P7",
        f"an upstream that always answers 401, {REFUSED_PER_SECOND} requests/s for {lasts_s:.0f} s, {WORKERS} workers",
        f"{len(first_minute)} forced fetches in the first minute ({len(forced)} in all), at most {most_sent - 1} "
        f"replay per request ({replays} for {len(sent)} requests); callers saw {seen}",
        f"at most {FORCED_MOST} forced fetches, at most 1 replay; callers see 502 alone",
        0 < len(first_minute) <= FORCED_MOST and most_sent <= 2 and set(seen) == {"502"},
        {"forced_at_s": [round(at, 1) for at in forced], "replays": replays, "requests": len(sent), "statuses": seen},
    )
