"""gunicorn.conf.py with a second for a request's body; `GUNICORN_CMD_ARGS="-c FILE"` reads this instead."""

from pathlib import Path

_REAL = Path("gunicorn.conf.py")

# First, as it patches what the imports below use; gunicorn finds its settings here as it would there.
exec(compile(_REAL.read_text(), _REAL, "exec"))

from proxy import caller_source  # noqa: E402
from proxy.blueprints import caller_body  # noqa: E402

caller_source.BODY_S = caller_body.BODY_S = 1.0
