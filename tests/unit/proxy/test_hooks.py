"""Around a request: what of it is counted and written, once, however it ends."""

import gc
import hashlib
from collections import Counter
from collections.abc import Callable

import pytest
from flask import Response, jsonify
from gevent import GreenletExit
from werkzeug.test import EnvironBuilder

from proxy.auth import Caller, ClientKeys
from proxy.errors import CallerGone, UpstreamTimeout, UpstreamUnavailable
from proxy.lean_flask import LeanResponse
from proxy.observability.request_log import RequestLog
from proxy.relay import BROKE_OFF, PieceRelay, StreamRelay
from proxy.request_state import current
from proxy.sse import DONE
from tests.support.hooked_app import PREFIXES, FakeBody, HookedApp

FRAME = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
COUNTS = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}\n\n'


def stream_of(*reads: bytes | BaseException) -> tuple[FakeBody, Callable[[], Response]]:
    body = FakeBody(*reads)
    return body, lambda: LeanResponse(StreamRelay(body, keepalive_s=4), headers=[("Content-Type", "text/event-stream")])


def pieces_of(*reads: bytes | BaseException) -> tuple[FakeBody, Callable[[], Response]]:
    body = FakeBody(*reads)
    return body, lambda: LeanResponse(PieceRelay(body), headers=[("Content-Type", "audio/mpeg")])


def fail(error: BaseException) -> Response:
    raise error


def fail_at_end(error: Exception) -> None:
    raise error


def test_request_that_finds_no_slot_costs_no_rate() -> None:
    caller = Caller("a", requests_per_minute=1, max_concurrent=1)
    keys = ClientKeys([(hashlib.sha256(b"key").hexdigest(), caller)])
    app = HookedApp(lambda: jsonify({}), keys=keys)
    app.slots.take(caller)
    statuses = [app.call(headers={"Authorization": "Bearer key"}).status[:3]]
    app.slots.give_back(caller)
    statuses += [app.call(headers={"Authorization": "Bearer key"}).status[:3] for _ in range(2)]
    assert statuses == ["429", "200", "429"]
    assert app.slots.running == 0


# However it ends, once


def test_whole_answer_is_written_and_counted_when_it_is_closed() -> None:
    app = HookedApp(lambda: jsonify({"a": 1}))
    begun = app.call()
    line = app.line()
    assert (begun.status, b"".join(begun.pieces)) == ("200 OK", b'{"a":1}\n')
    assert (line["outcome"], line["status"], line["bytes"], line["upstream"]) == ("done", "200", "8", "llm")
    assert "frames" not in line
    app.check_that_it_is_over(200)


@pytest.mark.parametrize(
    ("reads", "take", "outcome", "frames"),
    [
        pytest.param([FRAME, COUNTS, DONE], 1000, "done", 3, id="whole"),
        pytest.param([FRAME, FRAME], 1000, "cut", 3, id="no end"),
        pytest.param([FRAME, UpstreamUnavailable()], 1000, "cut", 2, id="cut"),
        pytest.param([FRAME, UpstreamTimeout()], 1000, "timeout", 2, id="too late"),
        pytest.param([FRAME, CallerGone()], 1000, "caller_gone", 1, id="caller seen to go"),
        pytest.param([FRAME, FRAME, DONE], 1, "caller_gone", 1, id="caller gone after a frame"),
        pytest.param([FRAME, FRAME, DONE], 0, "caller_gone", 0, id="caller gone before the first"),
    ],
)
def test_stream_is_written_and_counted_by_how_it_ended(
    reads: list[bytes | BaseException], take: int, outcome: str, frames: int
) -> None:
    body, view = stream_of(*reads)
    app = HookedApp(view)
    sent = b"".join(app.call(take=take).pieces)
    line = app.line()
    assert (line["outcome"], line["frames"], line["bytes"]) == (outcome, str(frames), str(len(sent)))
    assert ("first_byte_ms" in line) == bool(sent)
    assert ("prompt_tokens" in line) == (COUNTS in sent)
    ends = {name.rpartition(" ")[2]: value for name, value in app.samples().items() if "_streams_total" in name}
    assert ends == {"done": 0, "cut": 0, "caller_gone": 0, "timeout": 0, outcome: 1}
    assert body.closed
    app.check_that_it_is_over(200)


@pytest.mark.parametrize(
    ("reads", "take", "outcome"),
    [
        pytest.param([b"a", b"bc"], 1000, "done", id="whole"),
        pytest.param([b"a", b"bc"], 1, "caller_gone", id="caller gone"),
        pytest.param([], 1000, "done", id="empty"),
    ],
)
def test_body_in_pieces_is_written_and_counted_by_how_it_ended(
    reads: list[bytes | BaseException], take: int, outcome: str
) -> None:
    body, view = pieces_of(*reads)
    app = HookedApp(view)
    sent = b"".join(app.call(take=take).pieces)
    assert (app.line()["outcome"], app.line()["bytes"]) == (outcome, str(len(sent)))
    assert body.closed
    app.check_that_it_is_over(200)


