"""The bytes of the requests that the load sends, and what the upstream finds in them.

A stream's identity travels in the text of its message, the one place that no proxy touches.
"""

import json
from dataclasses import dataclass
from typing import Any

CHAT_PATH = "/v1/chat/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
PEER_KEY = "sk-bench-of-the-peers"  # what peers send to the upstream; our proxy sends a token
IDENTITY = b"bench-id-"
IDENTITY_LENGTH = 14  # eight hex digits for the run, six decimal ones for the stream
_SENTENCE = "The quick brown fox jumps over the lazy dog while the band plays on; "


@dataclass(frozen=True)
class Ask:
    """What is asked, and of whom."""

    host: str
    port: int
    path: str
    key: str


def chat(ask: Ask, model: str, *, prompt_bytes: int = 0, identity: str = "", stream: bool = False) -> bytes:
    """A chat request whose messages hold about `prompt_bytes` of text in pieces of 10 kB."""
    text = f"{IDENTITY.decode()}{identity} " if identity else ""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": f"{text}Say hello to me, please."},
    ]
    piece = (_SENTENCE * 150)[:10_000]
    for number in range(prompt_bytes // len(piece)):
        messages.insert(1, {"role": "assistant" if number % 2 else "user", "content": piece})
    document: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0.7}
    return _post(ask, document | {"stream": True} if stream else document)


def embedding(ask: Ask, model: str, *, texts: int) -> bytes:
    """A request for the embeddings of some sentences, as floats."""
    inputs = [f"{number}: {_SENTENCE * 4}" for number in range(texts)]
    return _post(ask, {"model": model, "input": inputs, "encoding_format": "float"})


def get(ask: Ask, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {ask.host}:{ask.port}\r\nAuthorization: Bearer {ask.key}\r\n\r\n".encode()


def _post(ask: Ask, document: dict[str, Any]) -> bytes:
    """As the openai client sends it, with its many fields."""
    body = json.dumps(document, separators=(",", ":")).encode()
    fields = {
        "Host": f"{ask.host}:{ask.port}",
        "Authorization": f"Bearer {ask.key}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "OpenAI/Python 3.54.0",
        "X-Stainless-Lang": "python",
        "X-Stainless-Package-Version": "3.54.0",
        "X-Stainless-OS": "Linux",
        "X-Stainless-Arch": "x64",
        "X-Stainless-Runtime": "CPython",
        "X-Stainless-Runtime-Version": "3.11.7",
        "X-Stainless-Async": "false",
        "X-Stainless-Retry-Count": "0",
        "X-Stainless-Read-Timeout": "600",
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {ask.path} HTTP/1.1\r\n{head}\r\n".encode() + body
