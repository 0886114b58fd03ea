import threading

from proxy.upstreams.exchange import Exchange


class Breaks:
    """Counts how often something was broken."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_exchange_is_whole_at_first() -> None:
    assert not Exchange().broken_off


def test_break_off_breaks_what_is_attached() -> None:
    exchange, breaks = Exchange(), Breaks()
    exchange.attach(breaks)
    assert breaks.count == 0
    exchange.break_off()
    assert breaks.count == 1
    assert exchange.broken_off


def test_break_off_with_nothing_attached_is_remembered() -> None:
    exchange = Exchange()
    exchange.break_off()
    assert exchange.broken_off


def test_what_is_attached_too_late_is_broken_at_once() -> None:
    exchange, breaks = Exchange(), Breaks()
    exchange.break_off()
    exchange.attach(breaks)
    assert breaks.count == 1


def test_break_off_leaves_what_was_detached_alone() -> None:
    exchange, breaks = Exchange(), Breaks()
    exchange.attach(breaks)
    exchange.detach()
    exchange.break_off()
    assert breaks.count == 0
    assert exchange.broken_off


def test_break_off_breaks_what_was_attached_last() -> None:
    exchange, first, second = Exchange(), Breaks(), Breaks()
    exchange.attach(first)
    exchange.attach(second)
    exchange.break_off()
    assert (first.count, second.count) == (0, 1)


def test_detach_waits_until_a_break_is_done() -> None:
    # Else the descriptor that is being shut down might be another request's by then.
    exchange, breaking, go_on = Exchange(), threading.Event(), threading.Event()
    order: list[str] = []

    def slow_break() -> None:
        breaking.set()
        assert go_on.wait(5)
        order.append("broken")

    def detach() -> None:
        exchange.detach()
        order.append("detached")

    exchange.attach(slow_break)
    threads = [threading.Thread(target=exchange.break_off), threading.Thread(target=detach)]
    threads[0].start()
    assert breaking.wait(5)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert order == ["broken", "detached"]
