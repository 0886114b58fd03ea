"""A load balancer's view: /healthz is asked again and again from a thread, and each outcome is kept."""

import http.client
import threading
from collections import Counter
from types import TracebackType

EVERY_S = 0.1
SILENT_AFTER_S = 5.0


class HealthPoll:
    """`outcomes`: how often /healthz answered 200, answered otherwise, broke, or was silent for 5 s."""

    def __init__(self, port: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health-poll")

    def once(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SILENT_AFTER_S)
        try:
            connection.request("GET", "/healthz", headers={"Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return "ok" if answer.status == 200 else f"status {answer.status}"
        except TimeoutError:
            return "silent"
        except (OSError, http.client.HTTPException):
            return "broken"
        finally:
            connection.close()

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self.outcomes[self.once()] += 1

    def __enter__(self) -> "HealthPoll":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
