"""Images and sound, where bodies are not JSON: uploads that are only measured, answers that are bytes."""

import base64
import hashlib
import struct
import time
import zlib
from typing import Any

from sandbox.answers.shape import Answer, bytes_answer, json_answer
from sandbox.answers.wording import read_number

_DEFAULT_SAMPLES = 8_000


def answer_image(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/images/generations: n grey images of one pixel."""
    image = base64.b64encode(_one_pixel_png()).decode()
    times = int(read_number(body, "n", 1, 1, 10))
    return json_answer({"created": int(time.time()), "data": [{"b64_json": image}] * times})


def answer_speech(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/audio/speech: a WAV of silence, of as many samples as sandbox_answer_chars says."""
    samples = int(read_number(body, "sandbox_answer_chars", _DEFAULT_SAMPLES, 0, 100_000_000))
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8_000, 8_000, 1, 8)
    sound = layout + struct.pack("<4sI", b"data", samples) + b"\x80" * samples
    wav = struct.pack("<4sI4s", b"RIFF", 4 + len(sound), b"WAVE") + sound
    return bytes_answer(200, "audio/wav", wav)


def answer_upload(body: bytes) -> Answer:
    """Answer POST /v1/audio/transcriptions and translations: what came, by size and hash."""
    return json_answer({"text": f"The sandbox heard {len(body)} bytes, {hashlib.sha256(body).hexdigest()}."})


def _one_pixel_png() -> bytes:
    layout = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", layout), (b"IDAT", zlib.compress(b"\x00\x80")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
