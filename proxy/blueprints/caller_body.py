"""A request's body off the caller's connection: whole, within the limits of size and of time.

Used by the blueprints whose routes take a body; what it says is read in `body`.
"""

import time

from gunicorn.http.errors import ParseException

from proxy.caller_source import BODY_S, WRITE_S, waits_are_limited
from proxy.errors import BodyTimeout, BodyTooLarge, CallerGone, InvalidChunks
from proxy.gunicorn_body import TooMuchAnnounced, limit_chunks
from proxy.request_state import RequestState

PIECE_BYTES = 1024 * 1024


def read_bytes(state: RequestState, most: int) -> bytes:
    """The request's body. Counted by us: werkzeug's own limit cuts chunked bodies short without a word."""
    environ = state.environ
    declared = int(environ["CONTENT_LENGTH"]) if "CONTENT_LENGTH" in environ else None  # checked by gunicorn
    if declared is not None and declared > most:
        raise BodyTooLarge(f"The request body is longer than {most} bytes.")
    stream = environ["wsgi.input"]
    limit_chunks(stream, most)
    sock = None if waits_are_limited.get() else environ.get("gunicorn.socket")
    before_s = None if sock is None else sock.gettimeout()
    pieces: list[bytes] = []
    held_bytes = 0
    deadline = time.monotonic() + BODY_S
    try:
        if sock is not None:
            sock.settimeout(BODY_S)
        while data := stream.read(min(PIECE_BYTES, most + 1 - held_bytes)):
            pieces.append(data)
            held_bytes += len(data)
            if held_bytes > most:
                raise TooMuchAnnounced
            if time.monotonic() > deadline:
                raise BodyTimeout
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
    if declared is not None and held_bytes < declared:
        raise CallerGone
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
