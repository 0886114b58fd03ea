"""From a section, as the config file gives it, to a source that works."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import load
from proxy.token_sources import build_source
from proxy.tokens.sources.base import Grant, Source

_UPSTREAM = {"name": "llm", "base_url": "https://llm.example.com/v1"}


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Source]:
    """The source of a section; the config file's folder is tmp_path."""

    def build(environ: Mapping[str, str] | None = None, **section: Any) -> Source:
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({"token_sources": {"corp": section}, "upstreams": [_UPSTREAM]}, sort_keys=False))
        return build_source(load(file, environ or {}).token_sources["corp"])

    return build


def test_command_with_its_defaults(build) -> None:
    source = build(type="command", argv=["echo", "token-1"])
    assert source.fetch() == Grant("token-1", 300.0)


def test_command_with_all_that_it_can_have(build, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    source = build(
        {"TENANT": "t"},
        type="command",
        argv=["sh", "-c", 'echo "{\\"data\\": {\\"token\\": \\"$A-$B\\"}}"'],
        env={"A": "${TENANT}", "B": {"file": "secret"}},
        token_pointer="/data/token",
        expires_in_pointer="/data/ttl",
        default_lifetime_s=77,
        issuer="single_active",
    )
    assert source.fetch() == Grant("t-from-a-file", 77.0)
    (tmp_path / "secret").write_text("rotated")
    assert source.fetch().access_token == "t-rotated"
    (tmp_path / "secret").unlink()
    assert source.fetch().access_token == "t-rotated"


@pytest.mark.parametrize(
    ("pointer", "output"),
    [
        ("expires_in_pointer", '{"t": "token-1", "e": 60}'),
        ("expires_at_pointer", f'{{"t": "token-1", "e": {time.time() + 3600}}}'),
    ],
    ids=["lifetime", "instant"],
)
def test_command_reads_the_expiry_that_a_pointer_names(build, pointer: str, output: str) -> None:
    source = build(type="command", argv=["echo", output], token_pointer="/t", **{pointer: "/e"})
    grant = source.fetch()
    assert (grant.access_token, grant.lifetime_s == 300.0) == ("token-1", False)


def test_default_lifetime_holds_for_every_form_of_a_command(build) -> None:
    exec_credential = (
        '{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "t"}}'
    )
    for output in ("t", exec_credential, '{"Version": 1, "SessionToken": "t"}'):
        assert build(type="command", argv=["echo", output], default_lifetime_s=77).fetch() == Grant("t", 77.0)


def test_file_may_come_later_than_the_source_and_its_path_counts_from_the_config_file(build, tmp_path: Path) -> None:
    source = build(type="file", path="token")
    (tmp_path / "token").write_text("token-1\n")
    assert source.has_changed()
    assert source.fetch() == Grant("token-1", math.inf)
    assert source.watch_s == 1.0


def test_python_gets_arguments_of_every_kind_with_their_secrets(build, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    (tmp_path / "tokens_of_test_local.py").write_text(
        "def token(**arguments): return '_'.join(f'{name}.{value}' for name, value in flat(arguments)), 60\n"
        "def flat(arguments):\n"
        "    for name, value in arguments.items():\n"
        "        yield from flat(value) if isinstance(value, dict) else [(name, value)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    arguments = {"text": "${TENANT}", "number": 3, "flag": True, "deep": {"secret": {"file": "secret"}}}
    source = build({"TENANT": "t"}, type="python", function="tokens_of_test_local:token", arguments=arguments)
    assert source.fetch() == Grant("text.t_number.3_flag.True_secret.from-a-file", 60.0)
    del sys.modules["tokens_of_test_local"]
