"""Tokens from a program, a file and a function, in real workers: the upstream checks what arrives."""

import fcntl
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
MARK = "s3cret-mark"
Start = Callable[..., ProxyProcess]

# Fetches a token from the sandbox's issuer. Arguments: the issuer's URL and the form to print it in.
PROGRAM = """
import datetime, json, os, sys, urllib.request

print(os.environ["APP_SECRET_2"], file=sys.stderr)  # programs do such things
url, form = sys.argv[1:]
body = json.dumps({"appId": "sandbox-app", "appSecret": os.environ["APP_SECRET"]}).encode()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
reply = json.load(opener.open(url, body, timeout=5))
token, lifetime = reply["access_token"], datetime.timedelta(seconds=reply["expires_in"])
expiry = (datetime.datetime.now(datetime.UTC) + lifetime).isoformat()
if form == "plain":
    print(token)
elif form == "exec-credential":
    status = {"token": token, "expirationTimestamp": expiry}
    print(json.dumps({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status}))
elif form == "credential-process":
    print(json.dumps({"Version": 1, "SessionToken": token, "Expiration": expiry}))
elif form == "pointers":
    print(json.dumps({"credential": {"access_token": token, "token_expiry": expiry}}))
"""
FORMS = ("plain", "exec-credential", "credential-process", "pointers")

# Holds a lock, as its child does, until it is killed.
HANGING_PROGRAM = """
import fcntl, os, sys, time

lock = open(sys.argv[1])
fcntl.flock(lock, fcntl.LOCK_EX)
os.fork()
time.sleep(60)
"""

MODULE = """
import json, urllib.request


def token(url, credentials):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.load(opener.open(url, json.dumps(credentials).encode(), timeout=5))
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts proxies and stops them after the test, whose exit status must be 0."""
    proxies: list[ProxyProcess] = []

    def start(config: dict[str, Any], environ: dict[str, str] | None = None) -> ProxyProcess:
        proxies.append(ProxyProcess.start(config, tmp_path, environ))
        return proxies[-1]

    yield start
    statuses = [proxy.stop() for proxy in proxies]
    assert statuses == [0] * len(proxies)


def ask(proxy: ProxyProcess, model: str = "m") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(proxy.url + CHAT, json=body, trust_env=False, timeout=30).status_code


def token_of(sandbox: SandboxClient) -> str:
    credentials = {"appId": "sandbox-app", "appSecret": "sandbox-secret"}
    return str(httpx.post(sandbox.url + "/token", json=credentials, trust_env=False).json()["access_token"])


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def children_of(pid: int) -> list[int]:
    """The children of a process, dead ones that nobody has reaped among them."""
    lists = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in lists for child in children]


def is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def command_config(sandbox: SandboxClient, worker_class: str, program: Path) -> dict[str, Any]:
    """One source and one upstream for each form of output; the model's name is the form's."""
    config = sandbox.config(server={"worker_class": worker_class})
    sources: dict[str, dict[str, Any]] = {
        form: {
            "type": "command",
            "argv": [sys.executable, "-S", str(program), sandbox.url + "/token", form],
            "env": {"APP_SECRET": "sandbox-secret", "APP_SECRET_2": MARK},
        }
        for form in FORMS
    }
    sources["pointers"] |= {
        "token_pointer": "/credential/access_token",
        "expires_at_pointer": "/credential/token_expiry",
    }
    (upstream,) = config["upstreams"]
    upstreams = [{**upstream, "name": form, "token_source": form, "models": {form: "m"}} for form in FORMS]
    return {**config, "token_sources": sources, "upstreams": upstreams}


