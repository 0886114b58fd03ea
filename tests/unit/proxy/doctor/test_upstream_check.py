import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config import Settings
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.report import Report
from proxy.doctor.upstream_check import check_upstream
from proxy.tokens.token import Token
from tests.support.dashscope_server import DashScopeServer
from tests.support.scripted_upstream import ScriptedUpstream

_TOKEN = Token("s3cret-mark-1", fetched_at=0.0, lifetime_s=300.0, generation=1)
_MODELS = {"object": "list", "data": [{"id": "chat-1"}, {"id": "bge-m3"}, {"id": 5}, "odd"]}
_CHAT = {"object": "chat.completion", "choices": [{"message": {"content": "s3cret-mark"}}]}
_EMBEDDINGS = {"object": "list", "data": [{"embedding": [0.5], "index": 0}]}
_STREAM = b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
_REFUSED = {"error": {"code": "invalid_token", "type": "authentication_error", "message": "s3cret-mark"}}


def plain(document: object, status: int = 200) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    kind = b"text/event-stream" if body.startswith(b"data: ") else b"application/json"
    return b"HTTP/1.1 %d Status\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body)


class Check:
    """Runs the step against a server that answers its requests in turn."""

    def __init__(
        self, report: Report, settings_of: Callable[..., Settings], foreign: ForeignText, server: ScriptedUpstream
    ) -> None:
        self._report = report
        self._settings_of = settings_of
        self._foreign = foreign
        self._server = server

    def __call__(self, *answers: bytes, token: Token | None = _TOKEN, upstream: Any = None, **options: Any) -> None:
        for answer in answers:
            self._server.answer(answer)
        section = {"name": "llm", "base_url": f"{self._server.url}/v1", "token_source": "corp", **(upstream or {})}
        source = {"corp": {"type": "static", "token": "s3cret-mark"}}
        settings = self._settings_of(token_sources=source, upstreams=[section])
        check_upstream(self._report, settings.upstreams[0], token, self._foreign, **options)

    @property
    def models(self) -> list[str | None]:
        """What was asked for in each request."""
        return [json.loads(request.body)["model"] if request.body else None for request in self._server.requests]


@pytest.fixture
def check(
    report: Report, settings_of: Callable[..., Settings], foreign: ForeignText, server: ScriptedUpstream
) -> Check:
    return Check(report, settings_of, foreign, server)


def states(lines: list[str]) -> list[str]:
    """State and step of the lines about requests."""
    return [line.partition(":")[0] for line in lines[4:]]


def test_good_upstream_is_asked_four_times_with_the_smallest_requests(
    check: Check, server: ScriptedUpstream, lines: list[str]
) -> None:
    check(plain(_MODELS), plain(_CHAT), plain(_STREAM), plain(_EMBEDDINGS))
    assert states(lines) == ["ok    models", "ok    chat", "ok    stream", "ok    embedding"]
    assert check.models == [None, "chat-1", "chat-1", "bge-m3"]
    chat, stream, embedding = (json.loads(request.body) for request in server.requests[1:])
    assert chat["max_tokens"] == stream["max_tokens"] == 1
    assert (chat.get("stream"), stream["stream"]) == (None, True)
    assert embedding["input"] == "Hi"


def test_models_of_the_config_go_before_those_of_the_list(check: Check) -> None:
    models = {"gpt": "deploy-1", "emb": "bge-large", "*": "*"}
    check(plain(_MODELS), plain(_CHAT), plain(_STREAM), plain(_EMBEDDINGS), upstream={"models": models})
    assert check.models == [None, "deploy-1", "deploy-1", "bge-large"]


def test_options_go_before_both_under_the_callers_names(check: Check) -> None:
    models = {"gpt": "deploy-1", "other": "deploy-2", "*": "*"}
    check(
        *(plain(_MODELS), plain(_CHAT), plain(_STREAM), plain(_EMBEDDINGS)),
        upstream={"models": models},
        model="other",
        embedding_model="vectors",
    )
    assert check.models == [None, "deploy-2", "deploy-2", "vectors"]


