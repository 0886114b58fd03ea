"""What must be true after every fault and attack: `always_true` stands around a test's acts and checks it at their end.

Each request has one final log line; connections and descriptors return to the count before; no secret shows in an
answer, the log, the metrics or a command line, in whatever form; /healthz goes on answering; and every request is
answered or broken off, never met with silence.

    with always_true(proxy, sandbox) as watch:
        assert watch.chat().status_code == 502

Requests that are sent in another way take `watch.request_id()` into their `X-Request-Id` and hand what came back to
`watch.saw()`. Where several run at once, or workers are killed, the arguments say so.
"""

import http.client
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import httpx

from tests.support.health_poll import HealthPoll
from tests.support.process_facts import arguments_of, descriptors_of_all, processes_of, workers_of
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.secret_traces import found_in

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
SILENT_AFTER_S = 30.0
# The token's thread, the event loop and the like, each made when it is first needed.
MADE_ON_FIRST_USE = 10
_FACTS = ("status=", "outcome=", "bytes=", "duration_ms=")


class Watch:
    """What a test's acts have sent and seen so far; its requests have ids of their own."""

    def __init__(self, proxy: ProxyProcess, secrets: Iterable[str]) -> None:
        self.ids: list[str] = []
        self.lost: set[str] = set()
        self.answers: list[bytes] = []
        self.silent: list[str] = []
        self.secrets = {"sandbox-secret", *secrets}
        self._url = proxy.url
        # Without verification: making a TLS context takes longer than most tests here.
        self._client = httpx.Client(verify=False, trust_env=False, timeout=SILENT_AFTER_S)

    def request_id(self, *, may_be_lost: bool = False) -> str:
        """A new id, whose request must have one final line; none at most where its worker is to be killed."""
        self.ids.append(uuid4().hex)
        if may_be_lost:
            self.lost.add(self.ids[-1])
        return self.ids[-1]

    def saw(self, answer: bytes) -> bytes:
        """Keep what came back, for the search of secrets; the same again."""
        self.answers.append(answer)
        return answer

    def ask(self, path: str = CHAT, *, method: str = "POST", key: str | None = None, **request: Any) -> httpx.Response:
        """A request on a connection of its own. Raises httpx.TransportError where it is broken off."""
        fields = {"X-Request-Id": self.request_id(), "Connection": "close", **request.pop("headers", {})}
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        try:
            answer = self._client.request(method, self._url + path, headers=fields, **request)
        except httpx.TimeoutException:
            self.silent.append(f"{method} {path}")
            raise
        self.saw(str(answer.headers.raw).encode() + answer.content)
        return answer

    def chat(self, *, key: str | None = None, **members: Any) -> httpx.Response:
        """A chat completion; `members` of its body, such as stream=True."""
        return self.ask(key=key, json={**BODY, **members})

    def close(self) -> None:
        self._client.close()


@contextmanager
def always_true(
    proxy: ProxyProcess,
    sandbox: SandboxClient | None = None,
    *,
    secrets: Iterable[str] = (),
    kept: int = 1,
    breaks: bool = False,
    ends: bool = False,
    within_s: float = 5.0,
) -> Iterator[Watch]:
    """Check the whole list at the end of the block; an AssertionError names what does not hold.

    `secrets`: marked ones to look for, besides the sandbox's secret and the tokens that came to `sandbox`. `kept`: how
    many more idle connections each worker may keep to its upstreams, as many as requests ran at once. `breaks`: the
    block kills workers, so that a look at /healthz may break. `ends`: it ends the proxy. `within_s`: to come to rest.
    """
    # The log first: a request between the two has a line more than it counts, which is no fault below.
    logged = proxy.logged_bytes()
    counted = _counted(_page_at_rest(proxy, lambda running: running <= 1, within_s, "requests from before still run"))
    watch, before, workers = Watch(proxy, secrets), _descriptors(proxy), len(workers_of(proxy))
    arguments = arguments_of(processes_of(proxy.process.pid))
    try:
        with HealthPoll(proxy.port) as poll:
            yield watch
            arguments += arguments_of(processes_of(proxy.process.pid))
        page = ""
        if ends:
            _await(lambda: not processes_of(proxy.process.pid), within_s, "processes are left")
        else:
            _await(lambda: len(workers_of(proxy)) == workers, within_s, "not as many workers as before")
            _page_at_rest(proxy, lambda running: running == 1, within_s, "requests still run")
            assert poll.once() == "ok", "/healthz does not answer"
            _check_returned(lambda: _descriptors(proxy), before, kept, within_s)
            page = _page(proxy)
        if sandbox is not None:
            sandbox.wait_until(lambda state: state["open"] == 0, within_s)
            watch.secrets |= _tokens(sandbox)
        _check_health(poll.outcomes, broken_allowed=breaks or ends)
        _check_lines(watch, proxy.access_lines(logged))
        if not ends:
            new = _counted(page) - counted
            _await(lambda: new <= len(proxy.access_lines(logged)), within_s, "counts without a line")
        assert watch.silent == []
        log, answers = proxy.log(logged).encode(), b"\n".join(watch.answers)
        places = {"log": log, "answers": answers, "metrics": page.encode(), "argv": arguments}
        shown = {place: found for place, text in places.items() if (found := found_in(text, watch.secrets))}
        assert shown == {}, "secrets are shown"
    finally:
        watch.close()


