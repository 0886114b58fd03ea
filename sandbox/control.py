"""The control routes under /_sandbox: log, counts, fault switches, revocation. They need no token."""

from typing import Any

from flask import Blueprint, request

from sandbox.faults import FaultError, Switches
from sandbox.journal import Journal
from sandbox.tokens import TokenMint
from sandbox.upstream import read_object

CONTROL_PREFIX = "/_sandbox"


def build_control(journal: Journal, switches: Switches, mint: TokenMint) -> Blueprint:
    """Build the routes around the parts that they show and set."""
    control = Blueprint("control", __name__, url_prefix=CONTROL_PREFIX)

    @control.get("/log")
    def get_log() -> list[dict[str, Any]]:
        return journal.entries(bodies=request.args.get("bodies") != "0")

    @control.delete("/log")
    def clear_log() -> tuple[str, int]:
        journal.clear()
        return "", 204

    @control.post("/log/take")
    def take_ended() -> list[dict[str, Any]]:
        return journal.take_ended()

    @control.get("/state")
    def get_state() -> dict[str, Any]:
        return journal.state()

    @control.post("/revoke")
    def revoke() -> tuple[str, int]:
        mint.revoke_all()
        return "", 204

    @control.post("/reset")
    def reset() -> tuple[str, int]:
        switches.clear()
        journal.clear()
        return "", 204

    @control.get("/faults")
    def get_faults() -> dict[str, Any]:
        return switches.describe()

    @control.put("/faults")
    def put_faults() -> tuple[Any, int]:
        try:
            switches.replace(read_object(request.get_data()))
        except FaultError as error:
            return {"error": str(error)}, 400
        return switches.describe(), 200

    @control.delete("/faults")
    def clear_faults() -> tuple[str, int]:
        switches.clear()
        return "", 204

    return control
