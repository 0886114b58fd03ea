"""A request's body off the caller's connection, within the limits of size and of time: whole, or piece by piece.

Used by the blueprints whose routes take a body; what it says is read in `body` and `form`.
"""

import time
from collections.abc import Generator
from typing import Any

from gunicorn.http.errors import ParseException

from proxy.caller_source import BODY_S, WRITE_S, waits_are_limited
from proxy.errors import BodyTimeout, BodyTooLarge, CallerGone, InvalidChunks
from proxy.gunicorn_body import TooMuchAnnounced, has_come, limit_chunks, limit_wait, read_some
from proxy.request_state import RequestState

WHOLE_BYTES = 1024 * 1024  # at a time, where all is awaited
PIECE_BYTES = 64 * 1024  # of a body that goes on as it comes: no piece needs to be longer
LOOK_EVERY_S = 0.2  # while nothing comes of such a body


def declared_bytes(environ: dict[str, Any]) -> int | None:
    """The body's length; None where it comes in chunks, or not at all."""
    return int(environ["CONTENT_LENGTH"]) if "CONTENT_LENGTH" in environ else None  # checked by gunicorn


def read_bytes(state: RequestState, most: int) -> bytes:
    """The request's body. Raises as read_pieces does."""
    pieces = [*read_pieces(state, most, at_least=WHOLE_BYTES)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_pieces(state: RequestState, most: int, *, at_least: int | None = None) -> Generator[bytes, None, None]:
    """The request's body in pieces. Counted by us: werkzeug's own limit cuts chunked bodies short without a word.

    `at_least` so long, but for the last. By default each as it comes, the time in which nobody asks for the next one
    not counted, and an empty one while nothing comes, for whoever has something else to look at.
    Raises BodyTooLarge, BodyTimeout, InvalidChunks or CallerGone.
    """
    environ = state.environ
    declared = declared_bytes(environ)
    if declared is not None and declared > most:
        raise BodyTooLarge(f"The request body is longer than {most} bytes.")
    stream = environ["wsgi.input"]
    limit_chunks(stream, most)
    sock = None if waits_are_limited.get() else environ.get("gunicorn.socket")
    before_s = None if sock is None else sock.gettimeout()
    come_bytes, left_s = 0, BODY_S
    try:
        if sock is not None:
            sock.settimeout(BODY_S)
        while True:
            began = time.monotonic()
            data = b""
            wanted = at_least or _piece_bytes(come_bytes)
            if come_bytes and at_least is None:
                limit_wait(stream, left_s)
            # The first is awaited: nobody has anything else to look at yet, and it is the read that asks for it.
            if at_least or not come_bytes or has_come(stream, environ.get("gunicorn.socket"), wanted, LOOK_EVERY_S):
                data = read_some(stream, wanted)
                if not data:
                    break
            come_bytes += len(data)
            if come_bytes > most:
                raise TooMuchAnnounced
            left_s -= time.monotonic() - began
            if left_s < 0:
                raise BodyTimeout
            yield data
    except TooMuchAnnounced as error:
        raise BodyTooLarge(f"The request body is longer than {most} bytes.") from error
    except TimeoutError as error:
        raise BodyTimeout from error
    except ParseException as error:
        raise InvalidChunks from error
    except OSError as error:
        raise CallerGone from error
    finally:
        if sock is not None:
            # From here on for writes: a caller that never reads is cut.
            sock.settimeout(WRITE_S)
            state.at_end.append(lambda: sock.settimeout(before_s))
    if declared is not None and come_bytes < declared:
        raise CallerGone


def _piece_bytes(come_bytes: int) -> int:
    """The least length of the next piece: the first goes on at once, and a body in many small chunks has at most some
    1,500 pieces, each of which costs as much as a long one."""
    return min(PIECE_BYTES, 1 + come_bytes // 64)
