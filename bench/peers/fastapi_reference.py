"""The reference of ours: what a competent person would write with FastAPI, AsyncOpenAI and its aiohttp client.

Bytes go through as they come, in both directions; one client for all requests, no access log, no checks. It runs in a
venv of its own under uvicorn with uvloop and httptools (fastapi.py) and imports nothing of the bench.
"""

import os
import ssl

import httpx2
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAioHttpClient
from starlette.background import BackgroundTask


def _client(base_url: str, verify: ssl.SSLContext | bool) -> AsyncOpenAI:
    limits = httpx2.Limits(max_connections=20_000, max_keepalive_connections=20_000)
    return AsyncOpenAI(
        base_url=base_url,
        api_key=os.environ["BENCH_UPSTREAM_KEY"],
        max_retries=0,
        http_client=DefaultAioHttpClient(limits=limits, verify=verify),
    )


_plain = _client(os.environ["BENCH_BASE_URL"], False)
_tls = _client(os.environ["BENCH_TLS_BASE_URL"], ssl.create_default_context(cafile=os.environ["BENCH_CA_BUNDLE"]))
app = FastAPI(openapi_url=None)


@app.post("/v1/{path:path}")
async def ask(path: str, request: Request) -> Response:
    return await _relay(_plain, path, await request.body())


@app.post("/tls/v1/{path:path}")
async def ask_over_tls(path: str, request: Request) -> Response:
    return await _relay(_tls, path, await request.body())


async def _relay(client: AsyncOpenAI, path: str, body: bytes) -> Response:
    try:
        answer = await client.post(f"/{path}", cast_to=httpx2.Response, content=body, options=_OPTIONS, stream=True)
    except APIStatusError as error:
        return Response(error.response.content, error.status_code, media_type="application/json")
    except APIConnectionError:
        return Response(b'{"error": {"message": "The upstream is away."}}', 502, media_type="application/json")
    media_type = answer.headers["Content-Type"]
    if media_type.startswith("text/event-stream"):
        return StreamingResponse(answer.aiter_raw(), media_type=media_type, background=BackgroundTask(answer.aclose))
    return Response(await answer.aread(), media_type=media_type)


_OPTIONS = {"headers": {"Content-Type": "application/json", "Accept-Encoding": "identity"}}
