"""LiteLLM's proxy as a target: the newest release, one worker, every model passed to the upstream, logs kept quiet."""

import yaml

from bench.speed.lab import Lab
from bench.speed.requests import PEER_KEY
from bench.speed.targets import Command, Target, missing_venv, venv_python, venv_versions

_START_WITHIN_S = 120.0
_QUIET = {"version": 1, "disable_existing_loggers": False, "loggers": {"uvicorn.access": {"level": "WARNING"}}}


def _command(lab: Lab, port: int) -> Command:
    place = lab.place("litellm")
    config, log_config = place / "config.yaml", place / "log.yaml"
    config.write_text(yaml.safe_dump(_config(lab)))
    log_config.write_text(yaml.safe_dump(_QUIET))
    argv = [
        *(str(venv_python("litellm").parent / "litellm"), "--config", str(config), "--log_config", str(log_config)),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
    ]
    environ = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
        "LITELLM_MODE": "PRODUCTION",
        "SSL_CERT_FILE": str(lab.ca_bundle),
        "NO_PROXY": "*",
    }
    return Command(argv, environ)


def _config(lab: Lab) -> dict[str, object]:
    """Without a database, caches or callbacks; the callers' key is checked, as ours is."""
    over_tls = {"model": "openai/small-tls", "api_base": lab.base_url(tls=True), "api_key": PEER_KEY}
    plain = {"model": "openai/*", "api_base": lab.base_url(), "api_key": PEER_KEY}
    return {
        "model_list": [
            {"model_name": "small-tls", "litellm_params": over_tls},
            {"model_name": "*", "litellm_params": plain},
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False, "request_timeout": 600},
        "general_settings": {"master_key": PEER_KEY},
    }


LITELLM = Target(
    "litellm",
    "LiteLLM proxy",
    _command,
    missing=lambda: missing_venv("litellm"),
    versions=lambda: venv_versions("litellm", "litellm", "openai", "uvicorn", "aiohttp"),
    start_within_s=_START_WITHIN_S,
)
