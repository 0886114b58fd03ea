"""Lists of models: under which names callers see them, and what is kept of an upstream's answer, and for how long."""

import json
import threading
from typing import Any

import pytest

from proxy.blueprints import models as module
from proxy.blueprints.forward import Upstream
from proxy.blueprints.models import ModelLists, as_callers_see
from proxy.errors import CallerGone, ModelNotFound, ProxyError, UpstreamAnswer, UpstreamTimeout, UpstreamUnavailable
from proxy.routing import ModelMap
from proxy.upstreams.exchange import Exchange

A = {"id": "a", "object": "model", "context_length": 4096, "nested": {"x": [1]}}
B = {"object": "model", "owned_by": "corp", "id": "org/b"}


def unlisted(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "llm"}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        pytest.param({"*": "*"}, [A, B], id="all as they are"),
        pytest.param({"a": "a"}, [A], id="one as it is"),
        pytest.param({"org/*": "*"}, [B], id="a wildcard"),
        pytest.param({"x": "a"}, [{**A, "id": "x"}], id="alias"),
        pytest.param({"x": "a", "y": "a"}, [{**A, "id": "x"}, {**A, "id": "y"}], id="two names of one"),
        pytest.param({"*": "*", "x": "a"}, [A, B, {**A, "id": "x"}], id="alias beside all"),
        pytest.param({"a": "org/b", "org/b": "a"}, [{**B, "id": "a"}, {**A, "id": "org/b"}], id="names changed about"),
        pytest.param({"*": "*", "a": "org/b"}, [B, {**B, "id": "a"}], id="alias that hides another"),
        pytest.param({"x": "gone"}, [unlisted("x")], id="alias of what is not listed"),
        pytest.param({"new": "new"}, [unlisted("new")], id="name that is not listed"),
        pytest.param({"c-*": "a"}, [], id="wildcard for one, which has no name to list"),
    ],
)
def test_callers_see_the_names_that_they_can_ask_for(models: dict[str, str], expected: list[Any]) -> None:
    assert as_callers_see(ModelMap("llm", models), [A, B]) == expected


class Client:
    """Stands for an upstream's client: answers with the next of these, the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.asked = 0
        self._answers = list(answers)

    def send(self, method: str, path: str, *, exchange: Exchange, **_: Any) -> Any:
        assert (method, path) == ("GET", "/models")
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            return answer(exchange)
        if isinstance(answer, Exception):
            raise answer
        return Body(answer if isinstance(answer, bytes) else json.dumps({"data": answer}).encode())


class Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, **_: Any) -> bytes:
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        pass


def lists_of(*clients: Client, models: dict[str, str] | None = None) -> ModelLists:
    maps = [ModelMap(f"u{number}", models or {"*": "*"}) for number in range(len(clients))]
    upstreams: Any = [Upstream(models=each, client=client) for each, client in zip(maps, clients, strict=True)]  # type: ignore[arg-type]
    return ModelLists(upstreams)


def ids(lists: ModelLists) -> list[str]:
    return [entry["id"] for entry in lists.joined(Exchange())]


def test_of_two_upstreams_that_list_a_model_the_first_describes_it() -> None:
    assert lists_of(Client([A]), Client([{"id": "a"}, B])).joined(Exchange()) == [A, B]


def test_list_is_asked_for_once() -> None:
    client = Client([A], UpstreamUnavailable())
    lists = lists_of(client)
    assert [ids(lists), ids(lists), client.asked] == [["a"], ["a"], 1]


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamUnavailable(),
        UpstreamAnswer(500, [], b""),
        UpstreamAnswer(429, [], b""),
        b"<html>",
        b"{}",
        b"[]",
        b'{"data": 5}',
    ],
    ids=["away", "500", "429", "a page", "no data", "a list", "data is a number"],
)
def test_upstream_that_fails_is_left_out_and_asked_again_later(failure: Any) -> None:
    failing = Client(failure)
    lists = lists_of(failing, Client([B]))
    assert [ids(lists), ids(lists), failing.asked] == [["org/b"], ["org/b"], 1]
    with pytest.raises(ProxyError):
        lists_of(Client(failure)).joined(Exchange())


def test_upstream_without_a_list_has_the_names_of_the_config() -> None:
    lists = lists_of(Client(UpstreamAnswer(404, [], b"")), models={"x": "y", "*": "*"})
    assert ids(lists) == ["x"]


def test_entries_that_are_none_are_left_out() -> None:
    assert ids(lists_of(Client([{"name": "a"}, 5, None, {"id": 7}, B]))) == ["org/b"]


def test_list_that_does_not_come_holds_the_others_up_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.05)
    assert ids(lists_of(Client(hang), Client([B]))) == ["org/b"]
    with pytest.raises(UpstreamTimeout):
        lists_of(Client(hang)).joined(Exchange())


def test_upstreams_are_asked_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet(_: Exchange) -> None:
        both.wait(5)

    assert ids(lists_of(Client(meet), Client(meet), models={"a": "a"})) == ["a"]
    assert not both.broken


def hang(exchange: Exchange) -> None:
    broken = threading.Event()
    exchange.attach(broken.set)
    assert broken.wait(5)
    raise CallerGone


def test_caller_that_leaves_ends_it_and_is_no_failure_of_the_upstream() -> None:
    caller = Exchange()

    def leave(exchange: Exchange) -> None:
        caller.break_off()
        hang(exchange)

    client = Client(leave, [A])
    lists = lists_of(client, Client([B]))
    with pytest.raises(CallerGone):
        lists.joined(caller)
    assert ids(lists) == ["a", "org/b"]


# One model


def test_model_that_another_upstream_lists_is_found() -> None:
    assert lists_of(Client([A]), Client([B])).entry("org/b", Exchange()) == B


def test_model_of_an_upstream_without_a_list_is_as_the_config_says() -> None:
    entry = lists_of(Client(UpstreamAnswer(404, [], b""))).entry("any/thing", Exchange())
    assert entry == {**unlisted("any/thing"), "owned_by": "u0"}


@pytest.mark.parametrize("models", [{"*": "*"}, {"a": "a"}], ids=["not in the list", "not in the config"])
def test_model_that_is_nowhere_is_not_found(models: dict[str, str]) -> None:
    with pytest.raises(ModelNotFound):
        lists_of(Client([A]), models=models).entry("c", Exchange())


def test_whether_a_model_exists_is_not_known_while_its_upstream_fails() -> None:
    with pytest.raises(UpstreamUnavailable):
        lists_of(Client(UpstreamUnavailable()), Client([B])).entry("c", Exchange())
