"""All callers of a run, at once, in an event loop in a thread of its own; who runs it does other things meanwhile."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import TypeAlias

from bench.soaking.good_callers import Stage, chats, embeddings, health, streams
from bench.soaking.hostile_callers import hostile
from bench.soaking.record import Register

Act: TypeAlias = Callable[[Stage, Random], Awaitable[None]]
LEAVE_AFTER_S = 10.0  # more than the longest stream: then whoever still waits leaves
ENDS_WITHIN_S = 30.0  # all, after they were told to stop


@dataclass(frozen=True)
class Cast:
    """How many callers there are of each kind, at any time; `hostile` is a tenth of all where nothing else is said."""

    streams: int
    chats: int
    embeddings: int
    hostile: int


@dataclass(frozen=True)
class Keys:
    """`good` may do all, `short` may run but a few requests at a time; `secrets`: what no answer may hold."""

    good: str
    short: str
    secrets: tuple[str, ...]


class Load:
    """Runs from the begin of its `with` to its end, where callers finish what they are at or leave it."""

    def __init__(
        self,
        port: int,
        register: Register,
        cast: Cast,
        keys: Keys,
        *,
        seed: int,
        longest_s: float,
        body_most_bytes: int,
    ) -> None:
        """`longest_s`: of a stream, and how long callers have to finish; `body_most_bytes`: that the proxy takes."""
        self._stage = Stage(
            port=port,
            register=register,
            key=keys.good,
            short_key=keys.short,
            secrets=tuple(secret.encode() for secret in keys.secrets),
            longest_s=longest_s,
            body_most_bytes=body_most_bytes,
            stopping=asyncio.Event(),  # belongs to no loop yet
        )
        self._cast = cast
        self._seed = seed
        self._longest_s = longest_s
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callers", daemon=True)

    def check(self) -> None:
        """Raise what a caller has raised, which is a fault of the driver."""
        if self._error is not None:
            raise RuntimeError("a caller of the driver failed") from self._error

    def __enter__(self) -> "Load":
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stage.stopping.set)
        self._thread.join(self._longest_s + ENDS_WITHIN_S)
        assert not self._thread.is_alive(), "callers that do not end"
        if error is None:
            self.check()

    def _run(self) -> None:
        try:
            asyncio.run(self._run_all())
        except BaseException as error:
            self._error = error
        finally:
            self._is_up.set()

    async def _run_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        stage = self._stage
        kept = [chats() for _ in range(self._cast.chats)] + [embeddings() for _ in range(self._cast.embeddings)]
        acts: list[Act] = [*[streams] * self._cast.streams, *kept, *[hostile] * self._cast.hostile, health]
        tasks = [asyncio.create_task(self._repeat(act, Random(f"{self._seed} {n}"))) for n, act in enumerate(acts)]
        self._is_up.set()
        try:
            await self._watch(stage, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for caller in kept:
                caller.close()

    async def _repeat(self, act: Act, dice: Random) -> None:
        stage = self._stage
        await stage.pause(dice.uniform(0, min(5.0, self._longest_s)))  # they do not all come at once
        while not stage.stopping.is_set():
            await act(stage, dice)

    async def _watch(self, stage: Stage, tasks: list[asyncio.Task[None]]) -> None:
        """Until all are told to stop and have had their time. Raises what one of them raises."""
        stopped = asyncio.create_task(stage.stopping.wait())
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if stage.stopping.is_set():
            done, _ = await asyncio.wait(tasks, timeout=self._longest_s + LEAVE_AFTER_S)
        stopped.cancel()
        for task in done - {stopped}:
            task.result()
