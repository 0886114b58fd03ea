"""How the tokens in the shared store stand, as the running proxy left them. Fetches nothing."""

from collections.abc import Callable

from config import Settings
from config.sources import TokenSource
from proxy.doctor.report import in_words
from proxy.token_sources import build_store
from proxy.tokens.record import Record
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.token import Token, boot_clock

_WHO_FILLS_IT = "; the first request to a proxy with the same config, secrets, user and XDG_RUNTIME_DIR fills it"


def print_token_states(settings: Settings, echo: Callable[[str], object]) -> bool:
    """Whether every source holds a usable token, or keeps it in each worker, where nothing is to be seen."""
    states = [_print_state(name, section, settings, echo) for name, section in settings.token_sources.items()]
    return all(states)


def _print_state(name: str, section: TokenSource, settings: Settings, echo: Callable[[str], object]) -> bool:
    source = f"{name} ({section.type})"
    store = build_store(section, settings.token_store)
    if isinstance(store, MemoryStore):
        echo(f"{source}: kept in each worker")
        return True
    record, now = store.load(), boot_clock()
    if record.token is None:
        echo(f"{source}: the store holds none" + ("" if record.failures else _WHO_FILLS_IT))
    else:
        echo(f"{source}: {_token_line(record.token, now)}")
    for line in _pauses(record, now):
        echo(f"  {line}")
    return record.usable_token(now) is not None


def _token_line(token: Token, now: float) -> str:
    state = f"{token.state(now)}, token {token.fingerprint}, generation {token.generation}"
    age = f"age {in_words(now - token.fetched_at)}"
    if token.expires_at == float("inf"):
        return f"{state}, {age}, does not expire"
    expiry, renewal = _due(token.expires_at - now), _due(token.renew_at - now)
    ends = f"expires in {expiry}" if expiry else f"expired {in_words(now - token.expires_at)} ago"
    return f"{state}, {age}, {ends}, renewal due {f'in {renewal}' if renewal else 'now'}"


def _pauses(record: Record, now: float) -> list[str]:
    """What holds fetches up: the back-off after failures, and the breaker after tokens that an upstream refused."""
    lines = []
    if record.failures:
        refused = ", the credentials are refused" if record.refusals else ""
        next_try = _due(record.retry_at - now)
        lines.append(f"failed fetches: {record.failures}{refused}; next try {f'in {next_try}' if next_try else 'now'}")
    if now < record.breaker_until:
        open_s = in_words(record.breaker_until - now)
        lines.append(f"an upstream refuses fresh tokens: none is fetched for that in the next {open_s}")
    return lines


def _due(seconds: float) -> str:
    """In words, empty where it is over."""
    return in_words(seconds) if seconds > 0 else ""
