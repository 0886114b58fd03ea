"""What an operator is shown of a worker; the holders are moved by hand, so no thread runs beside."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from proxy.auth import Caller
from proxy.blueprints.status import UpstreamFacts, WorkerStatus, status_blueprint
from proxy.lean_flask import LeanFlask
from proxy.limits import Slots
from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock
from tests.support.token_source import FakeSource

MARK = "s3cret-mark"
LLM = UpstreamFacts("llm", "llm.example.com:8443", {"gpt-4o": "deploy-7", "*": "*"}, "corp")
OPEN = UpstreamFacts("open", "127.0.0.1:8000", {"qwen*": "*"}, None)
DENIED = TokenFetchError(f"status 401 {MARK}", refused=True)
SILENT = TokenFetchError(f"no answer {MARK}")


class StillHolder(TokenHolder):
    """Moved by the test alone."""

    def start(self) -> None:
        """No thread."""


class Worker:
    """One worker's status, its routes, and what moves it."""

    def __init__(self, source: FakeSource, *upstreams: UpstreamFacts) -> None:
        self.clock = Clock()
        self.holder = StillHolder("corp", source, MemoryStore(), clock=self.clock, jitter=lambda: 0.5)
        self.slots = Slots(40)
        self.is_ending = False
        self.status = WorkerStatus(
            {"corp": self.holder},
            upstreams or (LLM, OPEN),
            self.slots,
            requests_most=40,
            is_ending=lambda: self.is_ending,
        )
        self.app: Flask = LeanFlask("proxy")
        self.app.after_request_funcs[None] = []
        self.app.register_blueprint(status_blueprint(self.status))

    def page(self, query: str = "") -> Any:
        return self.app.test_client().get("/" + query)

    def text(self) -> str:
        """What a reader of the page sees, its spaces as one."""
        body = self.page().get_data(as_text=True)
        return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", body, flags=re.DOTALL).split())

    def source(self) -> dict[str, Any]:
        return dict(self.app.test_client().get("/status").get_json()["token_sources"]["corp"])


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make_worker(*answers: Any, upstreams: tuple[UpstreamFacts, ...] = ()) -> Worker:
        workers.append(Worker(FakeSource(*answers), *upstreams))
        return workers[-1]

    yield make_worker
    for worker in workers:
        worker.holder.close()


GRANT = Grant(MARK, 300.0)


@pytest.mark.parametrize(
    ("age_s", "state", "left_s", "words"),
    [
        pytest.param(0, "fresh", 300, "fresh in 300 s no failure since the last good one", id="fresh"),
        pytest.param(140, "stale", 160, "stale: usable, its renewal is due in 160 s", id="stale"),
        pytest.param(299, "expired", 1, "expired: requests wait or fail in 1 s", id="expired"),
        pytest.param(420, "expired", -120, "expired: requests wait or fail 120 s ago", id="long expired"),
    ],
)
def test_both_tell_a_tokens_state_and_expiry(
    make_worker: Callable[..., Worker], age_s: float, state: str, left_s: int, words: str
) -> None:
    worker = make_worker(GRANT)
    worker.holder.renew_if_due()
    worker.clock.move(age_s)
    assert worker.source() == {"used": True, "state": state, "seconds_to_expiry": left_s, "failures": None}
    assert words in worker.text()


def test_token_that_never_ends_has_no_seconds(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(Grant(MARK, float("inf")))
    worker.holder.renew_if_due()
    assert worker.source()["seconds_to_expiry"] is None
    assert "corp fresh never" in worker.text()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [(SILENT, "failed", "failing"), (DENIED, "refused", "the credentials are refused")],
    ids=["failed", "refused"],
)
def test_both_tell_the_kind_of_a_failure_and_not_its_text(
    make_worker: Callable[..., Worker], error: TokenFetchError, kind: str, words: str
) -> None:
    worker = make_worker(error)
    worker.holder.renew_if_due()
    failures = worker.source()["failures"]
    assert (failures["count"], failures["kind"], failures["next_try_s"] > 0) == (1, kind, True)
    assert f"none held - {words} 1 failed since the last good one; next try in" in worker.text()
    worker.clock.move(1000)
    assert worker.source()["failures"]["next_try_s"] == 0
    assert "next try now" in worker.text()
    worker.holder.renew_if_due()
    assert worker.source()["failures"] is None


def test_page_holds_no_token_and_no_text_of_an_error(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(GRANT, DENIED)
    worker.holder.renew_if_due()
    worker.clock.move(250)
    worker.holder.renew_if_due()
    assert worker.source()["failures"]["count"] == 1
    assert MARK not in worker.page().get_data(as_text=True)
    assert MARK not in worker.app.test_client().get("/status").get_data(as_text=True)


def test_worker_is_not_ready_without_a_token_and_ready_with_one(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(GRANT)
    assert worker.status.not_ready() == "no usable credential from: corp"
    assert "LLM proxy not ready no usable credential from: corp" in worker.text()
    worker.holder.renew_if_due()
    assert worker.status.not_ready() is None
    assert "LLM proxy ready What one worker sees" in worker.text()
    worker.is_ending = True
    assert worker.status.not_ready() == "shutting down"


def test_source_that_no_upstream_uses_keeps_nobody_from_being_ready(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(upstreams=(OPEN,))
    assert worker.status.facts()["ready"] is True
    assert "corp none held: no upstream uses it -" in worker.text()


def test_both_tell_upstreams_with_their_models_and_running_requests(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(GRANT)
    worker.slots.take(Caller("a"))
    facts = worker.app.test_client().get("/status").get_json()
    assert facts["upstreams"]["llm"] == {
        "host": "llm.example.com:8443",
        "models": {"gpt-4o": "deploy-7", "*": "*"},
        "token_source": "corp",
    }
    assert (facts["requests_running"], facts["requests_most"]) == (1, 40)
    text = worker.text()
    assert "llm llm.example.com:8443 gpt-4o → deploy-7 * corp" in text
    assert "open 127.0.0.1:8000 qwen* none" in text
    assert "1 of at most 40 run now" in text


def test_names_of_the_config_are_text_and_no_markup(make_worker: Callable[..., Worker]) -> None:
    odd = UpstreamFacts('"><script>x', "host", {"<b>&": "*"}, None)
    body = make_worker(upstreams=(odd,)).page().get_data(as_text=True)
    assert "&lt;script&gt;x" in body
    assert "&lt;b&gt;&amp;" in body
    assert "<script" not in body


def test_page_is_kept_by_nobody_and_loads_nothing(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    answers = [worker.page(), worker.page()]
    for answer in answers:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policies = [answer.headers["Content-Security-Policy"] for answer in answers]
    nonces = [re.findall(r"style-src 'nonce-([^']+)'", policy)[0] for policy in policies]
    assert len(set(nonces)) == 2
    assert f'<style nonce="{nonces[0]}">' in answers[0].get_data(as_text=True)
    assert policies[0].startswith("default-src 'none'; ")
    assert not re.search(r"unsafe|\*|https?:", policies[0])


def test_page_is_renewed_by_itself_until_the_reader_stops_that(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    assert '<meta http-equiv="refresh" content="5">' in worker.page().get_data(as_text=True)
    assert 'http-equiv="refresh"' not in worker.page("?refresh=off").get_data(as_text=True)
