"""P2: that no token reaches an upstream after its end, over a million draws and a hundred thousand HTTP requests.

A million requests over HTTP would take a quarter of an hour on two cores, so the million is drawn from holders in
processes of their own and checked as the upstream checks, and the HTTP requests are counted by the upstream itself.
Tokens are short and the issuer is often away, so that renewals, expiries and recoveries come by the hundred.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bench.token_proofs.holder_processes import ON_THE_WAY_S, run
from bench.token_proofs.issuer import Issuer, Mode
from bench.token_proofs.load import Load, failures, statuses
from bench.token_proofs.proxies import config_for, running, warm_up
from bench.token_proofs.rows import Lab, Row
from tests.support.sandbox_client import SandboxClient

DRAW_LIFETIME_S = 3.0
HTTP_LIFETIME_S = 8.0
PROCESSES, THREADS = 2, 8
WORKERS = 2
# Not the 429 whose Retry-After is obeyed for a minute: then most requests would have no token to look at.
KINDS: tuple[Mode, ...] = ("refuse", "hang", "503")


def drawn(lab: Lab) -> Row:
    """A million tokens from holders that share one file store."""
    calls = 100_000 if lab.quick else 1_000_000
    with SandboxClient.start() as sandbox, Issuer(DRAW_LIFETIME_S, delay_s=0.1) as issuer, _troubles(issuer) as counts:
        config = config_for(sandbox, issuer)
        folder = lab.place("draws")
        found = run("draw", config, folder, processes=PROCESSES, threads=THREADS, amount=calls / PROCESSES)
        fetches = len(issuer.tokens())
    states = sum((Counter(one) for one in found), Counter[str]())
    turned_away, stalled = states.pop("turned away", 0), states.pop("stalled", 0)
    return Row(
        "P2",
        f"tokens of {DRAW_LIFETIME_S:.0f} s drawn from holders and checked against the real clock "
        f"{1000 * ON_THE_WAY_S:.0f} ms later (no HTTP); "
        f"{fetches} renewals, {counts['outages']} outages",
        f"{states['expired']} expired of {sum(states.values())} ({turned_away} calls turned away without a token; "
        f"{stalled} more were checked late, as the machine stood still)",
        "0 expired",
        states["valid"] == sum(states.values()) >= 0.98 * calls,
        {
            "states": dict(states),
            "turned_away": turned_away,
            "stalled": stalled,
            "fetches": fetches,
            "outages": dict(counts),
        },
    )


def over_http(lab: Lab) -> Row:
    """A hundred thousand requests through real workers, their tokens counted by the sandbox's upstream."""
    requests = 5_000 if lab.quick else 100_000
    with SandboxClient.start() as sandbox, Issuer(HTTP_LIFETIME_S, delay_s=0.2) as issuer:
        with running(config_for(sandbox, issuer, workers=WORKERS), lab.place("http")) as proxy:
            warm_up(proxy, WORKERS)
            with _troubles(issuer) as counts, Load(proxy.port, per_second=5_000, threads=16) as load:
                while (sent := sandbox.state()["requests"]) < requests:
                    lab.say("P2", f"{sent} of {requests} requests")
                    time.sleep(5)
            samples = load.samples()
        tokens, fetches = sandbox.state()["tokens"], len(issuer.tokens())
    bad = failures(samples)
    odd = [sample for sample in bad if sample.status != 503]
    return Row(
        "P2",
        f"HTTP requests with tokens of {HTTP_LIFETIME_S:.0f} s, counted by the upstream; {fetches} renewals, "
        f"{counts['outages']} outages",
        f"{tokens['expired']} expired of {sum(tokens.values())} "
        f"({len(bad) - len(odd)} answered 503 without a token, {len(odd)} otherwise)",
        "0 expired",
        tokens["valid"] == sum(tokens.values()) >= requests and not odd,
        {"tokens": tokens, "statuses": statuses(samples), "fetches": fetches, "outages": dict(counts)},
    )


@contextmanager
def _troubles(issuer: Issuer) -> Iterator[Counter[str]]:
    """Outages of several kinds, most of which a token bridges and some not, until the block is left."""
    counts: Counter[str] = Counter()
    over = threading.Event()
    dice = random.Random(2)

    def trouble() -> None:
        while not over.wait(dice.uniform(2, 8)):
            issuer.mode = dice.choice(KINDS)
            counts[issuer.mode] += 1
            counts["outages"] += 1
            over.wait(dice.choice([0.5, 1.0, 2.0, 4.0]))
            issuer.mode = "good"

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()