def test_program_prints_the_token_in_each_form(
    own_sandbox: SandboxClient, tmp_path: Path, worker_class: str, start: Start
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    proxy = start(command_config(own_sandbox, worker_class, program))
    assert [ask(proxy, form) for form in FORMS] == [200] * len(FORMS)
    assert {entry["token"] for entry in own_sandbox.log()} == {"valid"}
    own_sandbox.revoke()
    assert [ask(proxy, form) for form in FORMS] == [200] * len(FORMS)
    # The master reaps nothing for its workers: whatever is dead there must have been waited for.
    assert [children_of(worker) for worker in children_of(proxy.process.pid)] == [[]]
    assert MARK not in proxy.log()


def test_program_that_takes_its_time_holds_up_no_other_request_and_ends_with_the_worker(
    own_sandbox: SandboxClient, tmp_path: Path, worker_class: str, start: Start
) -> None:
    program, lock = tmp_path / "program.py", tmp_path / "lock"
    program.write_text(HANGING_PROGRAM)
    lock.touch()
    source = {"type": "command", "argv": [sys.executable, "-S", str(program), str(lock)]}
    proxy = start(own_sandbox.config(server={"worker_class": worker_class}, token_sources={"corp": source}))
    assert httpx.get(proxy.url + "/readyz", trust_env=False).status_code == 503
    wait_for(lambda: is_held(lock))
    for _ in range(10):
        assert httpx.get(proxy.url + "/healthz", trust_env=False, timeout=1).status_code == 200
    proxy.signal(signal.SIGTERM)
    assert proxy.process.wait(20) == 0
    wait_for(lambda: not is_held(lock))


def test_program_that_is_missing_is_told_once_and_callers_get_503(sandbox: SandboxClient, start: Start) -> None:
    source = {"type": "command", "argv": ["/absent/program", MARK], "env": {"SECRET": MARK}}
    proxy = start(sandbox.config(token_sources={"corp": source}))
    assert [ask(proxy), ask(proxy)] == [503, 503]
    errors = [line for line in proxy.log().splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert "command: /absent/program cannot be started: No such file or directory" in errors[0]
    assert MARK not in proxy.log()


def file_config(sandbox: SandboxClient, worker_class: str, path: Path) -> dict[str, Any]:
    source = {"type": "file", "path": str(path)}
    return sandbox.config(server={"worker_class": worker_class}, token_sources={"corp": source})


def test_file_that_something_else_renews_is_picked_up_before_anyone_is_refused(
    own_sandbox: SandboxClient, tmp_path: Path, worker_class: str, start: Start
) -> None:
    path = tmp_path / "token"
    replace(path, token_of(own_sandbox) + "\n")
    proxy = start(file_config(own_sandbox, worker_class, path))
    assert ask(proxy) == 200
    new = token_of(own_sandbox)
    replace(path, new + "\n")

    def sends_the_new_one() -> bool:
        assert ask(proxy) == 200
        return ["Authorization", f"Bearer {new}"] in own_sandbox.last()["headers"]

    wait_for(sends_the_new_one)
    assert {entry["token"] for entry in own_sandbox.log()} == {"valid"}


def test_file_that_was_rewritten_after_its_token_was_revoked_is_read_again(
    own_sandbox: SandboxClient, tmp_path: Path, worker_class: str, start: Start
) -> None:
    path = tmp_path / "token"
    replace(path, token_of(own_sandbox))
    proxy = start(file_config(own_sandbox, worker_class, path))
    assert ask(proxy) == 200
    own_sandbox.revoke()
    replace(path, token_of(own_sandbox))
    assert ask(proxy) == 200


def test_file_that_comes_after_the_start_is_picked_up(sandbox: SandboxClient, tmp_path: Path, start: Start) -> None:
    path = tmp_path / "token"
    proxy = start(file_config(sandbox, "gevent", path))
    assert ask(proxy) == 503
    replace(path, token_of(sandbox))
    wait_for(lambda: ask(proxy) == 200)


def test_function_of_the_operators_own_fetches_the_token(
    own_sandbox: SandboxClient, tmp_path: Path, worker_class: str, start: Start
) -> None:
    (tmp_path / "company_tokens.py").write_text(MODULE)
    secret = tmp_path / "secret"
    secret.write_text("sandbox-secret\n")
    source = {
        "type": "python",
        "function": "company_tokens:token",
        "arguments": {
            "url": own_sandbox.url + "/token",
            "credentials": {"appId": "sandbox-app", "appSecret": {"file": str(secret)}},
        },
    }
    config = own_sandbox.config(server={"worker_class": worker_class}, token_sources={"corp": source})
    proxy = start(config, {"PYTHONPATH": str(tmp_path)})
    assert ask(proxy) == 200
    own_sandbox.revoke()
    assert ask(proxy) == 200
    assert own_sandbox.last()["token"] == "valid"
