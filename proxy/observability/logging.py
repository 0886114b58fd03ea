"""All log lines of a worker, ours, gunicorn's and the libraries', through loguru into one stream, secrets taken out.

Rules: no prompt, no answer, no key and no token is ever handed to the logger; the redaction below is the second net,
for lines that other people's code writes. Tracebacks show no values (`diagnose=False`).
"""

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Literal, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

Format = Literal["text", "json"]

_TEXT = "{time:YYYY-MM-DD HH:mm:ss.SSSZ} {level: <8} {message}"
_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+")
_CREDENTIAL_LINE = re.compile(r"(?i)\b((?:proxy-)?authorization|api-key|cookie)\b(?!\s+header)[^\n]*")
# By its form alone: a client key as `new-key` makes it and OpenAI's, a JWT.
_KEY = re.compile(r"\b(?:sk-[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]{8,})")
# Libraries whose debug lines speak of requests; a higher level also keeps them off the hot path.
_QUIET = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "asyncio", "urllib3")


def redact(text: str) -> str:
    """The text without what looks like a credential."""
    text = _CREDENTIAL_LINE.sub(r"\1 ***", text)
    return _KEY.sub("***", _CREDENTIAL.sub(r"\1 ***", text))


def set_up(*, level: str = "INFO", line_format: Format = "text", stream: TextIO | None = None) -> None:
    """Send everything to `stream` (standard error). Called once per process."""
    logger.remove()
    logger.configure(patcher=_redact_record)
    sink: Any = sys.stderr if stream is None else stream
    sink = _JsonSink(sink) if line_format == "json" else _TextSink(sink)
    logger.add(sink, level=level, format=_TEXT, colorize=False, backtrace=False, diagnose=False, catch=True)
    logging.basicConfig(handlers=[InterceptHandler()], level=logging.INFO, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def is_enabled(name: str, level: str) -> bool:
    """Whether lines of level `name` are written where `level` is the lowest."""
    return logger.level(name).no >= logger.level(level).no


class InterceptHandler(logging.Handler):
    """Hands a standard library record to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.opt(exception=record.exc_info).log(level, "{}", record.getMessage())


class _TextSink:
    """The line as it is; a traceback ends in the text of an error, which the record's redaction has not seen."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, message: "Message") -> None:
        self._stream.write(message if message.record["exception"] is None else redact(message))
        self._stream.flush()


class _JsonSink:
    """One JSON object a line: time, level, message, what was bound, and the traceback where there is one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, message: "Message") -> None:
        record = message.record
        moment = record["time"].isoformat(timespec="milliseconds")
        entry = {"time": moment, "level": record["level"].name, "message": record["message"]}
        entry |= {name: redact(fact) if isinstance(fact, str) else fact for name, fact in record["extra"].items()}
        if record["exception"] is not None:
            entry["exception"] = redact(str(message).partition("\n")[2])
        self._stream.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")
        self._stream.flush()


def _redact_record(record: "Record") -> None:
    record["message"] = redact(record["message"])
