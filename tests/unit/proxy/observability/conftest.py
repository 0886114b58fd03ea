"""The process's loggers, given back as they were: `set_up` is for a process of its own and changes them all."""

import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from loguru import logger


@pytest.fixture
def log() -> Iterator[StringIO]:
    """Where a test sends its lines."""
    names = [None, *logging.root.manager.loggerDict]
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers = logging.root.handlers[:]
    yield StringIO()
    logging.root.handlers[:] = handlers
    for known, level in before:
        known.setLevel(level)
    logger.remove()
    logger.configure(patcher=lambda _: None)
    logger.add(sys.stderr)
