"""Several upstreams in one config: each is asked as its section says, the lists of models are one, and a second one
helps out where the first takes nobody.
"""

import json
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.recording_upstream import (
    Answer,
    RecordingUpstream,
    Request,
    answer_bytes,
    answer_chat,
    answer_json,
    answer_stream,
)
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hello"}]
SECRETS = {"chat": "chat-s3cret", "vectors": "vectors-s3cret", "first": "first-s3cret", "second": "second-s3cret"}
LISTS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {
            "id": "gpt-4o-240806",
            "object": "model",
            "owned_by": "corp",
            "context_length": 128000,
            "root": "gpt-4o-240806",
        },
        {"id": "gpt-5", "object": "model", "meta": {"vision": True, "prices": [1, 2]}},
        {"id": "o3", "object": "model"},
    ],
    "vectors": [
        {"id": "text-embedding-3-large", "max_model_len": 8192},
        {"id": "BAAI/bge-reranker-v2", "capabilities": ["rerank"], "owned_by": "baai"},
        {"object": "model", "name": "an entry without an id"},
    ],
}


def answer_embeddings(request: Request, name: str) -> bytes:
    """A vector for each input that tells whose it is; of token arrays too."""
    given = request.members["input"]
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    data = [{"object": "embedding", "index": at, "embedding": [float(len(name))]} for at in range(len(inputs))]
    return answer_json({"object": "list", "data": data, "model": request.members["model"]})


def normal(name: str) -> Answer:
    def answer(request: Request) -> bytes:
        if request.path == "/v1/models":
            return answer_json({"data": LISTS[name]}) if name in LISTS else answer_json({"error": {}}, 404)
        if request.path == EMBEDDINGS:
            return answer_embeddings(request, name)
        return answer_chat(request, name)

    return answer


@dataclass(frozen=True)
class Company:
    """The upstreams of one company, and ports where none is."""

    servers: dict[str, RecordingUpstream]
    refusing: int  # bound, but nobody listens
    black_hole: int

    def config(self, sandbox: SandboxClient, worker_class: str) -> dict[str, Any]:
        settings = sandbox.config(server={"worker_class": worker_class})
        settings["token_sources"] |= {name: {"type": "static", "token": token} for name, token in SECRETS.items()}
        ours = settings["upstreams"][0]
        common = {"timeouts": {"connect_s": 0.5, "first_byte_s": 0.7, "idle_s": 0.7, "total_s": 5}}
        urls = {name: server.url for name, server in self.servers.items()}
        first = {"fail_over_to": "second", "embeddings": {"max_batch": 2}, **common}
        settings["upstreams"] = [
            {
                "name": "chat",
                "base_url": urls["chat"],
                "token_source": "chat",
                "token_header": "X-Api-Token",
                "token_prefix": "",
                "headers": {"X-App-Id": "app-7"},
                "models": {"gpt-4o": "gpt-4o-240806", "gpt-*": "*"},
                "strip_fields": ["drop_params"],
                "set_fields": {"user": "proxy"},
                **common,
            },
            {
                "name": "vectors",
                "base_url": urls["vectors"],
                "token_source": "vectors",
                "token_prefix": "Token",
                "models": {"text-embedding-*": "*", "bge-reranker": "BAAI/bge-reranker-v2", "gpt-4o": "never-asked"},
            },
            {"name": "bare", "base_url": urls["bare"], "models": {"tts": "cosyvoice/tts-1", "org/*": "*"}},
            {**ours, "models": {"sandbox-*": "*", "down-*": "*"}},
            {**first, "name": "first", "base_url": urls["first"], "token_source": "first", "models": {"fo-*": "*"}},
            *[
                {**first, "name": name, "base_url": f"{base}/v1", "models": {f"{name}-*": "*"}}
                for name, base in (
                    ("refusing", f"http://127.0.0.1:{self.refusing}"),
                    ("hole", f"http://127.0.0.1:{self.black_hole}"),
                    ("nobody", "http://nobody.invalid"),
                )
            ],
            {
                "name": "second",
                "base_url": urls["second"],
                "token_source": "second",
                "models": {"fo-one": "their-one", "fo-m*": "*", "refusing-*": "*", "hole-*": "*", "nobody-*": "*"},
                "set_fields": {"seed": 2},
                "fail_over_to": "third",
                **common,
            },
            {"name": "third", "base_url": urls["third"], "models": {"fo-*": "*"}, **common},
        ]
        return settings


