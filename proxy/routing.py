"""From the model name that a caller uses to an upstream and the name that it uses there. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.errors import ModelNotFound


@dataclass(frozen=True, slots=True)
class ModelMap:
    """One upstream's `models`: names that callers use, exact or with `*`, to names that the upstream uses."""

    upstream: str
    models: Mapping[str, str]

    def resolve(self, model: str) -> str | None:
        """The upstream's name for a model, or None where it does not serve it. Exact names go before wildcards."""
        exact = self.models.get(model)
        if exact is not None and "*" not in model:
            return exact
        for pattern, target in self.models.items():
            if "*" in pattern and matches(pattern, model):
                return model if target == "*" else target
        return None

    def aliases(self) -> list[str]:
        """The names without a wildcard, as callers use them."""
        return [name for name in self.models if "*" not in name]


def resolve(maps: Sequence[ModelMap], model: str) -> tuple[str, str]:
    """(upstream, model name there) of the first upstream that serves the model. Raises ModelNotFound."""
    for candidate in maps:
        target = candidate.resolve(model)
        if target is not None:
            return candidate.upstream, target
    raise ModelNotFound("No upstream serves this model.", param="model")


def is_allowed(patterns: Iterable[str], model: str) -> bool:
    """Whether a client key's list, exact names or wildcards, has the model."""
    return any(matches(pattern, model) for pattern in patterns)


def matches(pattern: str, model: str) -> bool:
    """`*` stands for any text; `?` and `[` for themselves, since model names may hold them."""
    if pattern == "*":
        return True
    return fnmatchcase(model, pattern.replace("[", "[[]").replace("?", "[?]"))
