"""The books of a run: each request as its caller, the access line and the upstream tell of it, which must agree.

A request is settled some time after its caller is done with it, when its line and the upstream's entry must be there;
then it is forgotten, so that a run may last for hours. What does not agree is kept in `broken`, by the rule.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from bench.soaking.access_lines import AccessLog, Line
from bench.soaking.record import Record, Register
from bench.soaking.upheavals import LINE_WITHIN_S, Upheavals

Entry: TypeAlias = dict[str, Any]  # of the sandbox's journal

BYTES = "each complete answer's bytes are those that the upstream sent"
ANSWERS = "each request is answered as it must be, or broken off with its worker; never silence"
LINES = "one access line per request"
AGREEMENT = "caller, access line and upstream tell the same of each request, and nothing is asked twice"
CLOSED_WITHIN_S = 1.0
HEALTH_WITHIN_S = 5.0  # as long as load balancers wait
HEALTH = f"/healthz always answers, within {HEALTH_WITHIN_S:.0f} s"
RULES = (BYTES, ANSWERS, LINES, AGREEMENT, HEALTH)

# Faults of the upstream after which an answer must be a good one; after the first of them its bytes are the same.
SAME_BYTES = frozenset({"delay", "no_keepalive_notice", "drip"})
HARMLESS = SAME_BYTES | {"no_done", "sse_crlf"}
_LINE_ENDS = {
    "ok": {"done"},
    "upstream error": {"error", "cut", "timeout"},
    "shed": {"error"},
    "refused": {"error"},
}
_OPERATIONS = ("/healthz", "/readyz", "/metrics", "/status")
_CLOSES_S = 1.0  # that an upstream may take to close after its answer
_KEPT_MOST = 20  # examples of one broken rule


class Books:
    """`outcomes` counts all settled requests; one that broke off with its worker is `killed`."""

    def __init__(
        self,
        register: Register,
        log: AccessLog,
        take_entries: Callable[[], list[Entry]],
        upheavals: Upheavals,
        *,
        issuer_fails: bool,
    ) -> None:
        """`take_entries`: the upstream's entries that have ended since the last time. `issuer_fails`: for so long that
        requests may go without a token."""
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.reached = 0  # the upstream
        self.at_killed = 0  # requests that a killed worker had
        self.closed_after_s: list[float] = []  # the upstream, after a caller left
        self.closed_late: list[str] = []  # those of it that were
        self.broken: dict[str, list[str]] = {rule: [] for rule in RULES}
        self.broken_count: Counter[str] = Counter()
        self._register = register
        self._log = log
        self._take_entries = take_entries
        self._upheavals = upheavals
        self._issuer_fails = issuer_fails
        self._closed_unsaid: list[float] = []  # by time.time(): when the upstream closed a kept connection
        self._pending: deque[Record] = deque()
        self._lines: defaultdict[str, list[Line]] = defaultdict(list)
        self._entries: defaultdict[str, list[Entry]] = defaultdict(list)

    def turn(self, *, is_last: bool = False) -> None:
        """Take in what is new, and settle what is due; all of it at the last time."""
        # In this order: what belongs to a record is there before it.
        self._pending.extend(self._register.take_ended())
        for line in self._log.take_new():
            self._take_line(line)
        for entry in self._take_entries():
            if entry["kind"] == "upstream":
                self.reached += 1
                self._entries[str(entry["model"])].append(entry)
                self._closed_unsaid += [entry["ended_at"]] * ("no_keepalive_notice" in entry["faults"])
        due = time.monotonic() - LINE_WITHIN_S
        while self._pending and (is_last or self._pending[0].ended < due):
            record = self._pending.popleft()
            self._settle(record, self._lines.pop(record.identity, []), self._entries.pop(record.identity, []))
        if is_last:
            self._check_strangers()

    def _take_line(self, line: Line) -> None:
        if line.identity.startswith(self._register.prefix):
            self._lines[line.identity].append(line)
        elif line.method != "-" and not line.route.endswith(_OPERATIONS):
            self._break(LINES, f"a request of nobody's on {line.route}: {line.status}")

    def _check_strangers(self) -> None:
        for identity, lines in self._lines.items():
            self._break(LINES, f"{identity}: {len(lines)} lines more than it may have")
        for identity, entries in self._entries.items():
            self._break(AGREEMENT, f"{identity}: reached the upstream {len(entries)} times more than it may have")

    def _settle(self, record: Record, lines: list[Line], entries: list[Entry]) -> None:
        was_killed = self._upheavals.was_killed(record)
        # A stream that has begun when the time of its worker is over gets the error event: it does not break off.
        ended_with_worker = was_killed or (self._was_drained(record) and not record.status)
        if record.outcome == "broken" and ended_with_worker:
            self.outcomes["killed"] += 1
        else:
            self.outcomes[record.outcome] += 1
        self.kinds[record.kind] += 1
        self.at_killed += was_killed
        for rule, fault in (
            *self._faults_of_answer(record, ended_with_worker),
            *_faults_of_lines(record, lines, was_killed),
            *self._faults_of_entries(record, entries),
        ):
            said = [f"{line.status} {line.outcome} after {line.duration_ms} ms {line.cause}" for line in lines]
            self._break(rule, f"{_describe(record)}: {fault}; {said}")
        if record.left_at is not None:
            self._note_closing(record, record.left_at, entries)

    def _note_closing(self, record: Record, left_at: float, entries: Sequence[Entry]) -> None:
        """A request that waited to be read may reach the upstream after its caller has left: from then on it counts."""
        for entry in entries:
            after_s = entry["ended_at"] - max(left_at, entry["at"])
            self.closed_after_s.append(after_s)
            if after_s > CLOSED_WITHIN_S:
                waited_s = max(0.0, entry["at"] - left_at)
                self.closed_late.append(
                    f"{record.identity} ({record.kind}) after {after_s:.2f} s, waited {waited_s:.2f} s"
                )

    def _faults_of_answer(self, record: Record, ended_with_worker: bool) -> list[tuple[str, str]]:
        rule = HEALTH if record.kind == "health" else ANSWERS
        if record.fault:
            return [(rule, record.fault)]
        if record.outcome == "silent" or (record.outcome == "broken" and not ended_with_worker):
            return [(rule, f"after {record.ended - record.began:.1f} s, {record.body_bytes} bytes")]
        if record.kind == "health" and record.outcome not in ("ok", "broken", "left"):
            return [(rule, "not well")]
        if record.kind == "health" and record.ended - record.began > HEALTH_WITHIN_S:
            return [(rule, f"after {record.ended - record.began:.1f} s")]
        return []

    def _faults_of_entries(self, record: Record, entries: Sequence[Entry]) -> list[tuple[str, str]]:
        refused = [entry for entry in entries if entry["token"] != "valid" or "refuse_token" in entry["faults"]]
        if len(entries) - len(refused) > 1 or len(entries) > 2:
            return [(AGREEMENT, f"asked the upstream {len(entries)} times")]
        if record.outcome in ("shed", "refused", "no request") or record.kind == "health":
            return [(AGREEMENT, "reached the upstream")] if entries else []
        if record.outcome == "ok":
            return _faults_of_good_one(record, entries)
        if record.outcome == "upstream error" and not self._has_cause(record, entries):
            return [(AGREEMENT, f"an error without a cause: {[entry['end'] for entry in entries]}")]
        return []

    def _has_cause(self, record: Record, entries: Sequence[Entry]) -> bool:
        return (
            any(not HARMLESS.issuperset(entry["faults"]) or entry["token"] != "valid" for entry in entries)
            or (not entries and (self._issuer_fails or self._met_closed(record)))
            or self._was_drained(record)
        )

    def _met_closed(self, record: Record) -> bool:
        """Whether it may have been sent while the upstream closed the connection: nobody knows who read it then."""
        clock = time.time() - time.monotonic()
        return any(record.began - _CLOSES_S <= at - clock <= record.ended for at in self._closed_unsaid)

    def _was_drained(self, record: Record) -> bool:
        return self._upheavals.was_drained(record, self._log.drained)

    def _break(self, rule: str, what: str) -> None:
        self.broken_count[rule] += 1
        if len(self.broken[rule]) < _KEPT_MOST:
            self.broken[rule].append(what)


def _describe(record: Record) -> str:
    """With the time of its end, by which its neighbours in the log are found."""
    end = datetime.fromtimestamp(record.ended - time.monotonic() + time.time())
    took_s = record.ended - record.began
    return f"{record.identity} ({record.kind}, {record.outcome}, {record.status}, {end:%H:%M:%S.%f}, {took_s:.2f} s)"


def _faults_of_lines(record: Record, lines: Sequence[Line], was_killed: bool) -> list[tuple[str, str]]:
    least = 0 if was_killed else record.lines_least
    most = 0 if record.outcome == "no request" else 1
    if not least <= len(lines) <= most:
        return [(LINES, f"{len(lines)} lines")]
    ends = _LINE_ENDS.get(record.outcome)
    if not lines or ends is None:
        return []
    line = lines[0]
    said, seen = (line.status, line.body_bytes), (record.status, record.body_bytes)
    if said != seen or line.outcome not in ends:
        return [(AGREEMENT, f"the line says {line.outcome} {said}, the caller saw {seen}")]
    return []


def _faults_of_good_one(record: Record, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    if not entries:
        return [(AGREEMENT, "the upstream knows nothing of it")]
    last, faults = entries[-1], set(entries[-1]["faults"])
    if last["end"] != "done" or last["status"] != 200 or not faults <= HARMLESS:
        return [(AGREEMENT, f"good, though the upstream's ended so: {last['end']}, {last['faults']}")]
    if faults <= SAME_BYTES and last["answer_sha256"] != record.sha256:
        return [(BYTES, f"{record.body_bytes} bytes came")]
    return []