def test_cut_body_in_pieces_breaks_the_connection_and_is_written_and_counted() -> None:
    body, view = pieces_of(b"a", UpstreamUnavailable())
    app = HookedApp(view)
    with pytest.raises(ConnectionResetError):
        app.call()
    assert (app.line()["outcome"], app.line()["bytes"]) == ("cut", "1")
    assert body.closed
    app.check_that_it_is_over(200)


def test_answer_that_is_closed_twice_is_over_once() -> None:
    _, view = stream_of(FRAME, DONE)
    app = HookedApp(view)
    answer = app.app(EnvironBuilder("/things/a", method="POST").get_environ(), lambda *_: None)
    assert b"".join(answer) == FRAME + DONE
    answer.close()  # type: ignore[attr-defined]
    answer.close()  # type: ignore[attr-defined]
    app.line()
    app.check_that_it_is_over(200)


@pytest.mark.parametrize(
    ("view", "status"),
    [
        pytest.param(lambda: jsonify({"a": 1}), 200, id="good"),
        pytest.param(lambda: fail(UpstreamUnavailable()), 502, id="error"),
    ],
)
def test_answer_to_head_has_no_body_and_is_over_once(view: Callable[[], Response], status: int) -> None:
    app = HookedApp(view)
    begun = app.call(method="HEAD")
    assert begun.pieces == []
    assert app.line()["status"] == str(status)
    app.check_that_it_is_over(status)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        pytest.param(UpstreamUnavailable(cause="x"), 502, "error", id="ours"),
        pytest.param(UpstreamTimeout(), 504, "error", id="timeout"),
        pytest.param(ZeroDivisionError(), 500, "error", id="unexpected"),
    ],
)
def test_error_in_a_view_is_an_answer_that_is_over_once(error: Exception, status: int, outcome: str) -> None:
    app = HookedApp(lambda: fail(error))
    begun = app.call()
    assert begun.status.startswith(str(status))
    assert (app.line()["outcome"], app.line()["status"]) == (outcome, str(status))
    app.check_that_it_is_over(status)


@pytest.mark.parametrize("error", [GreenletExit(), SystemExit(), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_request_that_is_ended_by_the_worker_before_an_answer_is_cut(error: BaseException) -> None:
    app = HookedApp(lambda: fail(error))
    with pytest.raises(type(error)):
        app.call()
    line = app.line()
    assert (line["outcome"], line["status"]) == ("cut", "0")
    assert "first_byte_ms" not in line
    app.check_that_it_is_over(0)


def test_stream_that_is_ended_by_the_worker_tells_so_and_is_over_once() -> None:
    body, view = stream_of(FRAME, GreenletExit())
    app = HookedApp(view)
    app.call()
    assert (app.line()["outcome"], app.line()["bytes"]) == ("cut", str(len(FRAME + BROKE_OFF)))
    assert body.closed
    app.check_that_it_is_over(200)


def test_other_answer_that_is_ended_by_the_worker_is_cut_and_over_once() -> None:
    body, view = pieces_of(FRAME, GreenletExit())
    app = HookedApp(view)
    with pytest.raises(GreenletExit):
        app.call()
    assert (app.line()["outcome"], app.line()["bytes"]) == ("cut", str(len(FRAME)))
    assert body.closed
    app.check_that_it_is_over(200)


def test_answer_whose_start_the_server_refuses_is_over_once() -> None:
    body, view = stream_of(FRAME, DONE)
    app = HookedApp(view)
    with pytest.raises(ValueError, match="cannot be sent"):
        app.call(refuse_start=True)
    assert (app.line()["status"], app.line()["outcome"], app.line()["bytes"]) == ("500", "error", "0")
    assert body.closed
    app.check_that_it_is_over(500)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        pytest.param("/nowhere", "GET", 404, id="unknown path"),
        pytest.param("/v1/things/a", "DELETE", 405, id="wrong method"),
        pytest.param("//things/a", "GET", 404, id="two slashes"),
    ],
)
def test_request_for_no_route_is_counted_under_none_and_its_path_nowhere(path: str, method: str, status: int) -> None:
    app = HookedApp(lambda: jsonify({}))
    assert app.call(path, method).status.startswith(str(status))
    assert "/nowhere" not in app.log.getvalue()
    if path.startswith("//"):
        assert app.samples()["llm_proxy_in_flight"] == 0
    else:
        app.check_that_it_is_over(status, route="-")


@pytest.mark.parametrize(
    "view", [lambda: jsonify({"a": 1}), lambda: stream_of(FRAME, DONE)[1]()], ids=["whole", "stream"]
)
def test_error_in_what_is_left_to_do_keeps_nothing_else_from_coming(view: Callable[[], Response]) -> None:
    def watched() -> Response:
        current().at_end.append(lambda: fail_at_end(RuntimeError("can't start new thread")))
        return view()

    app = HookedApp(watched)
    app.call()
    assert app.line()["status"] == "200"
    app.check_that_it_is_over(200)


# The span


