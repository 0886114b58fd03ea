"""A transport and the scripted server at its other end; both are closed after the test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from proxy.upstreams.answer_body import Timeouts
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.upstream_sender import Sender


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def sender_to() -> Iterator[Callable[..., Sender]]:
    """Senders to a URL; time-outs are long where a test says nothing."""
    with ExitStack() as stack:

        def sender_to(
            url: str, connect_s: float = 5, first_byte_s: float = 5, idle_s: float = 5, total_s: float = 5
        ) -> Sender:
            sender = Sender(url, Timeouts(connect_s, first_byte_s, idle_s, total_s))
            stack.callback(sender.close)
            return sender

        yield sender_to


@pytest.fixture
def sender(upstream: ScriptedUpstream, sender_to: Callable[..., Sender]) -> Sender:
    return sender_to(upstream.url)