def test_model_that_the_upstream_does_not_serve_is_not_asked_for(check: Check, lines: list[str]) -> None:
    check(plain(_MODELS), upstream={"models": {"gpt": "deploy-1"}}, model="s3cret-marx")
    assert states(lines) == ["ok    models", "skip  chat", "skip  stream", "skip  embedding"]
    assert "--model" in lines[5]
    assert "--embedding-model" in lines[7]


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_upstream_without_a_list_is_a_warning_and_the_config_names_the_models(
    check: Check, lines: list[str], status: int
) -> None:
    models = {"gpt": "deploy-1", "emb": "bge-m3"}
    check(plain({}, status), plain(_CHAT), plain(_STREAM), plain(_EMBEDDINGS), upstream={"models": models})
    assert states(lines) == ["warn  models", "ok    chat", "ok    stream", "ok    embedding"]


@pytest.mark.parametrize("status", [400, 404])
def test_embeddings_that_are_not_served_are_a_warning(check: Check, lines: list[str], status: int) -> None:
    check(plain(_MODELS), plain(_CHAT), plain(_STREAM), plain({}, status))
    assert states(lines)[3] == "warn  embedding"


@pytest.mark.parametrize("status", [401, 403, 500])
def test_embeddings_that_fail_otherwise_are_a_fault(check: Check, lines: list[str], status: int) -> None:
    check(plain(_MODELS), plain(_CHAT), plain(_STREAM), plain({}, status))
    assert states(lines)[3] == "FAIL  embedding"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 500, 503])
def test_chat_that_fails_is_a_fault_and_no_stream_is_tried(check: Check, lines: list[str], status: int) -> None:
    check(plain(_MODELS), plain({}, status), plain(_EMBEDDINGS))
    assert states(lines) == ["ok    models", "FAIL  chat", "skip  stream", "ok    embedding"]
    assert lines[5].startswith(f"FAIL  chat: {status} in ")


def test_limit_of_the_upstream_is_a_warning(check: Check, lines: list[str]) -> None:
    check(plain(_MODELS), plain({}, 429), plain(_EMBEDDINGS))
    assert states(lines)[1] == "warn  chat"


def test_refused_token_is_told_with_the_header_that_carried_it(check: Check, lines: list[str]) -> None:
    upstream = {"token_header": "X-Gateway-Token", "token_prefix": "", "models": {"gpt": "deploy-1"}}
    check(plain(_REFUSED, 401), plain(_REFUSED, 401), upstream=upstream)
    assert "sent as X-Gateway-Token: ****: " in lines[5]
    assert "it says code invalid_token, type authentication_error" in lines[5]


def test_model_that_takes_no_max_tokens_is_asked_with_the_newer_name(
    check: Check, server: ScriptedUpstream, lines: list[str]
) -> None:
    refused = {"error": {"code": "unsupported_parameter", "param": "max_tokens"}}
    check(plain(_MODELS), plain(refused, 400), plain(_CHAT), plain(_STREAM), plain(_EMBEDDINGS))
    assert states(lines) == ["ok    models", "ok    chat", "ok    stream", "ok    embedding"]
    for request in server.requests[2:4]:
        assert "max_tokens" not in json.loads(request.body)
        assert "max_completion_tokens" in json.loads(request.body)


def test_model_that_takes_neither_is_a_fault(check: Check, lines: list[str]) -> None:
    refused = {"error": {"code": "unsupported_parameter"}}
    check(plain(_MODELS), plain(refused, 400), plain(refused, 400), plain(_EMBEDDINGS))
    assert states(lines)[1] == "FAIL  chat"