class FakeTracing:
    """Tells whose request it was given, and whether it has ended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended = 0

    def begin(self, environ: dict[str, object], log: RequestLog) -> Callable[[], None]:
        self.begun.append(log.caller)
        return self._end

    def _end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize(
    ("key", "most", "status", "begun"),
    [
        pytest.param("key", 1, "200", ["a"], id="let in"),
        pytest.param("key", 0, "429", ["a"], id="known and refused"),
        pytest.param("other", 1, "401", [], id="unknown"),
    ],
)
def test_span_begins_once_the_caller_is_known_and_ends_with_the_request(
    key: str, most: int, status: str, begun: list[str]
) -> None:
    tracing = FakeTracing()
    keys = ClientKeys([(hashlib.sha256(b"key").hexdigest(), Caller("a", max_concurrent=most))])
    app = HookedApp(lambda: jsonify({}), keys=keys, tracing=tracing)
    answer = app.call(headers={"Authorization": f"Bearer {key}"})
    assert answer.status[:3] == status
    assert (tracing.begun, tracing.ended) == (begun, len(begun))


# The metrics


@pytest.mark.parametrize("prefix", PREFIXES)
def test_request_is_counted_under_the_template_of_its_route(prefix: str) -> None:
    def view() -> Response:
        log = current().log
        log.sent_at = log.received_at = log.started + 0.001
        return jsonify({})

    app = HookedApp(view)
    app.call(f"{prefix}/things/secret-name")
    samples = app.samples()
    assert samples["llm_proxy_first_byte_seconds_count"] == 1
    assert samples["llm_proxy_overhead_seconds_count"] == 1
    assert not any("secret-name" in name for name in samples)
    app.check_that_it_is_over(200)


def test_answer_without_a_byte_has_no_first_byte_and_no_overhead() -> None:
    _, view = stream_of(CallerGone())
    app = HookedApp(view)
    app.call()
    samples = app.samples()
    assert samples["llm_proxy_first_byte_seconds_count"] == 0
    assert samples["llm_proxy_overhead_seconds_count"] == 0


def test_tokens_of_a_stream_are_counted() -> None:
    _, view = stream_of(FRAME, COUNTS, DONE)
    app = HookedApp(view)
    app.call()
    samples = app.samples()
    assert (samples["llm_proxy_tokens_total prompt llm"], samples["llm_proxy_tokens_total completion llm"]) == (9, 12)


def test_request_is_in_flight_until_its_last_byte_is_out() -> None:
    _, view = stream_of(FRAME, DONE)
    app = HookedApp(view)
    answer = app.app(EnvironBuilder("/things/a", method="POST").get_environ(), lambda *_: None)
    pieces = iter(answer)
    for _ in range(2):
        next(pieces)
        assert app.samples()["llm_proxy_in_flight"] == 1
        assert app.slots.running == 1
    answer.close()  # type: ignore[attr-defined]
    app.check_that_it_is_over(200)


# What the answer looks like


def test_preflight_has_no_body_and_no_length() -> None:
    app = HookedApp(lambda: jsonify({}), allowed_origins=("https://a.example",))
    begun = app.call(method="OPTIONS", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
    assert begun.status == "204 NO CONTENT"
    assert begun.pieces == []
    assert "content-length" not in {name.lower() for name, _ in begun.headers}


@pytest.mark.parametrize(
    "given",
    [
        *("abc-1", "a" * 128, None, "a b", "a" * 129, ""),
        *("sk-x4Kk0NSGUh4CzY8DLF53HIx", "api-key:abc", "id/sk-x4Kk0NSGUh4CzY8DLF53HIx"),
    ],
    ids=repr,
)
def test_request_id_is_the_callers_where_it_is_sane_and_the_same_in_line_and_answer(given: str | None) -> None:
    app = HookedApp(lambda: jsonify({}))
    begun = app.call(headers={} if given is None else {"X-Request-Id": given})
    told = dict(begun.headers)["X-Request-Id"]
    assert told == app.line()["request_id"]
    assert (told == given) == (given in ("abc-1", "a" * 128))


def test_error_event_of_a_cut_stream_is_the_last_piece() -> None:
    _, view = stream_of(FRAME, UpstreamUnavailable())
    assert HookedApp(view).call().pieces == [FRAME, BROKE_OFF]


# What stays


def unavailable() -> Response:
    raise UpstreamUnavailable


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda: LeanResponse(b"x" * 100_000), id="whole"),
        pytest.param(lambda: stream_of(FRAME, DONE)[1](), id="stream"),
        pytest.param(unavailable, id="error"),
    ],
)
def test_nothing_of_ours_waits_for_pythons_search_for_cycles(view: Callable[[], Response]) -> None:
    # It comes seldom in a worker, and an answer may have 8 MiB.
    app = HookedApp(view)
    app.call()
    gc.collect()
    gc.disable()
    try:
        before = of_ours()
        for _ in range(3):
            app.call()
        assert of_ours() == before
    finally:
        gc.enable()


def of_ours() -> Counter[str]:
    """How many objects of each of our classes there are."""
    kinds = map(type, gc.get_objects())
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("proxy."))
