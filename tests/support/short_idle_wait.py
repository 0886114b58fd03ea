"""gunicorn.conf.py with a second for an idle upstream connection; `GUNICORN_CMD_ARGS="-c FILE"` reads this instead."""

from pathlib import Path

_REAL = Path("gunicorn.conf.py")

# First, as it patches what the import below uses; gunicorn finds its settings here as it would there.
exec(compile(_REAL.read_text(), _REAL, "exec"))

from proxy.upstreams import connection  # noqa: E402

connection.IDLE_MOST_S, connection.LOOK_EVERY_S = 1.0, 0.1
