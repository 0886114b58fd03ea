"""The rows of a soak's table: each a rule, what was found, and whether it held."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.soaking.access_lines import AccessLog
from bench.soaking.books import CLOSED_WITHIN_S, RULES, Books
from bench.soaking.level import Level
from bench.soaking.memory import Growth, MemoryWatch
from bench.soaking.record import Register
from bench.soaking.totals import TOTALS, Totals, differences
from bench.soaking.upheavals import Upheavals
from bench.speed.figures import share
from bench.token_proofs.rows import Row

BOOKED = ("ok", "left", "upstream error", "shed", "refused", "killed")
# One process in all the time that it is watched, however long: what a worker keeps for good comes in steps of some MB,
# with the largest heap of requests so far. In the four minutes of a full run it is some 1 kB a request.
GROWS_MOST_MB = 15.0
_LOOKS_LEAST = 10
_EXAMPLES = 3


@dataclass(frozen=True)
class Found:
    """All that a soak has found."""

    register: Register
    books: Books
    log: AccessLog
    totals: Totals
    upheavals: Upheavals
    upstream: dict[str, Any]  # the sandbox's state
    leaks: list[str]
    before: Level
    after: Level
    settled_s: float
    memory: MemoryWatch
    steady_from: float  # by time.monotonic(): from there on the memory counts
    history: list[str]


def rows(found: Found, *, has_verdict: bool) -> list[Row]:
    """`has_verdict`: whether the run was long enough to judge the memory."""
    return [
        *_rules(found),
        _tokens(found),
        _secrets(found),
        _complaints(found),
        _books(found),
        _totals(found),
        _closed(found),
        _level(found),
        _memory(found, has_verdict=has_verdict),
    ]


def _rules(found: Found) -> Iterator[Row]:
    books = found.books
    for rule in RULES:
        count, examples = books.broken_count[rule], books.broken[rule]
        said = "".join(f"; {example}" for example in examples[:_EXAMPLES])
        yield Row("always true", rule, f"{count} times not{said}", "0", count == 0, {"examples": examples})


def _tokens(found: Found) -> Row:
    tokens, fetches = found.upstream["tokens"], found.upstream["fetches"]
    refused = sum(tokens.values()) - tokens["valid"]
    return Row(
        "always true",
        "no token is used past its end, or refused by the upstream",
        f"{refused} of {sum(tokens.values())} ({fetches} calls of the issuer)",
        "0",
        refused == 0 < tokens["valid"],
        {"tokens": tokens, "fetches": fetches, "counted": dict(found.totals.fetches)},
    )


def _secrets(found: Found) -> Row:
    what = "no marked secret in an answer (plain), the log, the metrics or a command line (in any form)"
    return Row("always true", what, f"{len(found.leaks)} found {found.leaks or ''}".strip(), "0", not found.leaks)


def _complaints(found: Found) -> Row:
    lines = found.log.complaints
    said = "".join(f"; {line}" for line in lines[:_EXAMPLES])
    what = "no line of the log at ERROR and no traceback, but for the killed workers"
    return Row("always true", what, f"{len(lines)}{said}", "0", not lines, {"lines": lines[:100]})


def _books(found: Found) -> Row:
    """What the driver has started is what the books have settled, and nothing of it is of another kind.

    Where there was no good answer, no reload or no killed worker, the run has shown nothing.
    """
    outcomes, started = found.books.outcomes, found.register.started
    reloads, kills = len(found.upheavals.reloads), len(found.upheavals.kills)
    never = outcomes["no request"]
    parts = " + ".join(f"{outcomes[name]} {name}" for name in BOOKED)
    booked = sum(outcomes[name] for name in BOOKED)
    return Row(
        "books",
        "the driver's: started = ok + left + upstream error + shed + refused + killed",
        f"{started - never} = {parts} (and {never} that were never a whole head); {found.books.reached} reached the "
        f"upstream; {reloads} reloads and {kills} killed workers, which had {found.books.at_killed} requests",
        "equal; each request beside its access line and the upstream's entry",
        booked == started - never
        and found.books.reached == found.upstream["requests"]
        and min(outcomes["ok"], reloads, kills) > 0,
        {
            "outcomes": dict(outcomes),
            "kinds": dict(found.books.kinds),
            "upstream": {"requests": found.upstream["requests"], "entries": found.books.reached},
            "history": found.history,
        },
    )


def _totals(found: Found) -> Row:
    kills = len(found.upheavals.kills)
    wrong = differences(found.totals, found.log, kills=kills)
    return Row(
        "books",
        TOTALS,
        f"{sum(found.totals.statuses.values())} requests and {sum(found.totals.ends.values())} streams counted, "
        f"{sum(found.log.statuses.values()) - 1} and {sum(found.log.ends.values())} lines"
        + "".join(f"; {one}" for one in wrong),
        f"equal, but for one request of each of the {kills} killed workers",
        not wrong,
        {"counted": {**found.totals.statuses, **found.totals.ends}, "lines": {**found.log.statuses, **found.log.ends}},
    )


def _closed(found: Found) -> Row:
    after_s = found.books.closed_after_s
    half, nearly_all = share(after_s, 0.5), share(after_s, 0.99)
    return Row(
        "afterwards",
        f"the upstream is closed when a caller has left ({len(after_s)} times)",
        f"half after {half:.2f} s, p99 after {nearly_all:.2f} s, the last after {max(after_s, default=0):.2f} s",
        f"p99 within {CLOSED_WITHIN_S:.0f} s",
        bool(after_s) and nearly_all <= CLOSED_WITHIN_S,
        {"late": found.books.closed_late[:100]},
    )


def _level(found: Found) -> Row:
    above = found.after.above(found.before)
    said = ", ".join(f"{name} {value}" for name, value in (above or vars(found.after)).items())
    return Row(
        "afterwards",
        "descriptors, connections, threads and requests in flight are back at what they were before the load",
        f"{'above: ' if above else ''}{said}, after {found.settled_s:.0f} s",
        "none above",
        not above,
        {"before": vars(found.before), "after": vars(found.after)},
    )


def _memory(found: Found, *, has_verdict: bool) -> Row:
    growths, processes = found.memory.growths(found.steady_from, _LOOKS_LEAST), 1 + found.before.workers
    said = f"{len(growths)} were there all the time{''.join(f'; {_describe(growth)}' for growth in growths)}"
    held = all(growth.grown + 2 * growth.error <= GROWS_MOST_MB * 1e6 for growth in growths)
    return Row(
        "afterwards",
        "memory of master and workers, by slope under the full load once the last upheaval is over",
        said if has_verdict else f"no verdict, the run was too short ({said})",
        f"{processes}, each grown by at most {GROWS_MOST_MB:g} MB, two standard errors included",
        not has_verdict or (held and len(growths) == processes),
        {
            "samples_mb": {
                pid: [round(size / 1e6, 2) for _, size in looks] for pid, looks in found.memory.samples.items()
            }
        },
    )


def _describe(growth: Growth) -> str:
    grown, error, first, last = (size / 1e6 for size in (growth.grown, growth.error, growth.first, growth.last))
    minutes = growth.seconds / 60
    return f"{grown:+.1f} MB in {minutes:.1f} min, standard error {error:.1f}, {first:.0f} MB, then {last:.0f} MB"
