import re
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from proxy.cli import main

_GOOD = """
client_keys: [{label: a, sha256: "%s"}]
token_sources: {corp: {type: static, token: "${MARK:-s3cret-mark}"}}
upstreams:
  - {name: llm, base_url: 'https://llm.example.com/v1', token_source: corp}
  - {name: other, base_url: 'https://other.example.com/v1'}
""" % ("0" * 64)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(_GOOD)
    return path


def run(*arguments: str, **environ: str | None) -> Result:
    return CliRunner(env={"LLM_PROXY_CONFIG": None, **environ}).invoke(main, arguments)


# check


def test_check_of_a_good_config_says_what_it_holds(config: Path) -> None:
    result = run("--config", str(config), "check")
    assert result.exit_code == 0
    assert result.stdout == f"{config}: ok (2 upstreams, 1 token sources, 1 client keys)\n"


def test_check_takes_the_config_that_the_environment_names(config: Path) -> None:
    assert run("check", LLM_PROXY_CONFIG=str(config)).stdout.startswith(f"{config}: ok")


def test_option_goes_before_the_environment(config: Path) -> None:
    assert run("--config", str(config), "check", LLM_PROXY_CONFIG="/nowhere").exit_code == 0


def test_check_takes_config_yaml_of_the_working_directory(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    assert run("check").stdout.startswith("config.yaml: ok")


def test_check_tells_all_faults_each_on_a_line_with_its_path(config: Path) -> None:
    config.write_text("server: {bind: nowhere, workers: 0}\nupstreams: [{name: llm, base_url: s3cret-mark}]\n")
    result = run("--config", str(config), "check")
    assert result.exit_code == 1
    assert result.stdout == ""
    paths = [line.partition(": ")[0] for line in result.stderr.splitlines()]
    assert {"server.bind", "server.workers", "upstreams[0].base_url"} <= set(paths)
    assert "s3cret-mark" not in result.output


def test_check_of_a_config_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    result = run("--config", str(tmp_path / "none.yaml"), "check")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_check_imports_the_adapters(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (config.parent / "bad_adapter.py").write_text("raise KeyError('s3cret-mark')\n")
    bad = "{name: a, base_url: 'https://a.example.com', adapter: 'bad_adapter:A'}"
    good = "{name: b, base_url: 'https://b.example.com', adapter: dashscope}"
    config.write_text(f"upstreams: [{good}, {bad}]\n")
    result = run("--config", str(config), "check")
    assert (result.exit_code, result.stderr) == (1, "upstreams[1].adapter: cannot be imported: KeyError\n")
    config.write_text(f"upstreams: [{good}]\n")
    assert run("--config", str(config), "check").exit_code == 0


def test_check_shows_no_secret(config: Path) -> None:
    assert "s3cret-mark" not in run("--config", str(config), "check").output


# new-key


def key_of(result: Result) -> str:
    [key] = re.findall(r"sk-[A-Za-z0-9_-]+", result.stdout)
    return str(key)


def test_new_key_is_shown_once_with_the_lines_for_the_config(config: Path) -> None:
    result = run("new-key", "--label", "ragflow")
    assert result.exit_code == 0
    key = key_of(result)
    [entry] = yaml.safe_load(result.stdout.partition("config.yaml:\n")[2])
    assert entry == {"label": "ragflow", "sha256": sha256(key.encode()).hexdigest()}


@pytest.mark.parametrize(
    "label", ["ragflow", "team-a.b_c", "42", "1e3", "true", "null", "0x1F", "2027-01-31", "-", "."]
)
def test_lines_of_a_new_key_are_good_in_a_config_whatever_the_label(config: Path, label: str) -> None:
    lines = run("new-key", f"--label={label}").stdout.partition("config.yaml:\n")[2]
    config.write_text("client_keys:\n" + lines + "upstreams: [{name: llm, base_url: 'https://llm.example.com/v1'}]\n")
    result = run("--config", str(config), "check")
    assert (result.exit_code, result.stderr) == (0, "")


def test_new_keys_are_long_and_never_the_same() -> None:
    keys = {key_of(run("new-key", "--label", "a")) for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) >= len("sk-") + 43 for key in keys)  # 256 bits


def test_new_key_needs_no_config() -> None:
    assert run("new-key", "--label", "a", LLM_PROXY_CONFIG="/nowhere").exit_code == 0


def test_new_key_needs_a_label() -> None:
    result = run("new-key")
    assert result.exit_code == 2
    assert "--label" in result.stderr


def test_command_that_does_not_exist_is_an_error() -> None:
    assert run("nonsense").exit_code == 2
