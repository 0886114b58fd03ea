"""Callers that leave, drip, never read, lie, or speak no HTTP. Each act is one visit; what must come of it is checked.

What cannot be told from outside is not demanded: a request that was reset may have been destroyed before it was read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeAlias

from bench.soaking.answer import Answer
from bench.soaking.caller import Caller
from bench.soaking.good_callers import CHAT, EMBEDDINGS, Stage, ask, exchange, messages, post, stream_body
from bench.soaking.record import Record

Act: TypeAlias = Callable[[Stage, Random], Awaitable[None]]
HEAD_S, BODY_S = 10.0, 30.0  # the proxy's limits
LATE_S = 8.0  # by which it may be late on a busy machine
_MORE_BYTES = 65536  # in a chunk that does not end: gunicorn reads on until it has another 1,024 bytes
_BAD_BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"messages": []}',
    b'{"model": 1}',
    b'{"model": "a", "model": "b"}',
    b'{"model": "a", "temperature": NaN}',
    b'{"model": "a", "n": ' + b"9" * 5000 + b"}",
    b'{"model": "a", "user": "\\ud800"}',
    b'{"model": "a", "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    '{"model": "a"}'.encode("utf-16"),
    b'{"model": "a"} trailing',
)
_JUNK = (
    b"\r\n\r\nGARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization Bearer x\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"\0" * 100 + b"\r\n\r\n",
)


async def leave(stage: Stage, dice: Random) -> None:
    """After some frames of a stream, or before the first byte of an answer; with FIN or RST."""
    frames, resets = dice.choice((0, 0, 1, 2, 5)), dice.random() < 0.5
    record = stage.register.begin("leaves with RST" if resets else "leaves with FIN")
    body = stream_body(dice, stage.longest_s) if dice.random() < 0.8 else {"messages": messages()}

    async def act(answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            await caller.send(record, post(CHAT, record, body, key=stage.key))
            if frames:
                await caller.read(answer, lambda: answer.frames >= frames)
            if answer.is_whole or (frames and answer.frames < frames):
                return  # it was over before
            _leave(caller, record, resets=resets, is_read=bool(answer.status))

    await exchange(stage, record, act)


async def half_head(stage: Stage, dice: Random) -> None:
    """Is closed in time; or leaves before."""
    record = stage.register.begin("half a head")

    async def act(_answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            await caller.send(record, b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\nX-Half: ")
            await _wait_for_end(caller, record, HEAD_S if dice.random() < 0.3 else dice.uniform(0.1, 3))

    await exchange(stage, record, act, is_request=False)


async def half_body(stage: Stage, dice: Random) -> None:
    """Gets a 408 in time; or leaves before."""
    waits, resets = dice.random() < 0.2 and stage.longest_s > BODY_S, dice.random() < 0.5
    record = stage.register.begin("half a body")

    async def act(answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            whole = post(CHAT, record, {"messages": messages("x" * 1000)}, key=stage.key)
            await caller.send(record, whole[:-500])
            if waits:
                await caller.read(answer)
            else:
                await stage.pause(dice.uniform(0.05, 2))
                _leave(caller, record, resets=resets, is_read=False)

    await exchange(stage, record, act)


async def never_read(stage: Stage, dice: Random) -> None:
    """Asks for much, reads nothing, and is gone after a while: by then the proxy may have cut it."""
    record = stage.register.begin("never reads")
    size = {"sandbox_frames": 2000, "sandbox_interval_ms": 0, "sandbox_answer_chars": 20_000_000}

    async def act(_answer: Answer) -> None:
        async with stage.caller(receive_bytes=4096) as caller:
            await caller.open()
            body = {"messages": messages(), "stream": True, **size}
            await caller.send(record, post(CHAT, record, body, key=stage.key))
            await stage.pause(dice.uniform(1, min(80, 2 * stage.longest_s)))
            _leave(caller, record, resets=True, is_read=False)

    await exchange(stage, record, act)


async def bad_body(stage: Stage, dice: Random) -> None:
    await _refused(stage, "bad JSON", 400, lambda record: post(CHAT, record, dice.choice(_BAD_BODIES), key=stage.key))


async def wrong_key(stage: Stage, dice: Random) -> None:
    key = dice.choice(("sk-wrong", "", stage.key[:-1], "x' OR 1=1--", "k" * 4000))
    await _refused(
        stage, "wrong key", 401, lambda record: post(CHAT, record, {"messages": messages(), "stream": True}, key=key)
    )


async def two_keys(stage: Stage, _dice: Random) -> None:
    def request(record: Record) -> bytes:
        return post(CHAT, record, {"messages": messages()}, key=f"{stage.key}\r\napi-key: another")

    await _refused(stage, "two keys", 400, request)


async def too_large(stage: Stage, dice: Random) -> None:
    """By what its length says, or by what its chunks hold."""
    is_chunked = dice.random() < 0.5

    def request(record: Record) -> bytes:
        whole = post(CHAT, record, b"", key=stage.key)
        if is_chunked:
            size = stage.body_most_bytes + _MORE_BYTES
            head = whole.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            return head + b"%x\r\n" % size + b"x" * size
        return whole.replace(
            b"Content-Length: 0", b"Content-Length: %d" % dice.choice((stage.body_most_bytes + 1, 10**30))
        )

    await _refused(stage, "too large", 413, request)


async def bad_chunks(stage: Stage, dice: Random) -> None:
    def request(record: Record) -> bytes:
        head = post(CHAT, record, b"", key=stage.key).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        return head + dice.choice((b"zz\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n", b"\r\n"))

    await _refused(stage, "bad chunks", 400, request)


async def pipelined_junk(stage: Stage, dice: Random) -> None:
    """A good request with no HTTP behind it: the first is answered, then the connection ends."""
    record = stage.register.begin("pipelines junk")
    body = {"input": "text"} if dice.random() < 0.5 else stream_body(dice, 2.0)

    async def act(answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            path = CHAT if "stream" in body else EMBEDDINGS
            await caller.send(record, post(path, record, body, key=stage.key) + dice.choice(_JUNK))
            await _read_first(caller, answer)

    await exchange(stage, record, act)


async def junk(stage: Stage, dice: Random) -> None:
    record = stage.register.begin("junk")

    async def act(_answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            await caller.send(record, dice.choice(_JUNK))
            await _wait_for_end(caller, record, HEAD_S)

    await exchange(stage, record, act, is_request=False)


async def too_many(stage: Stage, _dice: Random) -> None:
    """With a key that may run but a few at a time."""
    body = {"messages": messages(), "stream": True, "sandbox_frames": 5, "sandbox_interval_ms": 100}
    callers = [stage.caller() for _ in range(10)]
    try:
        await asyncio.gather(
            *(ask(stage, "too many", CHAT, body, caller=caller, key=stage.short_key) for caller in callers)
        )
    finally:
        for caller in callers:
            caller.close()


ACTS: tuple[Act, ...] = (
    *(leave, leave, leave, half_head, half_body, never_read, bad_body, wrong_key, two_keys, too_large, bad_chunks),
    *(pipelined_junk, junk, too_many),
)


async def hostile(stage: Stage, dice: Random) -> None:
    """One visit of any kind."""
    await dice.choice(ACTS)(stage, dice)
    await stage.pause(dice.uniform(0, 1))


async def _refused(stage: Stage, kind: str, status: int, request: Callable[[Record], bytes]) -> None:
    """Send it, and be answered with that status."""
    record = stage.register.begin(kind)

    async def act(answer: Answer) -> None:
        async with stage.caller() as caller:
            await caller.open()
            await caller.send(record, request(record))
            await caller.read(answer)

    await exchange(stage, record, act, expects=status)


async def _read_first(caller: Caller, answer: Answer) -> None:
    """Read an answer to its end, and what follows it too: another answer of the proxy, and the end."""
    await caller.read(answer)
    if answer.is_whole:
        async with asyncio.timeout(HEAD_S + LATE_S):
            await caller.read_to_end()


def _leave(caller: Caller, record: Record, *, resets: bool, is_read: bool) -> None:
    if resets:
        caller.reset()
        record.lines_least = 1 if is_read else 0
    else:
        caller.close()
    record.left_at = time.time()


async def _wait_for_end(caller: Caller, record: Record, seconds: float) -> None:
    """Wait so long for the proxy to close; it must, where its own limit was given and some time more."""
    must = seconds >= HEAD_S
    try:
        async with asyncio.timeout(seconds + (LATE_S if must else 0)):
            await caller.read_to_end()
    except TimeoutError:
        if must:
            record.fault = f"still open after {seconds + LATE_S:.0f} s"
