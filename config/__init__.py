"""Read config.yaml into frozen, typed settings: everything else in the product takes plain values from them.

Use: `settings = load()`. The sections are documented in schema.py, upstreams.py and sources.py.
"""

from config.errors import ConfigError
from config.keep import kept_settings, load_or_keep
from config.load import load
from config.schema import Settings
from config.secret_ref import SecretRef

__all__ = ["ConfigError", "SecretRef", "Settings", "kept_settings", "load", "load_or_keep"]
