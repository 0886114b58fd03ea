import os
from pathlib import Path

import pytest

from config import ConfigError, SecretRef, load
from config.sources import SOURCE_TYPES

_MINIMAL = "upstreams: [{name: llm, base_url: 'https://llm.example.com/v1'}]"


def test_minimal_file_has_the_defaults_of_the_contract(settings_of) -> None:
    settings = settings_of(_MINIMAL)
    server = settings.server
    assert (server.bind, server.workers, server.worker_class) == ("127.0.0.1:5002", os.cpu_count(), "gevent")
    assert server.url_prefixes == ("/agent/api/llm_proxy", "")
    assert (server.max_body_bytes, server.max_concurrent_requests) == (33554432, 4000)
    assert (server.threads, server.allowed_origins, server.drain_s) == (64, (), 60)
    assert (settings.client_keys, settings.token_sources, settings.sandbox) == ((), {}, None)
    assert settings.token_store.type == "file"
    assert (settings.logging.level, settings.logging.format, settings.logging.bodies) == (
        "INFO",
        "text",
        False,
    )


@pytest.mark.parametrize(
    ("given", "environ", "name"),
    [
        ("given.yaml", {"LLM_PROXY_CONFIG": "named.yaml"}, "given"),
        (Path("given.yaml"), {}, "given"),
        (None, {"LLM_PROXY_CONFIG": "named.yaml"}, "named"),
        (None, {"LLM_PROXY_CONFIG": ""}, "config"),
        (None, {}, "config"),
    ],
    ids=["argument", "path", "environment", "empty environment", "working directory"],
)
def test_file_is_the_given_one_else_that_of_the_environment_else_config_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given, environ, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for stem in ("given", "named", "config"):
        Path(f"{stem}.yaml").write_text(_MINIMAL.replace("llm,", f"{stem},"))
    assert load(given, environ).upstreams[0].name == name


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_file_that_cannot_be_read_is_one_fault_with_its_path(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "config.yaml"
    if kind == "folder":
        file.mkdir()
    if kind == "binary":
        file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (fault,) = caught.value.faults
    assert fault.startswith(f"{file}: ")


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(_MINIMAL, encoding="utf-8-sig")
    assert load(file, {}).upstreams[0].name == "llm"


def test_empty_file_lacks_upstreams_only(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert caught.value.faults == ("upstreams: is required",)


def test_section_without_lines_has_its_defaults(settings_of) -> None:
    settings = settings_of(f"server:\nclient_keys:\ntoken_sources:\n{_MINIMAL}")
    assert (settings.server.port, settings.client_keys, settings.token_sources) == (5002, (), {})


def test_number_from_the_environment_is_a_number(settings_of) -> None:
    settings = settings_of(
        "server: {workers: '${N}', drain_s: '${D:-1.5}'}\nlogging: {bodies: '${B}'}", {"N": "3", "B": "false"}
    )
    assert (settings.server.workers, settings.server.drain_s, settings.logging.bodies) == (3, 1.5, False)


def test_secret_is_found_in_the_environment_and_not_shown(settings_of, mark: str) -> None:
    settings = settings_of("token_sources: {s: {type: static, token: '${TOKEN}'}}", {"TOKEN": mark})
    assert settings.token_sources["s"].token == SecretRef(text=mark)
    assert mark not in repr(settings) + str(settings)


def test_paths_count_from_the_folder_of_the_file(settings_of, tmp_path: Path, client_pem: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    settings = settings_of(
        "token_sources: {s: {type: static, token: {file: token}}}\n"
        f"upstreams: [{{name: a, base_url: 'https://a', ca_bundle: client.pem, client_cert: {client_pem}}}]"
    )
    assert settings.token_sources["s"].token.reveal() == "abc"
    assert settings.upstreams[0].ca_bundle == settings.upstreams[0].client_cert == client_pem


def test_linked_file_counts_paths_from_the_folder_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "config.yaml").write_text(
        f"token_sources: {{s: {{type: static, token: {{file: t}}}}}}\n{_MINIMAL}"
    )
    (tmp_path / "t").write_text("abc")
    (tmp_path / "config.yaml").symlink_to("real/config.yaml")
    assert load(tmp_path / "config.yaml", {}).token_sources["s"].token.reveal() == "abc"


def test_all_faults_of_all_kinds_are_listed_in_one_run(faults_of, mark: str) -> None:
    faults = faults_of(
        f"""
server: {{bind: '0.0.0.0:5002', workers: 0, workers: {mark}}}
token_sources:
  corp: {{type: http_json, url: 'http://{mark}/', json: {{a: '${{MISSING}}', b: [1, {{file: {mark}}}]}}}}
  other: {{type: {mark}}}
upstreams:
  - {{name: a, base_url: 'https://a?{mark}', token_source: {mark}, timeouts: {{connect_s: 0}}}}
  - {{name: a, base_url: 5, tokn_source: {mark}, headers: {{X-A: {{{mark}: 1}}}}}}
logging: {{level: {mark}}}
"""
    )
    assert sorted(faults) == sorted(
        [
            "line 2: this key is already in the mapping",
            "server.workers: must be a whole number",
            "client_keys: must hold at least one key, as server.bind is not a loopback address",
            "token_sources.corp.url: must start with https://, or be on a loopback host",
            "token_sources.corp.json.a: needs the environment variable MISSING, which is not set",
            "token_sources.corp.json.b[1]: must name a readable file that holds the secret as UTF-8 text",
            "token_sources.other.type: must be one of " + ", ".join(SOURCE_TYPES),
            "upstreams[0].base_url: must have no query",
            "upstreams[0].token_source: must name one of token_sources: null, corp, other",
            "upstreams[0].timeouts.connect_s: must be above 0",
            "upstreams[1].name: must not repeat that of upstreams[0]",
            "upstreams[1].base_url: must be text (a number, date, yes or no in quotes)",
            "upstreams[1].tokn_source: is not a known key",
            "upstreams[1].headers.X-A: must be text (a number in quotes) or {file: path}",
            "logging.level: must be 'TRACE', 'DEBUG', 'INFO', 'SUCCESS', 'WARNING' or 'ERROR'",
        ]
    )


@pytest.mark.parametrize(
    "text",
    ["server: {bind: '${NO}'}", "token_sources: {s: {type: static, token: {file: '${NO}'}}}"],
    ids=["text", "file"],
)
def test_missing_variable_gives_no_second_fault_for_its_value(faults_of, text: str) -> None:
    (fault,) = faults_of(text)
    assert fault.endswith(": needs the environment variable NO, which is not set")


def test_variable_of_bytes_that_are_no_text_is_one_fault(faults_of, mark: str) -> None:
    for given in ("'${BYTES}'", "{file: '${BYTES}'}"):
        (fault,) = faults_of(
            f"token_sources: {{s: {{type: static, token: {given}}}}}", {"BYTES": os.fsdecode(mark.encode() + b"\xff")}
        )
        assert fault.endswith(": must be UTF-8 text, as must the environment variables that it names")


def test_alias_that_contains_itself_is_refused(faults_of) -> None:
    assert faults_of("logging: &x [*x]") == ("the file: an alias contains itself",)


def test_refused_file_leaves_no_secret_in_the_error_chain(settings_of, mark: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(f"server: {{workers: {mark}}}")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
