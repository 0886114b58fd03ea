"""The fault switches: which faults are on, and which of them a request gets. Set over HTTP through `control`.

A request gets the first matching fault that replaces the answer, then the first that delays it, every one
that changes it, the first that breaks its sending, and the first that acts afterwards. That uses up `times`.
So [{"kind": "status", "times": 1, ...}, {"kind": "reset", "times": 2}] fails three requests in that order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox import fault_parameters as read
from sandbox.answers.shape import Answer
from sandbox.fault_kinds import KINDS, Kind, Stage
from sandbox.fault_parameters import REQUIRED, Parameter, ParameterError
from sandbox.journal import Entry, Side

_SIDES: tuple[Side, ...] = ("issuer", "upstream")
_COMMON = {
    "times": Parameter(read.times, None),
    "path": Parameter(read.text, ""),
    "model": Parameter(read.optional_text, None),
}


class FaultError(ValueError):
    """A request for faults that makes no sense; the text says where and why."""


@dataclass
class Fault:
    """One switch that is on; left is how many more requests it meets, None for all."""

    name: str
    kind: Kind
    left: int | None
    path: str
    model: str | None
    parameters: dict[str, Any]
    document: dict[str, Any]

    def matches(self, entry: Entry, answer: Answer) -> bool:
        """Tell whether a request, whose answer would be this, is one that the fault is for."""
        path = entry.path.partition("?")[0]
        return (
            self.left != 0
            and path.endswith(self.path)
            and path.endswith(self.kind.path_suffix)
            and (self.model is None or self.model == entry.model)
            and (answer.is_stream or not self.kind.streams_only)
            and not (answer.is_bare and self.kind.stage > Stage.DELAY)
        )

    def describe(self) -> dict[str, Any]:
        """Get the fault as it was given, with what is left of its times."""
        return {**self.document, "times": self.left}

    def apply(self, answer: Answer) -> Answer:
        """Change the answer, and count."""
        if self.left is not None:
            self.left -= 1
        return self.kind.change(answer, **self.parameters)


class Switches:
    """The faults that are on, for each side in the order given."""

    def __init__(self) -> None:
        self._faults: dict[Side, list[Fault]] = {}

    def replace(self, document: dict[str, Any] | None) -> None:
        """Switch on just the faults of {"issuer": [...], "upstream": [...]}; FaultError if any is wrong."""
        if document is None or not set(document) <= set(_SIDES):
            raise FaultError('expected an object with "issuer" and "upstream"')
        self._faults = {side: _read_side(side, document.get(side, [])) for side in _SIDES}

    def clear(self) -> None:
        """Switch all off; answers that are under way keep theirs."""
        self._faults = {}

    def describe(self) -> dict[str, Any]:
        """Get the faults as they were given, with what is left of their times."""
        return {side: [fault.describe() for fault in self._faults.get(side, [])] for side in _SIDES}

    def apply(self, entry: Entry, answer: Answer) -> Answer:
        """Let the faults that match change the answer, stage by stage, and note them in the entry."""
        for stage in Stage:
            for fault in self._of_stage(entry.kind, stage):
                if fault.matches(entry, answer):
                    answer = fault.apply(answer)
                    entry.faults.append(fault.name)
                    if stage is not Stage.CHANGE:
                        break
        return answer

    def _of_stage(self, side: Side, stage: Stage) -> Iterator[Fault]:
        # Changes go in the order of KINDS: gzip must come last, since what it packed can't be changed.
        faults = self._faults.get(side, [])
        if stage is Stage.CHANGE:
            faults = sorted(faults, key=lambda fault: list(KINDS).index(fault.name))
        return (fault for fault in faults if fault.kind.stage is stage)


def _read_side(side: Side, documents: Any) -> list[Fault]:
    if not isinstance(documents, list):
        raise FaultError(f"{side}: expected a list")
    return [_read_fault(side, f"{side}[{index}]", document) for index, document in enumerate(documents)]


def _read_fault(side: Side, place: str, document: Any) -> Fault:
    if not isinstance(document, dict):
        raise FaultError(f"{place}: expected an object")
    name = document.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None or (kind.upstream_only and side == "issuer"):
        known = ", ".join(key for key, each in KINDS.items() if side == "upstream" or not each.upstream_only)
        raise FaultError(f"{place}: unknown kind {name!r}; known: {known}")
    unknown = set(document) - {"kind", *_COMMON, *kind.parameters}
    if unknown:
        raise FaultError(f"{place}: unknown parameters of {name}: {', '.join(sorted(unknown))}")
    common = _read_parameters(place, _COMMON, document)
    own = _read_parameters(place, kind.parameters, document)
    return Fault(str(name), kind, common["times"], common["path"], common["model"], own, document)


def _read_parameters(
    place: str,
    parameters: Mapping[str, Parameter],
    document: dict[str, Any],
) -> dict[str, Any]:
    values = {}
    for name, parameter in parameters.items():
        if name in document:
            values[name] = _read(place, name, document[name], parameter.read)
        elif parameter.default is REQUIRED:
            raise FaultError(f"{place}: {name} is missing")
        else:
            values[name] = parameter.default
    return values


def _read(place: str, name: str, value: Any, reader: Any) -> Any:
    try:
        return reader(value)
    except ParameterError as error:
        raise FaultError(f"{place}: {name} must be {error}") from error