def _check_returned(
    now: Callable[[], dict[str, Counter[str]]], before: dict[str, Counter[str]], kept: int, within_s: float
) -> None:
    """Workers that are new count against what the fullest of the old ones had."""
    idle = Counter[str]()
    for found in (each for name, each in before.items() if name != "master"):
        idle |= found

    def too_many() -> list[str]:
        return [
            f"{name}: {dict(found)}, before {dict(idle if name != 'master' else before['master'])}"
            for name, found in now().items()
            if found["caller"] > idle["caller"]  # a client of another test may keep one
            or found["outgoing"] > idle["outgoing"] + kept
            or found["other"] > (before["master"] if name == "master" else idle)["other"] + MADE_ON_FIRST_USE
        ]

    _await(lambda: not too_many(), within_s, "descriptors did not return", too_many)


def _check_health(outcomes: Counter[str], *, broken_allowed: bool) -> None:
    allowed = {"ok", "broken"} if broken_allowed else {"ok"}
    assert set(outcomes) <= allowed, f"/healthz: {dict(outcomes)}"


def _check_lines(watch: Watch, lines: list[str]) -> None:
    """Each request of the test has one line, no request has two, and each line tells how it ended."""
    by_id = Counter(_id_of(line) for line in lines)
    assert {name: count for name, count in by_id.items() if count > 1} == {}, "requests with several final lines"
    assert [name for name in watch.ids if name not in by_id and name not in watch.lost] == [], "no final line"
    assert [line for line in lines if not all(fact in line for fact in _FACTS)] == [], "lines that do not tell all"


def _id_of(line: str) -> str:
    match = re.search(r"\brequest_id=(\S+)", line)
    assert match, line
    return match[1]


def _descriptors(proxy: ProxyProcess) -> dict[str, Counter[str]]:
    """Of the master and of each worker."""
    master = proxy.process.pid
    found = descriptors_of_all([master, *workers_of(proxy)], proxy.port)
    return {"master" if pid == master else str(pid): each for pid, each in found.items()}


def _tokens(sandbox: SandboxClient) -> set[str]:
    """The tokens that came to the sandbox's upstream."""
    values = [value for entry in sandbox.log() for name, value in entry["headers"] if name.lower() == "authorization"]
    return {value.partition(" ")[2] for value in values if value.startswith("Bearer sbx_")}


def _page_at_rest(proxy: ProxyProcess, holds: Callable[[float], bool], within_s: float, otherwise: str) -> str:
    """The metrics once so many requests run, with the one that asks."""
    pages = [""]

    def is_at_rest() -> bool:
        pages[0] = _page(proxy)
        return holds(_total(pages[0], "llm_proxy_in_flight"))

    _await(is_at_rest, within_s, otherwise)
    return pages[0]


def _page(proxy: ProxyProcess) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
        connection.request("GET", "/metrics", headers={"Connection": "close"})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


def _counted(page: str) -> float:
    return _total(page, "llm_proxy_requests_total")


def _total(page: str, name: str) -> float:
    """Of all samples of that name; a whole parser takes longer than most tests here."""
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if re.match(rf"{name}[{{ ]", line))


def _await(
    holds: Callable[[], bool], within_s: float, otherwise: str, details: Callable[[], object] | None = None
) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"{otherwise}{'' if details is None else f': {details()}'}"
        time.sleep(0.02)
