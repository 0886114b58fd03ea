"""The bytes of event streams, however the upstream cuts and ends them: right frames out, and memory bounded."""

import hashlib
import json

import pytest

from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.worker_memory import WorkerMemory

MIB = 1024 * 1024
DONE = b"data: [DONE]\n\n"
BROKE_OFF = b'data: {"error": {"message": "The upstream stream broke off."'
TEXTS = ["Zürich", "日本", "😀", "\u2028", "a\\nb", '"', ""]
FRAMES = [
    b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False).encode() for text in TEXTS
]
CLEAN = b"".join(frame + b"\n\n" for frame in FRAMES) + DONE


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000], ids=lambda size: f"pieces of {size}")
@pytest.mark.parametrize(
    "ends",
    [[b"\n"], [b"\r\n"], [b"\r"], [b"\n", b"\r\n", b"\r"], [b"\r", b"\n", b"\r\n", b"\n"]],
    ids=["LF", "CRLF", "CR", "mixed", "mixed otherwise"],
)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_frames_are_the_same_whatever_the_line_ends_and_the_cuts(
    proxy: ProxyProcess, sandbox: SandboxClient, start: bytes, ends: list[bytes], size: int
) -> None:
    # CR and LF of different lines must not meet: together they would end one line.
    lines = [line for frame in [*FRAMES, DONE.strip()] for line in (frame, b": x", b"event: y", b"")]
    text = start
    for at, line in enumerate(lines):
        end = ends[at % len(ends)]
        if text.endswith(b"\r") and not line and end == b"\n":
            end = b"\r"
        text += line + end
    sandbox.frames(*(text[at : at + size] for at in range(0, len(text), size)))
    with always_true(proxy, sandbox) as watch:
        stream = watch.chat(stream=True).content
    assert b"".join(frame + b"\n\n" for frame in stream.split(b"\n\n") if frame not in (b"", b": x")) == CLEAN


@pytest.mark.parametrize("as_one", [True, False], ids=["one read", "one each"])
def test_10000_frames_cross_byte_for_byte(proxy: ProxyProcess, sandbox: SandboxClient, as_one: bool) -> None:
    frames = [b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % number for number in range(10_000)]
    sandbox.frames(*([b"".join(frames)] if as_one else frames), DONE)
    with always_true(proxy, sandbox) as watch:
        stream = watch.chat(stream=True).content
    assert hashlib.sha256(stream).hexdigest() == sandbox.last()["answer_sha256"]
    assert stream == b"".join(frames) + DONE


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", bytes(range(14, 32))])
@pytest.mark.parametrize("size", [1, 100_000], ids=lambda size: f"pieces of {size}")
def test_what_is_no_utf_8_crosses_unchanged(
    proxy: ProxyProcess, sandbox: SandboxClient, data: bytes, size: int
) -> None:
    text = b'data: {"choices":[{"delta":{"content":"' + data + b'"}}]}\n\n' + DONE
    sandbox.frames(*(text[at : at + size] for at in range(0, len(text), size)))
    with always_true(proxy, sandbox) as watch:
        assert watch.chat(stream=True).content == text


@pytest.mark.parametrize("length", [MIB // 2, MIB - 2], ids=["512 KiB", "just below 1 MiB"])
def test_frame_of_up_to_1_mib_crosses(proxy: ProxyProcess, sandbox: SandboxClient, length: int) -> None:
    frame = b'data: {"choices":"' + b"x" * (length - 20) + b'"}\n\n'
    sandbox.frames(frame[:1000], frame[1000:], DONE)
    with always_true(proxy, sandbox) as watch:
        assert watch.chat(stream=True).content == frame + DONE


@pytest.mark.parametrize("kib", [1025, 8 * 1024, 64 * 1024], ids=["just above 1 MiB", "8 MiB", "64 MiB"])
def test_longer_frame_is_cut_with_an_error_event_and_takes_no_memory(
    proxy: ProxyProcess, sandbox: SandboxClient, kib: int
) -> None:
    fault = {"kind": "reply", "content_type": "text/event-stream", "body": "data: " + "x" * 1018, "repeat": kib}
    with always_true(proxy, sandbox) as watch:
        watch.chat(stream=True)
        memory = WorkerMemory(proxy)
        sandbox.faults(upstream=[fault])
        stream = watch.chat(stream=True).content
    assert stream.startswith(BROKE_OFF)
    assert stream.count(b"\n\n") == 1
    assert memory.growth_at_most() < 8 * MIB