NAMES = ("chat", "vectors", "bare", "first", "second", "third")


@pytest.fixture(scope="module")
def company_of_module() -> Iterator[Company]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(RecordingUpstream(normal(name))) for name in NAMES}
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for sock in sockets[:2]:
            sock.bind(("127.0.0.1", 0))
        sockets[1].listen(0)
        sockets[2].connect(sockets[1].getsockname())  # the queue holds no more than this one
        refusing, black_hole = (sock.getsockname()[1] for sock in sockets[:2])
        yield Company(servers, refusing, black_hole)


@pytest.fixture
def company(company_of_module: Company) -> Company:
    for name, server in company_of_module.servers.items():
        server.forget(normal(name))
    return company_of_module


@pytest.fixture
def proxy(farm: ProxyFarm, company: Company, sandbox: SandboxClient) -> ProxyProcess:
    return farm.proxy(company.config(sandbox, "gevent"))


def ask(proxy: ProxyProcess, model: str, path: str = CHAT, **members: Any) -> httpx.Response:
    body: dict[str, Any] = {"model": model, **({"messages": MESSAGES} if path == CHAT else {"input": "a"}), **members}
    headers = {"Authorization": "Bearer callers-s3cret", "X-Request-Id": uuid.uuid4().hex}
    return httpx.post(proxy.url + path, json=body, headers=headers, trust_env=False, timeout=15)


def asked(company: Company) -> dict[str, int]:
    """How many requests came to each upstream that got any."""
    return {name: len(server.requests) for name, server in company.servers.items() if server.requests}


# Who is asked, and how


@pytest.mark.parametrize(
    ("model", "path", "upstream", "there"),
    [
        pytest.param("gpt-4o", CHAT, "chat", "gpt-4o-240806", id="alias, of two upstreams the first"),
        pytest.param("gpt-5", CHAT, "chat", "gpt-5", id="wildcard"),
        pytest.param("text-embedding-3-large", EMBEDDINGS, "vectors", "text-embedding-3-large", id="another host"),
        pytest.param("bge-reranker", "/v1/rerank", "vectors", "BAAI/bge-reranker-v2", id="alias of another kind"),
        pytest.param("tts", CHAT, "bare", "cosyvoice/tts-1", id="without a token"),
        pytest.param("org/any:7b", CHAT, "bare", "org/any:7b", id="a slash in the name"),
    ],
)
def test_first_upstream_that_serves_the_model_is_asked_by_its_own_name(
    proxy: ProxyProcess, company: Company, model: str, path: str, upstream: str, there: str
) -> None:
    assert ask(proxy, model, path).status_code == 200
    assert asked(company) == {upstream: 1}
    [request] = company.servers[upstream].requests
    assert (request.path, request.members["model"]) == (path, there)


