"""P5: many processes and threads that ask at once while nobody has a token, with a slow issuer and with a dead one."""

from itertools import pairwise

from bench.token_proofs.holder_processes import run
from bench.token_proofs.issuer import Issuer
from bench.token_proofs.proxies import config_for
from bench.token_proofs.rows import Lab, Row
from tests.support.sandbox_client import SandboxClient

PROCESSES, THREADS = 16, 32
ISSUER_TAKES_S = 2.0
SERVED_WITHIN_S = 2.5
DEAD_TAKES_S = 0.3
TOGETHER_S = 0.5  # from one process to the others: the record is looked at every 250 ms
STEPS_S = (0.5, 1.0, 2.0, 4.0, 5.0)


def slow_issuer(lab: Lab) -> Row:
    with SandboxClient.start() as sandbox, Issuer(300.0, delay_s=ISSUER_TAKES_S) as issuer:
        config = config_for(sandbox, issuer)
        found = run("cold", config, lab.place("cold"), processes=PROCESSES, threads=THREADS, amount=0)
        calls = len(issuer.calls)
    began = min(one["began"] for one in found)
    firsts = [tuple(first) for one in found for first in one["first"]]
    served = sum(good for _, good in firsts)
    last_s = max(ended for ended, _ in firsts) - began
    return Row(
        "P5",
        f"{PROCESSES} processes x {THREADS} threads cold, issuer takes {ISSUER_TAKES_S:.0f} s",
        f"{calls} fetch, {served} of {len(firsts)} served, the last after {last_s:.2f} s",
        f"1 fetch, all served within {SERVED_WITHIN_S} s",
        calls == 1 and served == len(firsts) == PROCESSES * THREADS and last_s <= SERVED_WITHIN_S,
        {"fetches": calls, "served": served, "last_s": round(last_s, 3)},
    )


def dead_issuer(lab: Lab) -> Row:
    seconds = 8.0 if lab.quick else 30.0
    with SandboxClient.start() as sandbox, Issuer(300.0, delay_s=DEAD_TAKES_S) as issuer:
        issuer.mode = "503"
        config = config_for(sandbox, issuer)
        found = run("cold", config, lab.place("cold"), processes=PROCESSES, threads=THREADS, amount=seconds)
        calls = list(issuer.calls)
    ends = sorted(ended for one in found for ended, _ in one["first"])
    pauses = [later.began - earlier.ended for earlier, later in pairwise(calls)]
    steps = [STEPS_S[min(number, len(STEPS_S) - 1)] for number in range(len(pauses))]
    is_one_a_step = all(pause >= step - 0.05 for pause, step in zip(pauses, steps, strict=True))
    good = sum(good for one in found for _, good in one["first"])
    return Row(
        "P5",
        f"{PROCESSES} processes x {THREADS} threads cold, dead issuer, {seconds:.0f} s",
        f"{len(calls)} calls, {min(map(float, pauses)):.2f} to {max(pauses):.2f} s apart, for "
        f"{sum(one['calls'] for one in found)} asked; the first {len(ends)} failed within {ends[-1] - ends[0]:.2f} s",
        f"1 call a step (0.5, 1, 2, 4, 5 s); all fail within {TOGETHER_S} s of each other",
        is_one_a_step and good == 0 and ends[-1] - ends[0] <= TOGETHER_S,
        {
            "calls": len(calls),
            "pauses_s": [round(pause, 2) for pause in pauses],
            "asked": sum(one["calls"] for one in found),
            "slowest_call_s": round(max(one["slowest_s"] for one in found), 2),
            "first_failure_spread_s": round(ends[-1] - ends[0], 3),
        },
    )
