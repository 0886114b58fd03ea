"""The openai Python client's two forms as one: a call is written once and made with either of them."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Literal

import openai

Form = Literal["sync", "async"]
Call = Callable[[Any], Any]


class Twin:
    """One of the clients, at one address. Calls get it as their only argument."""

    def __init__(self, form: Form, base_url: str, **options: Any) -> None:
        self._form = form
        self._options = {"base_url": base_url, "api_key": "any", "max_retries": 0, **options}

    def ask(self, call: Call) -> Any:
        """Get what a call answers; a list where it is a stream or a page."""
        return self._run_sync(call) if self._form == "sync" else asyncio.run(self._run_async(call))

    def leave_after_first(self, call: Call) -> Any:
        """Get the first event of a stream, and close it."""
        return self._leave_sync(call) if self._form == "sync" else asyncio.run(self._leave_async(call))

    def _run_sync(self, call: Call) -> Any:
        with openai.OpenAI(**self._options) as client:
            answer = call(client)
            return list(answer) if isinstance(answer, openai.Stream) else answer

    async def _run_async(self, call: Call) -> Any:
        async with openai.AsyncOpenAI(**self._options) as client:
            answer = call(client)
            answer = await answer if inspect.isawaitable(answer) else answer
            return [event async for event in answer] if isinstance(answer, openai.AsyncStream) else answer

    def _leave_sync(self, call: Call) -> Any:
        with openai.OpenAI(**self._options) as client, call(client) as stream:
            return next(iter(stream))

    async def _leave_async(self, call: Call) -> Any:
        async with openai.AsyncOpenAI(**self._options) as client, await call(client) as stream:
            return await anext(aiter(stream))
