"""One request and its answer: note it, answer it, let faults change the answer, write it, note how it ended.

`app` wraps each issuer and upstream view with this; the writing happens while `server` takes the pieces.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

from flask import Response, request

from sandbox.answers.shape import Answer, Ending, Frame, json_answer
from sandbox.caller import ENVIRON_KEY, BreakOff, Caller
from sandbox.faults import Switches
from sandbox.journal import End, Entry, Journal, Side

HEADERS_KEY = "sandbox.headers"  # the fields in their order, spelling and number
TARGET_KEY = "sandbox.target"  # the request target before any decoding

View = Callable[[Entry], Answer]


class PiecewiseResponse(Response):
    """A response whose pieces are always taken, even for HEAD: that is what writes and closes the entry."""

    default_mimetype = None

    def get_app_iter(self, _: Any) -> Iterator[bytes]:
        """Give the pieces as they are made."""
        return self.response  # type: ignore[return-value]


class Exchange:
    """Wraps views that turn a journal entry into an answer."""

    def __init__(self, journal: Journal, switches: Switches) -> None:
        self._journal = journal
        self._switches = switches

    def wrap(self, side: Side, view: View) -> Callable[..., Response]:
        """Build a Flask view; arguments from the path are ignored, since the entry has the path."""

        def flask_view(*_: Any, **__: Any) -> Response:
            environ = request.environ
            entry = Entry(side, request.method, environ[TARGET_KEY], environ[HEADERS_KEY])
            self._journal.open(entry)
            try:
                answer = self._answer(entry, view)
            except BaseException:
                self._journal.close(entry, "fault")
                raise
            entry.status = None if answer.is_bare else answer.status
            return self._respond(entry, answer, environ[ENVIRON_KEY])

        return flask_view

    def _answer(self, entry: Entry, view: View) -> Answer:
        try:
            self._journal.keep_body(entry, request.environ["wsgi.input"].read())
        except OSError:  # bad chunks, or the caller left before the end of the body
            answer = json_answer({"error": "The body could not be read."}, 400, (("Connection", "close"),))
            # The pause tells the two apart: it ends with CallerGone at the end of the caller's bytes.
            return replace(answer, delay_s=0.001)
        return self._switches.apply(entry, view(entry))

    def _respond(self, entry: Entry, answer: Answer, caller: Caller) -> Response:
        headers = [*answer.headers, ("X-Request-Id", f"req_{uuid4().hex}")]
        pieces = self._write(entry, answer, caller)
        return PiecewiseResponse(pieces, answer.status, headers, direct_passthrough=True)

    def _write(self, entry: Entry, answer: Answer, caller: Caller) -> Iterator[bytes]:
        """Give the pieces to write; the entry closes before the last chunk, so before a caller can look."""
        # Unless it is found to end otherwise: where a write fails, the server just drops this generator.
        end: End = "caller_gone"
        digest = hashlib.sha256()
        try:
            for piece in _pieces(entry, answer, caller):
                digest.update(piece)
                yield piece
            end = "done"
            entry.answer_sha256 = digest.hexdigest()
        except BreakOff:
            end = "fault"
            raise
        finally:
            self._journal.close(entry, end)


def _pieces(entry: Entry, answer: Answer, caller: Caller) -> Iterator[bytes]:
    caller.pause(answer.delay_s)
    if answer.is_stream:
        yield b""  # the head by itself: callers may wait for it long before the first frame
    for frame in _frames(entry, answer):
        caller.pause(frame.pause_s)
        if answer.is_bare:
            caller.send(frame.data)
        else:
            yield frame.data
        entry.frames_sent += answer.is_stream and frame.part != "piece"
    if answer.ending is Ending.SILENCE:
        caller.wait_until_gone()
    if answer.ending is not Ending.CLEAN:
        if answer.ending is Ending.RESET:
            caller.arm_reset()
        raise BreakOff
    caller.leave_after_s = answer.leave_after_s


def _frames(entry: Entry, answer: Answer) -> Iterator[Frame]:
    # RFC 9110 §6.4.1: these have no body, whatever the fields say.
    if not answer.is_bare and (entry.method == "HEAD" or answer.status in (204, 304)):
        return iter(())
    return iter(answer.frames)
