"""From a `token_sources` section to the source that it describes and the store of its token.

The only code that knows both the config's sections and the sources. Secrets stay references until a fetch needs them.
"""

from proxy.token_sources.sources import build_source
from proxy.token_sources.stores import build_store, is_single_active

__all__ = ["build_source", "build_store", "is_single_active"]
