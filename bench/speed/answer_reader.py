"""Reads one answer of HTTP/1.1 (RFC 9112) as it comes and gives its body without the framing. No I/O.

Fast where a read holds one whole chunk, as most reads of a stream do. Callers: closed_loop.py and stream_load.py.
"""

_CHUNKED, _SIZED, _UNTIL_CLOSE = range(3)


class AnswerReader:
    """`status` is 0 until the head is here; `done` once the body is whole by its framing."""

    __slots__ = ("_framing", "_held", "_is_last", "_left", "done", "status")

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self._held = b""  # a part of the head, or of a chunk's first line
        self._framing = _CHUNKED
        self._left = 0  # of the body, or of a chunk and the line end behind it
        self._is_last = False

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that are in what was read."""
        if not self.status:
            data = self._read_head(self._held + data)
            if not data:
                return b""
        if self._framing == _CHUNKED:
            return self._dechunk(data)
        if self._framing == _SIZED:
            self._left -= len(data)
            self.done = self._left <= 0
        return data

    def end(self) -> None:
        """The peer has closed the connection."""
        if self.status and self._framing == _UNTIL_CLOSE:
            self.done = True

    def _read_head(self, data: bytes) -> bytes:
        """What stands behind the head; nothing while the head is not whole."""
        head, blank, rest = data.partition(b"\r\n\r\n")
        if not blank:
            self._held = data
            return b""
        self._held = b""
        self.status = int(head[9:12])
        fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:])
        if b"chunked" not in fields.get(b"transfer-encoding", b""):
            size = fields.get(b"content-length")
            self._framing = _UNTIL_CLOSE if size is None else _SIZED
            self._left = int(size or 0)
            self.done = size is not None and self._left == 0
        return rest

    def _dechunk(self, data: bytes) -> bytes:
        if not self._left and not self._held:
            end = data.find(b"\r\n")
            if end > 0 and (size := int(data[:end], 16)) and end + size + 4 == len(data):
                return data[end + 2 : -2]
        return self._dechunk_slowly(self._held + data)

    def _dechunk_slowly(self, data: bytes) -> bytes:
        self._held, body, at = b"", [], 0
        while at < len(data) and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                body.append(piece[: max(0, self._left - 2)])
                at += len(piece)
                self._left -= len(piece)
                self.done = self._is_last and not self._left
            elif (end := data.find(b"\r\n", at)) < 0:
                self._held = data[at:]
                break
            else:
                size = int(data[at:end], 16)
                self._left, self._is_last, at = size + 2, size == 0, end + 2
        return b"".join(body)
