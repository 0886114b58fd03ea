"""What the factory makes, and what is done to it at a worker's end."""

from typing import Any

import pytest

from config import Settings
from proxy import create_app
from proxy.app import Parts


class FakePart:
    """Notes its closing, and can fail at it."""

    def __init__(self, name: str, closed: list[str], failing: str) -> None:
        self._name, self._closed, self._failing = name, closed, failing

    def close(self) -> None:
        self._closed.append(self._name)
        if self._name == self._failing:
            raise OSError(self._name)


ORDER = ["holder", "client", "loop", "tracing"]


@pytest.mark.parametrize("failing", ORDER)
def test_every_part_is_closed_in_turn_though_one_fails(failing: str) -> None:
    closed: list[str] = []
    holder, client, loop, tracing = (FakePart(name, closed, failing) for name in ORDER)
    parts: Any = Parts({"a": holder}, {"b": client}, loop, tracing)  # type: ignore[dict-item,arg-type]
    with pytest.raises(OSError, match=failing):
        parts.close()
    assert closed == ORDER


def test_worker_that_ends_is_not_ready() -> None:
    app = create_app(Settings.model_validate({"upstreams": [{"name": "llm", "base_url": "http://127.0.0.1:9/v1"}]}))
    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    app.extensions["llm_proxy"].is_ending = lambda: True
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["reason"]) == (503, "shutting down")
