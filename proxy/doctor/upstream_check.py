"""One upstream, step by step: the way to it, its models, a chat, a stream, an embedding, each as small as can be."""

from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jiter

from config.upstreams import Upstream
from proxy.doctor.foreign_text import ForeignText, media_type
from proxy.doctor.model_choice import choose, is_chat, is_embedding
from proxy.doctor.network import check_way
from proxy.doctor.report import Report, in_milliseconds
from proxy.doctor.stream_check import report_stream
from proxy.doctor.upstream_causes import error_codes, refusal_cause, transport_cause
from proxy.doctor.upstream_client import Answer, DoctorClient
from proxy.errors import ProxyError, RouteNotFound
from proxy.routing import ModelMap
from proxy.tokens.token import Token
from proxy.upstream_clients import upstream_http_proxy
from proxy.upstreams.tls import client_context

# An upstream may do without: the proxy then lists the names of the config, and serves no embeddings.
_NOT_SERVED = (400, 404, 405, 501)
_LIMITED = 429
# The second is for models that think before they speak: they refuse the first, and need room.
_CHAT_LIMITS: Sequence[dict[str, int]] = ({"max_tokens": 1}, {"max_completion_tokens": 500})
_REFUSED_MEMBER = "unsupported_parameter"


def check_upstream(
    report: Report,
    section: Upstream,
    token: Token | None,
    foreign: ForeignText,
    *,
    model: str | None = None,
    embedding_model: str | None = None,
) -> None:
    """`token` is from the section's source, None where it has none. The models are named as callers name them."""
    http_proxy = upstream_http_proxy(section)
    by = "" if http_proxy is None else f" through {http_proxy().url}"
    report.heading(f"upstream {section.name} ({section.base_url}{by})")
    if not check_way(
        report,
        section.base_url,
        lambda: client_context(section.ca_bundle, section.client_cert),
        connect_s=section.timeouts.connect_s,
        http_proxy=http_proxy,
    ):
        report.skip("requests", "there is no way to send one")
        return
    if token is None and section.token_source is not None:
        report.skip("requests", f"there is no token from {section.token_source} to send")
        return
    client = DoctorClient(section, token)
    try:
        check = _UpstreamCheck(report, section, client, foreign)
        models = ModelMap(section.name, section.models)
        listed = [] if section.adapter is not None else check.models()
        check.chat_and_stream(choose(models, model, listed, is_chat))
        check.embedding(choose(models, embedding_model, listed, is_embedding))
    finally:
        client.close()


class _UpstreamCheck:
    """The requests; each writes one line, or two where the second depends on the first."""

    def __init__(self, report: Report, section: Upstream, client: DoctorClient, foreign: ForeignText) -> None:
        self._report = report
        self._client = client
        self._foreign = foreign
        self._host = urlsplit(section.base_url).hostname or ""
        credential = f"{section.token_prefix} ****".strip()
        self._sent_as = f"{section.token_header}: {credential}" if section.token_source is not None else None

    def models(self) -> list[str]:
        """The names on the upstream's list."""
        answer = self._ask("models", lambda: self._client.get("/models"), warn_at=_NOT_SERVED)
        if answer is None:
            return []
        items = _items(answer.body)
        if items is None:
            self._fail_shape("models", answer, "no list of models")
            return []
        names = [item["id"] for item in items if isinstance(item.get("id"), str)]
        self._report.ok("models", f"{_head(answer)}, {len(names)} on its list")
        return names

    def chat_and_stream(self, model: str | None) -> None:
        if model is None:
            for step in ("chat", "stream"):
                self._report.skip(step, "no chat model is known here: name one that is served with --model")
            return
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        limit = self._chat(body)
        if limit is None:
            self._report.skip("stream", "it would fail as the chat did")
        else:
            self._stream({**body, **limit, "stream": True})

    def embedding(self, model: str | None) -> None:
        if model is None:
            self._report.skip(
                "embedding", "no embedding model is known here: name one that is served with --embedding-model"
            )
            return
        body = {"model": model, "input": "Hi"}
        answer = self._ask("embedding", lambda: self._client.post("/embeddings", body), warn_at=_NOT_SERVED)
        if answer is None:
            return
        items = _items(answer.body)
        if not items or "embedding" not in items[0]:
            self._fail_shape("embedding", answer, "no list of embeddings")
        else:
            self._report.ok("embedding", f"{_head(answer)}, model {self._shown(model)}")

    def _chat(self, body: dict[str, Any], limits: Sequence[dict[str, int]] = _CHAT_LIMITS) -> dict[str, int] | None:
        """The members that limit the answer, as the model takes them; None where the chat failed."""
        limit, *others = limits
        answer = self._try("chat", lambda: self._client.post("/chat/completions", {**body, **limit}))
        if answer is None:
            return None
        if others and error_codes(answer.body, self._foreign).get("code") == _REFUSED_MEMBER:
            return self._chat(body, others)
        return limit if self._is_chat(answer, body["model"]) else None

    def _is_chat(self, answer: Answer, model: str) -> bool:
        if not self._is_good("chat", answer):
            return False
        if "choices" not in _object(answer.body):
            self._fail_shape("chat", answer, "no chat completion")
            return False
        self._report.ok("chat", f"{_head(answer)}, model {self._shown(model)}")
        return True

    def _stream(self, body: dict[str, Any]) -> None:
        answer = self._ask("stream", lambda: self._client.post("/chat/completions", body))
        if answer is not None and answer.stream is not None:
            report_stream(self._report, answer, answer.stream, self._host)

    def _ask(self, step: str, send: Callable[[], Answer], *, warn_at: Collection[int] = ()) -> Answer | None:
        """A good answer, or None, which is told then."""
        answer = self._try(step, send)
        return answer if answer is not None and self._is_good(step, answer, warn_at) else None

    def _try(self, step: str, send: Callable[[], Answer]) -> Answer | None:
        try:
            return send()
        except httpx2.TransportError as error:
            self._report.fail(step, transport_cause(error, self._host))
            return None
        except RouteNotFound:  # ours: an adapter has no such route
            self._report.skip(step, "the adapter has no way to ask for it")
            return None
        except ProxyError as error:
            self._report.fail(step, error.cause or error.message)
            return None

    def _is_good(self, step: str, answer: Answer, warn_at: Collection[int] = ()) -> bool:
        if 200 <= answer.status < 300 and answer.status != 204:
            return True
        tell = self._report.warn if answer.status in (*warn_at, _LIMITED) else self._report.fail
        tell(step, f"{_head(answer)}: {refusal_cause(answer, self._sent_as, self._foreign)}")
        return False

    def _fail_shape(self, step: str, answer: Answer, lacking: str) -> None:
        text = f"{_head(answer)}, but {lacking}: {media_type(answer.content_type)}, {len(answer.body)} bytes"
        self._report.fail(step, f"{text}; is base_url right, or does a login page answer?")

    def _shown(self, model: str) -> str:
        return self._foreign.name(model) or "with an odd name"


def _head(answer: Answer) -> str:
    return f"{answer.status} in {in_milliseconds(answer.took_s)}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = jiter.from_json(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _items(body: bytes) -> list[dict[str, Any]] | None:
    """The objects in `data` of a list; None where it is no list."""
    data = _object(body).get("data")
    return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else None
