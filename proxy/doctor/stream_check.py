"""Reads one event stream to its end, within limits, and says how it came and ended."""

import time

import httpx2

from proxy import sse
from proxy.doctor.foreign_text import media_type
from proxy.doctor.report import Report, in_milliseconds
from proxy.doctor.upstream_causes import transport_cause
from proxy.doctor.upstream_client import ANSWER_MOST_BYTES, Answer, Stream
from proxy.errors import ProxyError


def report_stream(report: Report, answer: Answer, stream: Stream, host: str) -> None:
    """The line about an answer of 2xx to a request for a stream; closes it."""
    head = f"{answer.status} in {in_milliseconds(answer.took_s)}"
    if media_type(answer.content_type) != sse.MEDIA_TYPE:
        stream.close(keep=False)
        report.warn("stream", f"{head}, {media_type(answer.content_type)}, where {sse.MEDIA_TYPE} was asked for")
        return
    reader = sse.FrameReader()
    frames, first_s = 0, 0.0
    received = 0
    try:
        while not reader.done and received < ANSWER_MOST_BYTES and (data := stream.read()):
            received += len(data)
            block = reader.feed(data)
            frames += sum(frame.startswith(b"data: ") and frame != sse.DONE[:-2] for frame in block.split(b"\n\n"))
            if frames and not first_s:
                first_s = time.monotonic() - answer.begun_at
    except httpx2.TransportError as error:
        report.fail("stream", f"{head}, broken off after {frames} frames: {transport_cause(error, host)}")
        return
    except ProxyError as error:  # an adapter's
        report.fail("stream", f"{head}, broken off after {frames} frames: {error.cause}")
        return
    except sse.FrameTooLong:
        report.fail("stream", f"{head}, a frame is longer than {sse.FRAME_MOST_BYTES} bytes")
        return
    finally:
        stream.close(keep=False)
    _report_end(report, f"{head}, first frame after {in_milliseconds(first_s)}, {frames} frames", reader, frames)


def _report_end(report: Report, text: str, reader: sse.FrameReader, frames: int) -> None:
    if reader.ended_in_error:
        report.fail("stream", f"{text}, the last one an error of the upstream's")
    elif reader.done and frames:
        report.ok("stream", f"{text}, [DONE]")
    elif reader.done:
        report.fail("stream", f"{text}: [DONE] and nothing before it")
    elif reader.is_finished:
        report.warn("stream", f"{text}, finished, but no [DONE] at the end: the proxy adds it")
    else:
        report.fail("stream", f"{text}, no finish_reason and no [DONE]: cut by the upstream or by a gateway before it")
