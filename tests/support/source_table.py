"""One proxy with many token sources, so that a table of issuers' faults costs one start: each source serves the model
of its own name at the sandbox, which checks the tokens; and the shared record of a source, to be read and written."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from config.schema import TokenStore
from config.sources import TokenSource
from proxy.token_sources import build_store
from proxy.tokens.record import Record
from proxy.tokens.stores.base import Store
from proxy.tokens.token import Token, boot_clock
from tests.support.sandbox_client import Entry, SandboxClient

MARK = "s3cret-mark"  # the secret that goes to each issuer, and stands in what a faulty one answers
LIFETIME_S = 300.0


def source_of(url: str, **members: Any) -> dict[str, Any]:
    return {"type": "http_json", "url": url, "json": {"appId": "app", "appSecret": MARK}, **members}


def config_of(sandbox: SandboxClient, sources: dict[str, Any], **server: Any) -> dict[str, Any]:
    """Settings of a proxy in which each source serves the model of its name."""
    settings = sandbox.config(server=server, token_sources=sources)
    (upstream,) = settings["upstreams"]
    upstreams = [{**upstream, "name": name, "token_source": name, "models": {name: name}} for name in sources]
    return {**settings, "upstreams": upstreams}


def token_of(sandbox: SandboxClient) -> str:
    """A token that the sandbox's upstream takes."""
    credentials = {"appId": "sandbox-app", "appSecret": "sandbox-secret"}
    answer = httpx.post(sandbox.url + "/token", json=credentials, trust_env=False)
    return str(answer.raise_for_status().json()["access_token"])


def tokens_sent(sandbox: SandboxClient) -> list[tuple[str, str]]:
    """The bearer tokens that came to the upstream, oldest first, each with the model that its request was for."""
    return [(_field(entry, "Authorization").partition(" ")[2], entry["model"]) for entry in sandbox.log()]


def put_stale_token(source: dict[str, Any], folder: Path, value: str, age_s: float = 151.0) -> None:
    """Let the workers of this runtime folder find a token of 300 s whose renewal is due: as after a restart."""
    token = Token(value, fetched_at=boot_clock() - age_s, lifetime_s=LIFETIME_S, generation=1)
    with (store := _store(source, folder)).try_lock() as won:
        assert won
        store.save(Record(token=token, generation=1))


def record_of(source: dict[str, Any], folder: Path) -> Record:
    """What the workers of this runtime folder share about a source; its instants are of `boot_clock`."""
    return _store(source, folder).load()


def _field(entry: Entry, name: str) -> str:
    return next((str(value) for field, value in entry["headers"] if field.lower() == name.lower()), "")


def _store(source: dict[str, Any], folder: Path) -> Store:
    section = TypeAdapter[Any](TokenSource).validate_python(source, context={"folder": folder})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        return build_store(section, TokenStore())
