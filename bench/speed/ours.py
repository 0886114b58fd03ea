"""Our proxy as a target: `gunicorn wsgi:app` with one worker, all that is on by default, and client keys."""

import sys
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import yaml

from bench.speed.lab import Lab
from bench.speed.targets import Command, Target

CLIENT_KEY = "sk-bench-of-a-caller"  # never to be seen upstream, where it would be refused
_PACKAGES = ("gunicorn", "gevent", "flask", "openai", "geventhttpclient", "httpx2", "loguru")


def _config(lab: Lab, port: int, workers: int) -> dict[str, Any]:
    """Limits are set, so that they are checked, and so high that they are never reached."""
    key = {"label": "bench", "sha256": sha256(CLIENT_KEY.encode()).hexdigest()}
    shared = {"token_source": "bench"}
    return {
        "server": {"bind": f"127.0.0.1:{port}", "workers": workers, "max_concurrent_requests": 6000},
        "client_keys": [key | {"requests_per_minute": 100_000_000, "max_concurrent": 6000}],
        "token_store": {"type": "file"},
        "token_sources": {
            "bench": {
                "type": "http_json",
                "url": f"http://127.0.0.1:{lab.upstream_port}/token",
                "json": {"appId": "bench", "appSecret": "bench-secret"},
                "token_pointer": "/access_token",
                "expires_in_pointer": "/expires_in",
            }
        },
        "upstreams": [
            {
                "name": "over-tls",
                "base_url": lab.base_url(tls=True),
                "ca_bundle": str(lab.ca_bundle),
                "models": {"small-tls": "small-tls"},
                **shared,
            },
            {"name": "plain", "base_url": lab.base_url(), "models": {"*": "*"}, **shared},
        ],
        "logging": {"level": "INFO"},
    }


def ours(workers: int = 1) -> Target:
    """The proxy with so many workers."""

    def command(lab: Lab, port: int) -> Command:
        place = lab.place("ours")
        file = place / "config.yaml"
        file.write_text(yaml.safe_dump(_config(lab, port, workers)))
        environ = {"LLM_PROXY_CONFIG": str(file), "XDG_RUNTIME_DIR": str(place)}
        return Command([sys.executable, "-m", "gunicorn", "wsgi:app"], environ)

    return Target(
        "ours",
        "llm-proxy",
        command,
        versions=lambda: ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        key=CLIENT_KEY,
    )


OURS = ours()