def test_each_upstream_gets_its_own_token_fields_and_members_and_nothing_of_the_others(
    proxy: ProxyProcess, company: Company, sandbox: SandboxClient
) -> None:
    for model, path in (("gpt-4o", CHAT), ("text-embedding-3", EMBEDDINGS), ("tts", CHAT), ("sandbox-chat", CHAT)):
        assert ask(proxy, model, path, drop_params=True).status_code == 200
    httpx.get(proxy.url + "/v1/models", trust_env=False)
    expected = {
        "chat": {"x-api-token": "chat-s3cret", "x-app-id": "app-7"},
        "vectors": {"authorization": "Token vectors-s3cret"},
        "bare": {},
    }
    for name, fields in expected.items():
        for request in company.servers[name].requests:
            others = {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length"}
            assert {field: value for field, value in request.fields.items() if field not in others} == fields
    assert "s3cret" not in json.dumps([entry["headers"] for entry in sandbox.log()])
    assert sandbox.last()["token"] == "valid"
    chat, vectors = (company.servers[name].requests[0].members for name in ("chat", "vectors"))
    assert ("drop_params" in chat, chat["user"]) == (False, "proxy")
    assert (vectors["drop_params"], "user" in vectors) == (True, False)


def test_each_upstream_has_its_own_time_outs(proxy: ProxyProcess, sandbox: SandboxClient, company: Company) -> None:
    sandbox.faults(upstream=[{"kind": "delay", "delay_s": 1.0}])
    assert ask(proxy, "sandbox-chat").status_code == 200
    company.servers["chat"].answer = lambda _: b"HTTP/1.1 200 OK\r\n"  # and nothing more, for 0.7 s
    assert ask(proxy, "gpt-4o").status_code == 504


@pytest.mark.parametrize("model", ["o3", "gpt", "GPT-4o", "never-asked", "first"])
def test_model_that_no_upstream_serves_is_404(proxy: ProxyProcess, company: Company, model: str) -> None:
    answer = ask(proxy, model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert asked(company) == {}


# The models


def models_of(proxy: ProxyProcess) -> dict[str, dict[str, Any]]:
    answer = httpx.get(proxy.url + "/v1/models", trust_env=False, timeout=15).json()
    assert answer["object"] == "list"
    models = {entry["id"]: entry for entry in answer["data"]}
    assert len(models) == len(answer["data"])
    return models


def test_lists_are_joined_with_aliases_and_all_members(
    farm: ProxyFarm, company: Company, sandbox: SandboxClient
) -> None:
    proxy = farm.proxy(company.config(sandbox, "gthread"))
    company.servers["first"].answer = lambda _: answer_json({}, 500)
    models = models_of(proxy)
    chat, vectors = LISTS["chat"], LISTS["vectors"]
    assert models["gpt-4o"] == {**chat[0], "id": "gpt-4o"}
    assert models["gpt-4o-240806"] == chat[0]
    assert models["gpt-5"] == chat[1]
    assert models["text-embedding-3-large"] == vectors[0]
    assert models["bge-reranker"] == {**vectors[1], "id": "bge-reranker"}
    assert models["tts"] == {"id": "tts", "object": "model", "created": 0, "owned_by": "bare"}
    assert models["sandbox-embedding"]["context_window"] == 8192
    # Not o3 and BAAI/…, which no caller can ask for; nor the names of upstreams that have no list, or fail.
    assert set(models) == {
        *("gpt-4o", "gpt-4o-240806", "gpt-5", "text-embedding-3-large", "bge-reranker", "tts"),
        *("sandbox-chat", "sandbox-embedding", "sandbox-rerank", "fo-one"),
    }


@pytest.mark.parametrize(
    ("path", "status", "owner"),
    [
        pytest.param("gpt-4o", 200, "corp", id="alias"),
        pytest.param("sandbox-chat", 200, "sandbox", id="as it is"),
        pytest.param("org/name", 200, "bare", id="of an upstream without a list"),
        pytest.param("org%2Fname", 200, "bare", id="its slash percent-encoded"),
        pytest.param("org/a%20b%3Fc", 200, "bare", id="other characters percent-encoded"),
        pytest.param("gpt-6", 404, None, id="not in its upstream's list"),
        pytest.param("BAAI/bge-reranker-v2", 404, None, id="not a caller's name"),
        pytest.param("nothing", 404, None, id="nobody's"),
        pytest.param("refusing-1", 502, None, id="of an upstream that is away"),
    ],
)
def test_one_model_is_found_by_its_name(proxy: ProxyProcess, path: str, status: int, owner: str | None) -> None:
    answer = httpx.get(f"{proxy.url}/v1/models/{path}", trust_env=False, timeout=15)
    assert answer.status_code == status
    if owner is None:
        assert answer.json()["error"]["code"] == ("upstream_unavailable" if status == 502 else "model_not_found")
    else:
        assert (answer.json()["id"], answer.json()["owned_by"]) == (httpx.URL(answer.url).path[11:], owner)


# Fail-over


def refusal(status: int, *fields: str) -> Answer:
    return lambda _: answer_json({"error": {"message": "their own text"}}, status, *fields)


def hold(request: Request) -> bytes:
    request.wait(threading.Event())
    return b""


def close_at_once(_: Request) -> bytes:
    return b""


def cut_in_stream(_: Request) -> bytes:
    return answer_stream()[:150] + b"Connection: close"  # of which the chunk has no end


# How a request may be asked: its path and members. Three inputs are two parts at the first, one request at the second.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {}),
    "stream": (CHAT, {"stream": True}),
    "one embedding": (EMBEDDINGS, {}),
    "split embeddings": (EMBEDDINGS, {"input": ["a", "b", "c"]}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def ask_kind(proxy: ProxyProcess, model: str, kind: str) -> httpx.Response:
    path, members = KINDS[kind]
    return ask(proxy, model, path, **members)


def is_from(answer: httpx.Response, name: str) -> bool:
    """Whether a good answer is that upstream's."""
    if "/embeddings" in str(answer.url):
        vectors = [item["embedding"] for item in answer.json()["data"]]
        return bool(vectors) and vectors == [[float(len(name))]] * len(vectors)
    return f'"content":"{name}"' in answer.text.replace(" ", "")


def line_of(proxy: ProxyProcess, answer: httpx.Response) -> dict[str, str]:
    """The facts of the request's one line."""
    mark = f" request_id={answer.headers['X-Request-Id']} "
    wait_for(lambda: any(mark in line for line in proxy.access_lines()))
    [line] = [line for line in proxy.access_lines() if mark in line]
    return dict(word.split("=", 1) for word in re.findall(r"\S+=\S+", line))


def fail_overs(proxy: ProxyProcess) -> dict[str, float]:
    page = httpx.get(proxy.url + "/metrics", trust_env=False).text
    return {
        name: float(count)
        for name, count in re.findall(r'(?m)^llm_proxy_fail_overs_total\{upstream="(\w+)"\} (\S+)$', page)
    }


@kinds
@pytest.mark.parametrize("first", ["refused", "429", "503"])
def test_second_answers_where_the_first_takes_nobody(
    proxy: ProxyProcess, company: Company, first: str, kind: str
) -> None:
    name = "refusing" if first == "refused" else "first"
    if name == "first":
        company.servers["first"].answer = refusal(int(first), "Retry-After: 7")
    before = fail_overs(proxy)
    answer = ask_kind(proxy, f"{'fo' if name == 'first' else name}-mine", kind)
    assert (answer.status_code, is_from(answer, "second")) == (200, True)
    assert "Retry-After" not in answer.headers
    [request] = company.servers["second"].requests
    assert request.members["model"].endswith("-mine")
    assert request.members.get("input", "a") == KINDS[kind][1].get("input", "a")
    assert (request.members["seed"], request.fields["authorization"]) == (2, "Bearer second-s3cret")
    line = line_of(proxy, answer)
    assert (line["upstream"], line["failed_over_from"], line["status"]) == ("second", name, "200")
    wait_for(lambda: fail_overs(proxy) == {**before, name: before[name] + 1})  # counted after the line is written


@pytest.mark.parametrize("kind", ["chat", "split embeddings"])
def test_second_answers_for_a_refused_connection_with_threads_too(
    farm: ProxyFarm, company: Company, sandbox: SandboxClient, kind: str
) -> None:
    proxy = farm.proxy(company.config(sandbox, "gthread"))
    assert is_from(ask_kind(proxy, "refusing-1", kind), "second")


@kinds
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(refusal(500), 500, id="500"),
        pytest.param(refusal(502), 502, id="502"),
        pytest.param(refusal(401), 502, id="401"),
        pytest.param(refusal(404), 404, id="404"),
        pytest.param(lambda _: answer_bytes(b"<html>", 200, "Content-Type: text/html"), 502, id="a page"),
        pytest.param(close_at_once, 502, id="closed without an answer"),
        pytest.param(hold, 504, id="no answer in time"),
    ],
)
def test_second_is_not_asked_for_what_the_first_may_have_begun(
    proxy: ProxyProcess, company: Company, answer: Answer, status: int, kind: str
) -> None:
    company.servers["first"].answer = answer
    before = fail_overs(proxy)
    assert ask_kind(proxy, "fo-mine", kind).status_code == status
    assert set(asked(company)) == {"first"}
    assert fail_overs(proxy) == before


@kinds
@pytest.mark.parametrize(("name", "status"), [("hole", 504), ("nobody", 502)])
def test_second_is_not_asked_where_the_first_cannot_be_found(
    proxy: ProxyProcess, company: Company, name: str, status: int, kind: str
) -> None:
    assert ask_kind(proxy, f"{name}-1", kind).status_code == status
    assert asked(company) == {}


def test_second_is_not_asked_once_the_first_has_begun_its_answer(proxy: ProxyProcess, company: Company) -> None:
    company.servers["first"].answer = cut_in_stream
    answer = ask_kind(proxy, "fo-mine", "stream")
    assert (answer.status_code, "broke off" in answer.text) == (200, True)
    assert asked(company) == {"first": 1}


@kinds
def test_second_is_asked_by_its_own_name_for_the_model_or_not_at_all(
    proxy: ProxyProcess, company: Company, kind: str
) -> None:
    company.servers["first"].answer = refusal(429, "Retry-After: 7")
    assert is_from(ask_kind(proxy, "fo-one", kind), "second")
    assert company.servers["second"].requests[0].members["model"] == "their-one"
    answer = ask_kind(proxy, "fo-other", kind)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["error"]["message"] == "their own text"
    assert len(company.servers["second"].requests) == 1


@kinds
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(refusal(503, "Retry-After: 9"), 503, id="takes nobody either"),
        pytest.param(refusal(500), 500, id="500"),
        pytest.param(refusal(400), 400, id="400"),
        pytest.param(refusal(401), 502, id="401"),
        pytest.param(close_at_once, 502, id="closed"),
    ],
)
def test_error_of_the_second_is_the_answer_and_nobody_else_is_asked(
    proxy: ProxyProcess, company: Company, answer: Answer, status: int, kind: str
) -> None:
    company.servers["first"].answer = refusal(429, "Retry-After: 7")
    company.servers["second"].answer = answer
    got = ask_kind(proxy, "fo-mine", kind)
    assert (got.status_code, got.headers.get("Retry-After")) == (status, "9" if status == 503 else None)
    assert set(asked(company)) == {"first", "second"}
    assert (line_of(proxy, got)["upstream"], line_of(proxy, got)["failed_over_from"]) == ("second", "first")


@kinds
def test_second_is_not_asked_for_a_caller_that_has_left(proxy: ProxyProcess, company: Company, kind: str) -> None:
    first = company.servers["first"]
    left = threading.Event()

    def refuse_when_left(request: Request) -> bytes:
        request.wait(left)
        return refusal(503)(request)

    first.answer = refuse_when_left
    path, members = KINDS[kind]
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as sock:
        body = json.dumps({"model": "fo-mine", "messages": MESSAGES, "input": "a", **members}).encode()
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        first.wait_until(lambda: first.running > 0)
    first.wait_until(lambda: first.running == 0)
    assert {request.end for request in first.requests} == {"left"}
    assert set(asked(company)) == {"first"}
