"""What the kernel tells of a running proxy: its processes, their arguments, and what each of their descriptors is."""

import os
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.support.proxy_process import ProxyProcess

PROC = Path("/proc")
_LISTENS = "0A"


def workers_of(proxy: ProxyProcess) -> set[int]:
    """The living workers; a dead one that the master has not reaped is none."""
    try:
        children = (PROC / f"{proxy.process.pid}/task/{proxy.process.pid}/children").read_text()
    except OSError:  # the master has ended
        return set()
    return {pid for pid in map(int, children.split()) if _state(pid) not in "ZX"}


def processes_of(session: int) -> set[int]:
    """The living processes of a session: a leftover is seen although its parent is gone."""
    return {pid for pid in _all_processes() if _session(pid) == session and _state(pid) not in "ZX"}


def arguments_of(pids: set[int]) -> bytes:
    """The command lines of these processes."""
    lines = []
    for pid in pids:
        with suppress(OSError):  # it has ended
            lines.append((PROC / f"{pid}/cmdline").read_bytes())
    return b"\n".join(lines)


def descriptors_of(pid: int, port: int) -> Counter[str]:
    """How many a process has of each kind; `port` is the one that the proxy listens on.

    `caller`: connections from callers; `outgoing`: to upstreams, issuers, Redis; `other`: all else. Raises OSError
    where the process has ended.
    """
    return _count(pid, _connections(port))


def descriptors_of_all(pids: Iterable[int], port: int) -> dict[int, Counter[str]]:
    """The same of each that lives; the kernel's tables, which take longest, are read once for all of them."""
    found, connections = {}, _connections(port)
    for pid in pids:
        with suppress(OSError):  # ended just now
            found[pid] = _count(pid, connections)
    return found


def refuses(proxy: ProxyProcess) -> bool:
    """Whether nobody takes new connections any more."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", proxy.port)) != 0


def _count(pid: int, connections: dict[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    folder = PROC / f"{pid}/fd"
    for name in os.listdir(folder):
        with suppress(OSError):  # closed meanwhile
            found[connections.get(os.readlink(folder / name), "other")] += 1
    return found


def _connections(port: int) -> dict[str, str]:
    """`socket:[INODE]` → what kind of TCP connection it is, of every process of this machine."""
    kinds = {}
    for table in ("tcp", "tcp6"):
        for line in (PROC / "self/net" / table).read_text().splitlines()[1:]:
            words = line.split()
            local_port, state, inode = int(words[1].rpartition(":")[2], 16), words[3], words[9]
            if state != _LISTENS:
                kinds[f"socket:[{inode}]"] = "caller" if local_port == port else "outgoing"
    return kinds


def _all_processes() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def _session(pid: int) -> int:
    words = _stat(pid)
    return int(words[3]) if words else -1


def _state(pid: int) -> str:
    words = _stat(pid)
    return words[0] if words else "X"


def _stat(pid: int) -> list[str]:
    """The words of /proc/PID/stat from the state on; none where the process is gone."""
    try:
        return (PROC / f"{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
