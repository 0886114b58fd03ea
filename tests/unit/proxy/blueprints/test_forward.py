"""Turning to a second upstream; what calls for it, and what it gets, is shown end to end (test_several_upstreams)."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.blueprints.forward import Forward, Upstream
from proxy.body import JsonBody, read_body
from proxy.errors import CallerGone, ProxyError, UpstreamAnswer, UpstreamUnavailable
from proxy.observability.request_log import RequestLog
from proxy.request_state import RequestState
from proxy.routing import ModelMap
from proxy.upstreams.exchange import Exchange

NO_CLIENT: Any = None


def upstream(name: str, models: dict[str, str], second: Upstream | None = None) -> Upstream:
    return Upstream(models=ModelMap(name, models), client=NO_CLIENT, second=second)


def forward(first: Upstream) -> Forward:
    state = RequestState({}, RequestLog("id", "POST", "/"))
    return Forward(state, read_body(b'{"model": "m"}'), first, "m", [], Exchange())


def failing(*errors: ProxyError | None) -> tuple[Callable[[], str], list[ProxyError | None]]:
    """A call that raises these in turn; and those that are left."""
    left = list(errors)

    def call() -> str:
        error = left.pop(0)
        if error is not None:
            raise error
        return "good"

    return call, left


def test_second_has_its_own_name_for_the_model() -> None:
    asked = forward(upstream("one", {"m": "m"}, upstream("two", {"m": "their-m"})))
    call, _ = failing(UpstreamAnswer(503, [], b""), None)
    assert asked.ask(call) == "good"
    assert (asked.upstream.models.upstream, asked.model) == ("two", "their-m")
    assert (asked.state.log.upstream, asked.state.log.failed_over_from) == ("two", "one")


@pytest.mark.parametrize("second", [None, upstream("two", {"other": "m"})], ids=["no second", "one without the model"])
def test_error_of_the_first_stays_where_nobody_else_has_the_model(second: Upstream | None) -> None:
    error = UpstreamAnswer(429, [], b"")
    call, left = failing(error, None)
    asked = forward(upstream("one", {"m": "m"}, second))
    with pytest.raises(UpstreamAnswer) as caught:
        asked.ask(call)
    assert (caught.value, left, asked.state.log.failed_over_from) == (error, [None], None)


def test_it_goes_one_step_and_no_further() -> None:
    third = upstream("three", {"*": "*"})
    asked = forward(upstream("one", {"*": "*"}, upstream("two", {"*": "*"}, third)))
    last = UpstreamAnswer(503, [("x", "second")], b"")
    call, left = failing(UpstreamAnswer(503, [], b""), last, None)
    with pytest.raises(UpstreamAnswer) as caught:
        asked.ask(call)
    assert (caught.value, left, asked.state.log.upstream) == (last, [None], "two")


def test_other_errors_are_the_answer() -> None:
    call, left = failing(UpstreamUnavailable(), None)
    with pytest.raises(UpstreamUnavailable):
        forward(upstream("one", {"*": "*"}, upstream("two", {"*": "*"}))).ask(call)
    assert left == [None]


def test_nobody_is_asked_for_a_caller_that_left_while_the_first_refused() -> None:
    asked = forward(upstream("one", {"*": "*"}, upstream("two", {"*": "*"})))
    asked.exchange.break_off()
    call, left = failing(UpstreamAnswer(503, [], b""), None)
    with pytest.raises(CallerGone):
        asked.ask(call)
    assert left == [None]


def test_form_is_never_sent_as_the_json_that_it_has_not() -> None:
    accepted = forward(upstream("one", {"m": "m"}))
    accepted.body = JsonBody(b"", {}, "m", stream=False)
    with pytest.raises(ValueError, match="no JSON body"):
        accepted.send("/x")