@pytest.mark.parametrize("document", [b"<html>s3cret-mark", {"ok": True}, [], b""], ids=["html", "object", "list", "-"])
def test_answers_of_another_shape_are_faults(check: Check, lines: list[str], document: object) -> None:
    models = {"gpt": "deploy-1", "emb": "bge-m3"}
    check(*[plain(document)] * 3, upstream={"models": models})
    assert states(lines) == ["FAIL  models", "FAIL  chat", "skip  stream", "FAIL  embedding"]


def test_list_of_embeddings_without_one_is_a_fault(check: Check, lines: list[str]) -> None:
    check(plain(_MODELS), plain(_CHAT), plain(_STREAM), plain({"data": []}))
    assert states(lines)[3] == "FAIL  embedding"


def test_hanging_upstream_is_told_for_each_request(check: Check, lines: list[str]) -> None:
    check(upstream={"models": {"gpt": "deploy-1"}, "timeouts": {"first_byte_s": 0.1}})
    assert states(lines) == ["FAIL  models", "FAIL  chat", "skip  stream", "skip  embedding"]
    assert "no answer in time" in lines[5]


def test_without_the_sources_token_nothing_is_asked(check: Check, server: ScriptedUpstream, lines: list[str]) -> None:
    check(token=None)
    assert lines[-1] == "skip  requests: there is no token from corp to send"
    assert server.requests == []


def test_upstream_without_a_source_is_asked_without_a_token(
    check: Check, server: ScriptedUpstream, lines: list[str]
) -> None:
    check(*[plain({}, 401)] * 2, token=None, upstream={"token_source": None, "models": {"gpt": "deploy-1"}})
    assert b"authorization" not in server.requests[0].head.lower()
    assert "none was sent: token_source is null" in lines[5]


def test_name_of_a_model_that_looks_like_a_secret_is_not_shown(check: Check, lines: list[str]) -> None:
    listed = {"data": [{"id": "s3cret-mark-token"}]}
    check(plain(listed), plain(_CHAT), plain(_STREAM))
    assert lines[5].endswith("model with an odd name")


# Through an adapter


@pytest.fixture
def qwen() -> Iterator[DashScopeServer]:
    with DashScopeServer() as server:
        yield server


MODELS = {"qwen-turbo": "qwen-turbo", "text-embedding-v4": "text-embedding-v4"}


def test_adapter_is_asked_for_what_it_has(check: Check, qwen: DashScopeServer, lines: list[str]) -> None:
    check(upstream={"base_url": qwen.base_url, "adapter": "dashscope", "models": MODELS})
    assert states(lines) == ["ok    chat", "ok    stream", "ok    embedding"]
    assert [request.fields["authorization"] for request in qwen.requests] == ["Bearer s3cret-mark-1"] * 3
    assert lines[5].endswith("2 frames, [DONE]")


def test_adapter_without_embeddings_skips_them_and_whole_answers_are_streams(
    check: Check, server: ScriptedUpstream, lines: list[str]
) -> None:
    answer = plain({"text": "a", "message_id": "1"})
    check(answer, answer, upstream={"adapter": "plain_sse", "models": MODELS})
    assert states(lines) == ["ok    chat", "ok    stream", "skip  embedding"]


@pytest.mark.parametrize(
    ("fault", "step", "cause"),
    [
        ("throttled stream", "warn  chat", "the upstream limits how often it is asked"),
        ("nonsense", "FAIL  chat", "adapter proxy.adapters.dashscope:DashScope: KeyError at dashscope.py:"),
        ("inspected", "FAIL  stream", "the last one an error of the upstream's"),
        ("cut", "FAIL  stream", "broken off after 1 frames"),
    ],
)
def test_fault_is_told_by_its_cause(
    check: Check, qwen: DashScopeServer, lines: list[str], fault: str, step: str, cause: str
) -> None:
    qwen.fault = fault
    check(upstream={"base_url": qwen.base_url, "adapter": "dashscope", "models": MODELS})
    [line] = [line for line in lines if line.startswith(step)]
    assert cause in line
