"""Which models to try an upstream with, by their names alone. Pure."""

import re
from collections.abc import Callable, Iterable

from proxy.routing import ModelMap

# "e5" and "gte" only as whole words: they stand in hashes and in other names.
_EMBEDDING = re.compile(r"(?i)embed|\bbge\b(?!.*rerank)|\be5\b|\bgte\b|\bada-002\b|\bm3e\b|text2vec|minilm|voyage-\d")
_OTHER = re.compile(
    r"(?i)rerank|whisper|transcri|\btts\b|speech|audio|realtime|dall|image|diffusion|flux|moderation|ocr\b"
)


def choose(models: ModelMap, wanted: str | None, listed: Iterable[str], is_right: Callable[[str], bool]) -> str | None:
    """The upstream's name for the model that callers call `wanted`, if it is served.

    Where none is wanted, the first that `is_right`: of the names that the config gives whole, else of those on the
    upstream's own list that callers can reach.
    """
    if wanted is not None:
        return models.resolve(wanted)
    configured = [theirs for theirs in models.models.values() if theirs != "*"]
    reached = filter(None, map(models.resolve, listed))
    return next(filter(is_right, (*configured, *reached)), None)


def is_chat(name: str) -> bool:
    """Whether the name is of no other kind of model that is known by its name."""
    return not _EMBEDDING.search(name) and not _OTHER.search(name)


def is_embedding(name: str) -> bool:
    return bool(_EMBEDDING.search(name)) and not _OTHER.search(name)
