"""The servers of a bench by their names: started when first asked for, replaced where a row wants a new one."""

from collections.abc import Iterable

from bench.peers.fastapi import FASTAPI
from bench.peers.litellm import LITELLM
from bench.peers.nginx import NGINX
from bench.speed.lab import Lab
from bench.speed.measuring import measure, warm_up
from bench.speed.ours import OURS
from bench.speed.processes import NotStarted
from bench.speed.rows import Row
from bench.speed.targets import Server, Target

DIRECT = Target("direct", "no proxy", None)
TARGETS = {target.name: target for target in (DIRECT, OURS, NGINX, FASTAPI, LITELLM)}


class NotHere(Exception):
    """The target cannot be measured on this machine; the text says why."""


class Fleet:
    """Those that run stay beside one another, idle but for the one whose turn it is."""

    def __init__(self, lab: Lab, names: Iterable[str]) -> None:
        self._lab = lab
        self._absent = {name: TARGETS[name].missing() for name in names}
        self._servers: dict[str, Server] = {}

    def versions(self) -> dict[str, str]:
        return {name: TARGETS[name].versions() for name, reason in self._absent.items() if not reason}

    def measure(self, row: Row, name: str, *, quick: bool) -> dict[str, object]:
        """The figures of the load, or `{"error": why there are none}`."""
        try:
            server = self._server(name, fresh=row.fresh)
            return measure(self._lab, server, row, row.options_for(name, quick=quick))
        except (NotHere, NotStarted) as error:
            return {"error": str(error)}

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()

    def _server(self, name: str, *, fresh: bool) -> Server:
        if self._absent[name]:
            raise NotHere(self._absent[name])
        server = self._servers.get(name)
        if server is not None and (fresh and server.used):
            self._servers.pop(name).stop()
            server = None
        if server is None:
            try:
                server = self._servers[name] = Server(TARGETS[name], self._lab)
            except NotStarted as error:
                self._absent[name] = f"does not start: {error}"  # not tried again
                raise
            warm_up(self._lab, server)
        server.used = True
        return server
