"""All that gunicorn needs to see: `gunicorn wsgi:app`."""

from config import kept_settings
from proxy import create_app
from proxy.observability.logging import set_up

settings = kept_settings()
set_up(level=settings.logging.level, line_format=settings.logging.format)
app = create_app(settings)
