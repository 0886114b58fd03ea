"""The FastAPI reference as a target: fastapi_reference.py under uvicorn, one worker."""

from bench.speed.lab import Lab
from bench.speed.requests import PEER_KEY
from bench.speed.targets import Command, Target, missing_venv, venv_python, venv_versions


def _command(lab: Lab, port: int) -> Command:
    argv = [
        *(str(venv_python("fastapi")), "-m", "uvicorn", "bench.peers.fastapi_reference:app"),
        *("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning", "--backlog", "4096", "--timeout-keep-alive", "75"),
    ]
    environ = {
        "BENCH_BASE_URL": lab.base_url(),
        "BENCH_TLS_BASE_URL": lab.base_url(tls=True),
        "BENCH_CA_BUNDLE": str(lab.ca_bundle),
        "BENCH_UPSTREAM_KEY": PEER_KEY,
    }
    return Command(argv, environ)


FASTAPI = Target(
    "fastapi",
    "FastAPI, uvloop, AsyncOpenAI, aiohttp",
    _command,
    missing=lambda: missing_venv("fastapi"),
    versions=lambda: venv_versions("fastapi", "fastapi", "uvicorn", "uvloop", "httptools", "openai", "aiohttp"),
    tls_prefix="/tls",
)
