"""RAGFlow's side of the wire: what its OpenAI-API-Compatible provider sends for each type of model, and to which path.

Told after its sources up to 0.27 (Python) and the release candidates of 1.0 (Go). The calls are made with the clients
that it uses itself: openai for chat, vision, embeddings and transcriptions, requests for rerank and speech.
"""

import asyncio
import re
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import openai
import requests

Release = Literal["0.23", "0.26", "0.27", "1.0"]
RELEASES: tuple[Release, ...] = ("0.23", "0.26", "0.27", "1.0")
BATCH = 16  # texts in one request for embeddings, in every release
LIMIT_S = 10.0  # of each step while a model is added

# What makes it try again, and what it looks for first and gives up on. Up to 0.26 the first row that fits decides;
# later releases try again wherever one of the second or fourth row's words, or one of a broken connection, is found.
_SORTED = (
    (False, "quota|capacity|credit|billing|balance"),
    (True, "rate limit|429|tpm limit|too many requests|requests per minute"),
    (False, "auth|key|401|forbidden|permission|invalid|bad request|400|format|malformed|parameter"),
    (True, "server|500|502|503|504|unavailable"),
)
_CONNECTION = "connect|network|unreachable|dns"


def tries_again(error: BaseException, release: Release) -> bool:
    """Whether RAGFlow asks the same once more after this error, by the words in its text."""
    text = str(error).lower()
    if release in ("0.23", "0.26"):
        return next((again for again, words in _SORTED if re.search(words, text)), False)
    return any(re.search(words, text) for again, words in (*_SORTED, (True, _CONNECTION)) if again)


class Ragflow:
    """A RAGFlow of one release, with what its user typed as base URL and as API key."""

    def __init__(self, base_url: str, release: Release = "0.27", key: str = "any") -> None:
        self._typed = base_url
        self._release = release
        self._key = key

    @property
    def chat_base(self) -> str:
        return self._typed if self._release in ("0.23", "0.26") else self._versioned

    @property
    def joined_base(self) -> str:
        """For embeddings and vision."""
        return urljoin(self._typed, "v1") if self._release in ("0.23", "0.26") else self._versioned

    @property
    def rerank_url(self) -> str:
        return urljoin(self._typed, "/rerank") if self._release == "0.23" else self._typed.rstrip("/") + "/rerank"

    @property
    def models_url(self) -> str:
        if self._release == "1.0":
            return self._typed.removesuffix("/") + "/models"
        return self._typed.partition("/v1")[0].rstrip("/") + "/v1/models"

    @property
    def _versioned(self) -> str:
        """1.0 only takes a slash away; 0.27 adds a version where no segment is one."""
        has_version = any(re.match(r"v\d", segment) for segment in urlsplit(self._typed).path.split("/"))
        return (
            self._typed.removesuffix("/") if self._release == "1.0" or has_version else self._typed.rstrip("/") + "/v1"
        )

    async def first_text(self, model: str) -> str:
        """Ask for a stream with "Hi" and leave it at the first text, as it does when a model is added."""
        messages: Any = [{"role": "user", "content": "Hi"}]
        async with openai.AsyncOpenAI(
            base_url=self.chat_base, api_key=self._key, timeout=LIMIT_S, max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model=model, messages=messages, stream=True, temperature=0.9, extra_body=self._stream_options()
            )
            async with stream:
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content:
                        return str(chunk.choices[0].delta.content)
        return ""

    def _stream_options(self) -> dict[str, Any]:
        return {"stream_options": {"include_usage": True}} if self._release in ("0.27", "1.0") else {}

    def chat(self, **body: Any) -> Any:
        """The answer, or all chunks of it where the body asks for a stream."""
        with self._client(self.chat_base) as client:
            answer = client.chat.completions.create(**body)
            return list(answer) if isinstance(answer, openai.Stream) else answer

    def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """In requests of 16, each with the option of LiteLLM's that no other server knows."""
        vectors: list[list[float]] = []
        with self._client(self.joined_base) as client:
            for begin in range(0, len(texts), BATCH):
                answer = client.embeddings.create(
                    model=model,
                    input=texts[begin : begin + BATCH],
                    encoding_format="float",
                    extra_body={"drop_params": True},
                )
                vectors += [item.embedding for item in answer.data]
        return vectors

    def rerank(self, model: str, query: str, texts: list[str]) -> list[float]:
        """The scores in the order of the texts."""
        body = {"model": model, "query": query, "documents": texts, "top_n": len(texts)}
        answer = requests.post(self.rerank_url, headers=self._headers, json=body, timeout=LIMIT_S)
        scores = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
        return [scores[index] for index in range(len(texts))]

    def describe(self, model: str, image_url: str) -> str:
        parts = [
            {"type": "text", "text": "Describe this picture."},
            {"type": "image_url", "image_url": {"url": image_url}},
        ]
        messages: Any = [{"role": "user", "content": parts}]
        with self._client(self.joined_base) as client:
            return client.chat.completions.create(model=model, messages=messages).choices[0].message.content or ""

    def transcribe(self, model: str, file: Any) -> str:
        with self._client(self.chat_base) as client:
            return client.audio.transcriptions.create(model=model, file=file).text

    def speak(self, model: str, text: str) -> bytes:
        body = {"model": model, "voice": "alloy", "input": text}
        url = f"{self.chat_base.rstrip('/')}/audio/speech"
        with requests.post(url, headers=self._headers, json=body, stream=True, timeout=LIMIT_S) as answer:
            answer.raise_for_status()
            return b"".join(answer.iter_content(1024))

    def list_models(self) -> list[dict[str, Any]]:
        answer = requests.get(self.models_url, headers={"Authorization": f"Bearer {self._key}"}, timeout=LIMIT_S)
        answer.raise_for_status()
        return list(answer.json()["data"])

    def type_of(self, model: str) -> str:
        """The type that it takes a listed model for, by the words in its name."""
        words = set(re.findall(r"[a-z]+", model.lower())) if self._release == "1.0" else {model.lower()}

        def has(*hints: str) -> bool:
            return any(hint == word if self._release == "1.0" else hint in word for hint in hints for word in words)

        if has("rerank", "reranker"):
            return "rerank"
        if has("embed", "embedding", "bge"):
            return "embedding"
        if has("asr", "stt", "transcribe", "whisper"):
            return "speech2text"
        if has("tts"):
            return "tts"
        return "image2text" if has("vl", "vision") or "gpt-4o" in model.lower() else "chat"

    def add_models(self, chat: str, embedding: str, rerank: str) -> None:
        """What it does while its user adds the models: the list, then each of them is tried."""
        assert {chat, embedding, rerank} <= {model["id"] for model in self.list_models()}
        assert asyncio.run(self.first_text(chat))
        assert self.embed(embedding, ["Test if the api key is available"])[0]
        assert self.rerank(rerank, "What's the weather?", ["Is it sunny today?"])

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _client(self, base_url: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=base_url, api_key=self._key, max_retries=0)
