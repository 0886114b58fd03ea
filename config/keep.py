"""The settings that the master holds for its workers: read once at start and at each reload, kept when a reload fails.

gunicorn runs its config file anew on SIGHUP, in the same process; what must survive that stands in a module. Workers
are forked from the master and find the settings here, so a file that is half edited cannot stop a worker that starts
in place of a killed one.
"""

from collections.abc import Callable, Sequence

from config.errors import ConfigError
from config.load import load
from config.schema import Settings

_kept: Settings | None = None


def load_or_keep(faults_of: Callable[[Settings], Sequence[str]] = lambda _: ()) -> tuple[Settings, tuple[str, ...]]:
    """The settings of the file, or the last good ones with the file's faults. Raises ConfigError at the first start.

    `faults_of` tells what is wrong with settings that this package finds good.
    """
    global _kept
    try:
        settings = load()
        if faults := faults_of(settings):
            raise ConfigError(faults)
        _kept = settings
    except ConfigError as error:
        if _kept is None:
            raise
        return _kept, error.faults
    return _kept, ()


def kept_settings() -> Settings:
    """The settings that are kept; those of the file where nobody has loaded any, as without gunicorn."""
    return _kept if _kept is not None else load()
