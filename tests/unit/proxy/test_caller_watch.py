import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from proxy.caller_watch import CallerWatch, _is_closed

LIMIT_S = 5.0


class Gone:
    """Notes that a caller went away, and by whom it was told."""

    def __init__(self) -> None:
        self.count = 0
        self.thread = ""
        self._told = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.thread = threading.current_thread().name
        self._told.set()

    def wait(self) -> None:
        assert self._told.wait(LIMIT_S)


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Pairs of sockets: the one that is watched, and its caller's."""
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        made.extend(ends := socket.socketpair())
        return ends

    yield pair
    for end in made:
        end.close()


Pairs = Callable[[], tuple[socket.socket, socket.socket]]


def see_another_go(watch: CallerWatch, pairs: Pairs) -> None:
    """Returns when the watch has seen all that happened before: it told of a caller who went later."""
    ours, caller = pairs()
    gone = Gone()
    watch.watch(ours, gone)
    caller.close()
    gone.wait()
    watch.unwatch(ours)


def test_caller_who_closes_is_told_of_once(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, caller = pairs()
    watch.watch(ours, gone)
    caller.close()
    gone.wait()
    see_another_go(watch, pairs)
    assert (gone.count, gone.thread) == (1, "caller-watch")


def test_caller_who_went_before_the_watch_began_is_told_of(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, caller = pairs()
    caller.close()
    watch.watch(ours, gone)
    gone.wait()


def test_caller_who_resets_is_told_of() -> None:
    watch, gone = CallerWatch(), Gone()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours:
        watch.watch(ours, gone)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        caller.close()
        gone.wait()
        watch.unwatch(ours)


def test_caller_who_closes_the_sending_half_is_taken_for_gone(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, caller = pairs()
    watch.watch(ours, gone)
    caller.shutdown(socket.SHUT_WR)
    gone.wait()


def test_caller_who_stays_is_not_told_of(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, _ = pairs()
    watch.watch(ours, gone)
    see_another_go(watch, pairs)
    assert gone.count == 0


def test_bytes_of_a_next_request_are_left_where_they_are(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, caller = pairs()
    watch.watch(ours, gone)
    caller.sendall(b"GET / HTTP/1.1")
    see_another_go(watch, pairs)
    assert gone.count == 0
    assert ours.recv(100) == b"GET / HTTP/1.1"


def test_look_at_a_connection_whose_bytes_another_thread_has_taken_does_not_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, caller:
        ours.settimeout(0.1)  # a look that waited would end with it, and find the caller gone
        assert not _is_closed(ours)


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
def test_caller_who_goes_behind_the_bytes_of_a_next_request_is_told_of(pairs: Pairs, resets: bool) -> None:
    watch, gone = CallerWatch(), Gone()
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, caller:
        caller.sendall(b"GET / HTTP/1.1\r\n")
        watch.watch(ours, gone)
        see_another_go(watch, pairs)
        assert gone.count == 0
        if resets:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        caller.close()
        gone.wait()
        watch.unwatch(ours)
    assert gone.count == 1


def test_nothing_is_told_after_unwatch(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, caller = pairs()
    watch.watch(ours, gone)
    watch.unwatch(ours)
    caller.close()
    see_another_go(watch, pairs)
    assert gone.count == 0


def test_unwatch_may_come_twice_and_after_the_caller_went(pairs: Pairs) -> None:
    watch, gone = CallerWatch(), Gone()
    ours, caller = pairs()
    watch.watch(ours, gone)
    caller.close()
    gone.wait()
    watch.unwatch(ours)
    watch.unwatch(ours)


def test_kept_connection_is_watched_again_for_its_next_request(pairs: Pairs) -> None:
    watch, first, second = CallerWatch(), Gone(), Gone()
    ours, caller = pairs()
    watch.watch(ours, first)
    watch.unwatch(ours)
    watch.watch(ours, second)
    caller.close()
    second.wait()
    assert first.count == 0


def test_descriptor_of_a_closed_connection_may_be_the_next_ones(pairs: Pairs) -> None:
    watch, first, second = CallerWatch(), Gone(), Gone()
    ours, caller = pairs()
    watch.watch(ours, first)
    watch.unwatch(ours)
    ours.close()
    caller.close()
    again, next_caller = pairs()
    watch.watch(again, second)
    next_caller.close()
    second.wait()
    assert first.count == 0


def test_every_caller_who_goes_is_told_of(pairs: Pairs) -> None:
    watch = CallerWatch()
    watched = [(*pairs(), Gone()) for _ in range(50)]
    for ours, _, gone in watched:
        watch.watch(ours, gone)
    for _, caller, _ in watched[::2]:
        caller.close()
    for _, _, gone in watched[::2]:
        gone.wait()
    assert [gone.count for _, _, gone in watched] == [1, 0] * 25


def test_one_thread_watches_for_all(pairs: Pairs) -> None:
    watch = CallerWatch()
    before = threading.active_count()
    for _ in range(20):
        watch.watch(pairs()[0], Gone())
    assert threading.active_count() == before + 1
