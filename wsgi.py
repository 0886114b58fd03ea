"""All that gunicorn needs to see: `gunicorn wsgi:app`."""

from config import load
from proxy import create_app
from proxy.observability.logging import set_up

settings = load()
set_up(level=settings.logging.level, line_format=settings.logging.format)
app = create_app(settings)
