"""FastChat's controller and its openai_api_server with a model worker whose model is a toy, all in one process.

Called as `python fastchat_server.py API_PORT CONTROLLER_PORT WORKER_PORT KEY`, and ended by a signal.
FastChat's own worker needs torch; this one has its routes and repeats the user's words. The model "broken" breaks.
Token arrays are turned into words with a vocabulary from the internet; here each number is a character.
"""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import fastapi
import tiktoken
import uvicorn
from fastapi.responses import StreamingResponse
from fastchat.conversation import get_conv_template
from fastchat.serve import controller, openai_api_server

API_PORT, CONTROLLER_PORT, WORKER_PORT = map(int, sys.argv[1:4])
KEY = sys.argv[4]
HOST = "127.0.0.1"
MODELS = ["toy", "broken"]
BROKEN = {"text": "The model broke.", "error_code": 50001}
STATUS = {"model_names": MODELS, "speed": 1, "queue_length": 0}
worker = fastapi.FastAPI()
left: list[str] = []


class Characters:
    """A vocabulary in which each token is a character."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


tiktoken.get_encoding = lambda _: Characters()


@worker.post("/worker_get_status")
async def get_status() -> dict[str, Any]:
    return STATUS


@worker.post("/worker_get_conv_template")
async def get_conv() -> dict[str, Any]:
    conv = get_conv_template("vicuna_v1.1")
    return {"conv": {**vars(conv), "sep_style": int(conv.sep_style)}}


@worker.post("/model_details")
async def get_details() -> dict[str, int]:
    return {"context_length": 2048}


@worker.post("/count_token")
async def count(request: fastapi.Request) -> dict[str, int]:
    return {"count": len((await request.json())["prompt"]), "error_code": 0}


@worker.post("/worker_generate")
async def generate(request: fastapi.Request) -> dict[str, Any]:
    return [piece async for piece in answer(await request.json())][-1]


@worker.post("/worker_generate_stream")
async def generate_stream(request: fastapi.Request) -> StreamingResponse:
    params = await request.json()
    return StreamingResponse(pieces(params))


async def pieces(params: dict[str, Any]) -> AsyncIterator[bytes]:
    at_end = False
    try:
        async for piece in answer(params):
            yield json.dumps(piece).encode() + b"\0"
        at_end = True
    finally:
        left.extend([] if at_end else [params["model"]])


@worker.get("/left")
async def get_left() -> list[str]:
    """The models of the streams that nobody waited for the end of."""
    return left


@worker.post("/worker_get_embeddings")
async def embed(request: fastapi.Request) -> dict[str, Any]:
    texts = (await request.json())["input"]
    return {"embedding": [[float(len(text)), 0.5] for text in texts], "token_num": sum(map(len, texts))}


async def answer(params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Each piece holds all the text so far; the last one has no more of it."""
    if params["model"] == "broken":
        yield BROKEN
        return
    pictures = f" with {len(images)} picture" if (images := params.get("images")) else ""
    text = "You said: " + params["prompt"].rpartition("USER: ")[2].removesuffix(" ASSISTANT:") + pictures
    text = text.replace("$$<image>$$", "")  # where the conversation puts a picture
    usage = {"prompt_tokens": 3, "completion_tokens": len(text), "total_tokens": 3 + len(text)}
    for end in range(1, len(text) + 1):
        yield {"text": text[:end], "usage": usage, "error_code": 0, "finish_reason": None}
        await asyncio.sleep(0.01)
    yield {"text": text, "usage": usage, "error_code": 0, "finish_reason": "stop"}


def main() -> None:
    controller.controller = controller.Controller("shortest_queue")
    controller.controller.register_worker(f"http://{HOST}:{WORKER_PORT}", False, STATUS, False)
    openai_api_server.app_settings.controller_address = f"http://{HOST}:{CONTROLLER_PORT}"
    openai_api_server.app_settings.api_keys = [KEY]
    for app, port in ((worker, WORKER_PORT), (controller.app, CONTROLLER_PORT)):
        threading.Thread(target=uvicorn.run, args=(app,), kwargs={"host": HOST, "port": port}, daemon=True).start()
    uvicorn.run(openai_api_server.app, host=HOST, port=API_PORT)


main()
