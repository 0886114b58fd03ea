"""An async transport that is made at its first request: a missing certificate fails that one, and not the worker."""

from collections.abc import Callable

import httpx2


class LazyTransport(httpx2.AsyncBaseTransport):
    def __init__(self, make: Callable[[], httpx2.AsyncBaseTransport]) -> None:
        """`make` may raise OSError: the request fails as if no connection came about, and the next one tries again."""
        self._make = make
        self._transport: httpx2.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._transport is None:
            try:
                self._transport = self._make()
            except OSError as error:
                raise httpx2.ConnectError(type(error).__name__) from error
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
