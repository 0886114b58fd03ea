"""The faults as a caller meets them, on a bare socket, and the journal's account of each."""

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.sandbox.conftest import CHAT, Toy, read_to_end

ASKED = [{"role": "user", "content": "Hello"}]
LAST_CHUNK = b"\r\n0\r\n\r\n"


def chat(toy: Toy, *faults: dict[str, Any], stream: bool = False, **body: Any) -> bytes:
    toy.faults(*faults)
    return read_to_end(toy.open_chat(stream=stream, **body))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ({"upstream": [{"kind": "nix"}]}, "unknown kind 'nix'"),
        ({"issuer": [{"kind": "cut"}]}, "unknown kind 'cut'"),
        ({"upstream": [{"kind": "hang", "tims": 1}]}, "unknown parameters of hang: tims"),
        ({"upstream": [{"kind": "hang", "times": 0}]}, "times must be"),
        ({"upstream": [{"kind": "delay"}]}, "delay_s is missing"),
        ({"upstream": [{"kind": "delay", "delay_s": "1"}]}, "delay_s must be a number"),
        (
            {"upstream": [{"kind": "status", "status": 500, "headers": {"a": "b\r\nc"}}]},
            "headers must be one line",
        ),
        ({"upstream": {}}, "expected a list"),
        ({"other": []}, "expected an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_that_make_no_sense_are_refused_and_change_nothing(toy: Toy, faults: Any, text: str) -> None:
    toy.faults({"kind": "hang"})
    answer = toy.http.put("/_sandbox/faults", json=faults)
    assert (answer.status_code, text in answer.json()["error"]) == (400, True)
    assert toy.http.get("/_sandbox/faults").json()["upstream"] == [{"kind": "hang", "times": None}]


def test_each_request_uses_up_one_fault_of_a_sequence(toy: Toy) -> None:
    headers = [["Retry-After", "3"], ["Set-Cookie", "a"], ["Set-Cookie", "b"]]
    toy.faults(
        {"kind": "status", "status": 503, "body": "<html>", "headers": headers, "times": 1},
        {"kind": "redirect", "location": "http://other.example/", "times": 1},
        {"kind": "refuse_token", "path": "/chat/completions", "model": "m", "times": 1},
    )
    answers = [toy.post(CHAT, model="m", messages=ASKED) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 302, 401, 200]
    assert answers[0].headers.get_list("Set-Cookie") == ["a", "b"]
    assert toy.last()["faults"] == []


def test_a_delay_goes_with_other_faults_and_the_issuer_has_its_own(toy: Toy) -> None:
    late = {"kind": "delay", "delay_s": 0.1}
    toy.faults(late, {"kind": "reply", "body": '{"error": 1}', "content_type": "text/html"}, side="issuer")
    began = time.monotonic()
    answer = toy.http.post("/token")
    assert time.monotonic() - began >= 0.1
    assert (answer.headers["Content-Type"], answer.text) == ("text/html", '{"error": 1}')
    assert toy.last()["faults"] == ["reply", "delay"]


@pytest.mark.parametrize(
    ("fault", "stream", "expected"),
    [
        ({"kind": "close"}, False, b""),
        (
            {"kind": "raw", "bytes": b64(b"HTTP/9"), "pieces": [b64(b"\0"), b64(b"\xff")]},
            False,
            b"HTTP/9\0\xff",
        ),
    ],
    ids=["close", "raw"],
)
def test_raw_faults_write_just_those_bytes(toy: Toy, fault: Any, stream: bool, expected: bytes) -> None:
    assert chat(toy, fault, stream=stream) == expected
    assert toy.last()["end"] == "fault"


@pytest.mark.parametrize("fault", [{"kind": "reset"}, {"kind": "stream_reset", "frames": 0}], ids=str)
def test_resets_reach_the_caller_as_resets(toy: Toy, fault: Any) -> None:
    with pytest.raises(ConnectionResetError):
        chat(toy, fault, stream=True)
    assert toy.last()["end"] == "fault"


@pytest.mark.parametrize("half", [False, True])
def test_cut_stream_ends_without_its_last_chunk(toy: Toy, half: bool) -> None:
    got = chat(toy, {"kind": "cut", "frames": 3, "half": half}, stream=True)
    assert (got.count(b"data: "), got.count(b"\n\n")) == (4 if half else 3, 3)
    assert not got.endswith(LAST_CHUNK)
    assert (toy.last()["frames_sent"], toy.last()["answer_sha256"]) == (3, None)


@pytest.mark.parametrize(
    ("fault", "has_finish", "has_done"),
    [({"kind": "no_done"}, True, False), ({"kind": "no_finish"}, False, False)],
    ids=str,
)
def test_ends_are_left_out_of_a_clean_end(toy: Toy, fault: Any, has_finish: bool, has_done: bool) -> None:
    toy.faults(fault)
    text = toy.post(CHAT, messages=ASKED, stream=True).text
    assert ('"finish_reason":"stop"' in text, "[DONE]" in text) == (has_finish, has_done)
    assert toy.last()["end"] == "done"


def test_frames_and_crlf_come_as_they_were_given(toy: Toy) -> None:
    pieces = [b"data: 1", b"\n\nda", b"ta: \xff\n\n"]
    toy.faults({"kind": "frames", "pieces": [b64(piece) for piece in pieces], "pause_ms": 1})
    answer = toy.post(CHAT, messages=ASKED, stream=True)
    assert (answer.content, answer.headers["Content-Type"][:17]) == (b"".join(pieces), "text/event-stream")
    toy.faults({"kind": "sse_crlf"})
    assert toy.post(CHAT, messages=ASKED, stream=True).text.endswith("\r\n\r\ndata: [DONE]\r\n\r\n")


@pytest.mark.parametrize("stream", [False, True])
def test_gzip_is_decoded_to_the_normal_answer(toy: Toy, stream: bool) -> None:
    toy.faults({"kind": "gzip"})
    answer = toy.post(CHAT, messages=ASKED, stream=stream, sandbox_interval_ms=1)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "You said" in answer.text if not stream else answer.text.endswith("[DONE]\n\n")


def test_large_replies_can_be_packed_small(toy: Toy) -> None:
    toy.faults({"kind": "reply", "body": "0" * 1000, "repeat": 1000}, {"kind": "gzip"})
    got = toy.post(CHAT, messages=ASKED)
    assert (int(got.headers["Content-Length"]) < 5000, len(got.content)) == (True, 1_000_000)


@pytest.mark.parametrize("stream", [False, True])
def test_short_promises_more_than_it_sends(toy: Toy, stream: bool) -> None:
    head, _, body = chat(toy, {"kind": "short", "missing_bytes": 7}, stream=stream).partition(b"\r\n\r\n")
    promised = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert (promised - len(body), b"chunked" in head) == (7, False)


def test_drip_gives_one_byte_at_a_time(toy: Toy) -> None:
    toy.faults({"kind": "drip", "pause_ms": 1, "body": "0123456789"})
    with toy.open_chat(stream=False) as caller:
        pieces = [caller.recv(65536)]
        while not pieces[-1].endswith(b"9"):
            pieces.append(caller.recv(65536))
    assert len(pieces) > 5


def test_base64_can_be_ignored(toy: Toy) -> None:
    toy.faults({"kind": "ignore_base64"})
    data = toy.post("/v1/embeddings", input="a", encoding_format="base64").json()["data"]
    assert isinstance(data[0]["embedding"][0], float)


@pytest.mark.parametrize(
    "fault", [{"kind": "hang"}, {"kind": "stall", "frames": 2}, {"kind": "delay", "delay_s": 60}], ids=str
)
def test_a_caller_who_leaves_is_noticed_within_50_ms(toy: Toy, fault: Any) -> None:
    toy.faults(fault)
    with toy.open_chat(stream=True) as caller:
        wait_until(lambda: toy.state()["open"] == 1)
        if fault["kind"] == "stall":
            assert caller.recv(65536).startswith(b"HTTP/1.1 200 OK")
        left_at = time.time()
    wait_until(lambda: toy.state()["open"] == 0)
    assert toy.last()["end"] == "caller_gone"
    assert toy.last()["ended_at"] - left_at < 0.05


def test_connection_is_closed_behind_an_answer_that_did_not_say_so(toy: Toy) -> None:
    began = time.monotonic()
    got = chat(toy, {"kind": "no_keepalive_notice", "after_ms": 50})
    assert time.monotonic() - began >= 0.05
    assert b"You said" in got
    assert b"connection:" not in got.lower()
    assert toy.last()["end"] == "done"


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
