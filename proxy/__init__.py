"""A proxy that looks like OpenAI to its callers and puts a token that is never stale on every upstream request."""

from proxy.app import create_app

__all__ = ["create_app"]
