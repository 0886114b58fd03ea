"""Callers that ask for streams, chats and embeddings, one after the other, and read every answer to its end."""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.soaking.answer import Answer
from bench.soaking.caller import Caller, SecretSeen
from bench.soaking.record import Record, Register

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
SHED_PAUSE_S = 1.0  # as Retry-After says
SILENT_AFTER_S = 150.0  # longer than any answer takes: the proxy's own limits come before it
_FRAMES_PER_S = (1, 2, 5, 10, 20)
_SILENT_ONES = 0.02  # of the streams: so slow that the proxy writes comments in between
_SILENT_S = 5.0


@dataclass(frozen=True)
class Stage:
    """What every caller is given: whom to ask, with which keys, and where its records go."""

    port: int
    register: Register
    key: str
    short_key: str  # one that may run but a few requests at a time
    secrets: tuple[bytes, ...]
    longest_s: float  # of a stream
    body_most_bytes: int  # that the proxy takes
    stopping: asyncio.Event

    def caller(self, **options: Any) -> Caller:
        return Caller(self.port, self.secrets, **options)

    async def pause(self, seconds: float) -> None:
        """Wait; over at once when all are to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return


def post(path: str, record: Record, body: bytes | dict[str, Any], *, key: str) -> bytes:
    """The bytes of a request, whose body names the record's identity as its model if it is a dict."""
    raw = body if isinstance(body, bytes) else json.dumps({"model": record.identity, **body}).encode()
    fields = (f"Authorization: Bearer {key}", f"X-Request-Id: {record.identity}", f"Content-Length: {len(raw)}")
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: proxy", "Content-Type: application/json", *fields])
    return f"{head}\r\n\r\n".encode() + raw


def messages(text: str = "Hello") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def exchange(
    stage: Stage,
    record: Record,
    act: Callable[[Answer], Awaitable[None]],
    *,
    expects: int | None = None,
    is_request: bool = True,
) -> Answer:
    """Do what the act does, and take the record down, however it goes; the answer as far as it came.

    `expects`: the one status that is right, but where the proxy is full. Not `is_request`: there is none to count.
    """
    answer = Answer()
    try:
        async with asyncio.timeout(SILENT_AFTER_S):
            await act(answer)
    except TimeoutError:
        record.outcome = "silent"
    except SecretSeen:
        record.fault = "a secret in the answer"
    except ValueError as error:
        record.fault = f"no HTTP: {error}"
    except OSError:
        pass  # the connection broke: what has come is looked at below
    except asyncio.CancelledError:
        record.left_at, record.lines_least = time.time(), 0
        raise
    finally:
        _take_down(record, answer, expects, is_request=is_request)
        stage.register.end(record)
    return answer


def _take_down(record: Record, answer: Answer, expects: int | None, *, is_request: bool) -> None:
    if not is_request:
        record.outcome, record.lines_least = "no request", 0
    elif record.left_at is not None:
        record.outcome = "left"
    elif record.outcome != "silent" and not record.fault:
        answer.describe(record)
        if expects not in (None, record.status) and record.outcome not in ("shed", "broken"):
            record.fault = f"{record.status} where {expects} is right"


async def ask(stage: Stage, kind: str, path: str, body: dict[str, Any], *, caller: Caller, key: str = "") -> Answer:
    """One request and its whole answer over this caller's connection, which is closed where the answer says so."""
    record = stage.register.begin(kind)

    async def act(answer: Answer) -> None:
        await caller.open()
        await caller.send(record, post(path, record, body, key=key or stage.key))
        await caller.read(answer)

    answer = await exchange(stage, record, act)
    if answer.says_close or not answer.is_whole:
        caller.close()
    if record.outcome == "shed":
        await stage.pause(SHED_PAUSE_S)
    return answer


def stream_body(dice: Random, longest_s: float) -> dict[str, Any]:
    """A stream of any length up to that: as many between 0.1 and 1 s as between 1 and 10 s."""
    body: dict[str, Any] = {"messages": messages(), "stream": True}
    if longest_s > 2 * _SILENT_S and dice.random() < _SILENT_ONES:
        return body | {"sandbox_frames": 2, "sandbox_interval_ms": 1000 * _SILENT_S}
    seconds = math.exp(dice.uniform(math.log(0.1), math.log(longest_s)))
    per_second = dice.choice(_FRAMES_PER_S)
    frames = max(1, int(seconds * per_second))
    return body | {"sandbox_frames": frames, "sandbox_interval_ms": 1000 * seconds / frames}


async def streams(stage: Stage, dice: Random) -> None:
    """Each over a connection of its own."""
    async with stage.caller() as caller:
        await ask(stage, "stream", CHAT, stream_body(dice, stage.longest_s), caller=caller)


class KeptCaller:
    """Asks over a connection that it keeps, with short pauses."""

    def __init__(self, kind: str, path: str, body: Callable[[Random], dict[str, Any]]) -> None:
        self._kind, self._path, self._body = kind, path, body
        self._caller: Caller | None = None

    async def __call__(self, stage: Stage, dice: Random) -> None:
        if self._caller is None:
            self._caller = stage.caller()
        await ask(stage, self._kind, self._path, self._body(dice), caller=self._caller)
        await stage.pause(dice.uniform(0.05, 0.8))

    def close(self) -> None:
        if self._caller is not None:
            self._caller.close()


def chats() -> KeptCaller:
    return KeptCaller("chat", CHAT, lambda dice: {"messages": messages("x" * dice.choice((5, 500, 50_000)))})


def embeddings() -> KeptCaller:
    return KeptCaller(
        "embeddings",
        EMBEDDINGS,
        lambda dice: {"input": ["text"] * dice.choice((1, 16, 64)), "dimensions": dice.choice((8, 256))},
    )


async def health(stage: Stage, _dice: Random) -> None:
    """A load balancer's question, five times a second; whatever else happens, it is answered."""
    record = stage.register.begin("health")

    async def act(answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            head = (
                f"GET /healthz HTTP/1.1\r\nHost: proxy\r\nX-Request-Id: {record.identity}\r\nConnection: close\r\n\r\n"
            )
            await caller.send(record, head.encode())
            await caller.read(answer)

    await exchange(stage, record, act)
    await stage.pause(0.2)
