"""The caller's end of one connection: pauses that notice a caller who leaves, raw bytes, ways to break off.

`server` makes one per connection and puts it in the WSGI environ; `exchange` uses it while an answer runs.
"""

import socket
import struct
import time

import gevent
from gevent.socket import wait_read

ENVIRON_KEY = "sandbox.caller"
# With pipelined bytes unread the socket is readable all the time, so that one has to look now and then.
_LOOK_EVERY_S = 0.02
_FOREVER_S = 10.0**6
# Linux: the first byte of TCP_INFO is the state, 1 while both sides are open.
_TCP_INFO: int = getattr(socket, "TCP_INFO", 0)
_ESTABLISHED = 1


class CallerGone(Exception):
    """The caller closed its side; a half-closed connection counts as gone, as it does for most gateways."""


class BreakOff(Exception):
    """A fault ends the connection here; `server` closes it without another byte."""


class _Waited(Exception):
    """Nothing became readable in time."""


class Caller:
    """Whoever is at the other end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.leave_after_s: float | None = None

    def pause(self, seconds: float) -> None:
        """Wait; CallerGone at once when the caller leaves meanwhile."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            try:
                wait_read(self._socket.fileno(), timeout=left_s, timeout_exc=_Waited)
            except _Waited:
                return
            if self._has_gone():
                raise CallerGone
            gevent.sleep(min(left_s, _LOOK_EVERY_S))

    def wait_until_gone(self) -> None:
        """Say nothing until the caller leaves, then raise CallerGone."""
        self.pause(_FOREVER_S)
        raise CallerGone

    def send(self, data: bytes) -> None:
        """Write bytes past the HTTP server, as they are."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise CallerGone from error

    def arm_reset(self) -> None:
        """Make the coming close a reset: SO_LINGER of zero seconds drops the connection with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _has_gone(self) -> bool:
        # Called only when the socket is readable, so this does not block.
        try:
            if not self._socket.recv(1, socket.MSG_PEEK):
                return True
            # Bytes of a next request hide the end behind them from recv, but not from the kernel itself.
            return bool(_TCP_INFO) and self._tcp_state() != _ESTABLISHED
        except OSError:
            return True

    def _tcp_state(self) -> int:
        return self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
