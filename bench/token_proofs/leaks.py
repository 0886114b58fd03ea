"""P8: marked tokens and secrets, looked for in all that a proxy says: logs at TRACE, answers, argv, its tools."""

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from bench.token_proofs.issuer import Issuer, reply
from bench.token_proofs.marks import find, forms_found, new_mark
from bench.token_proofs.proxies import Config, config_for, running
from bench.token_proofs.rows import Lab, Row
from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient

LIFETIME_S = 2.0  # a fetch each second, so that every odd reply is met
NAMES = (
    *("json secret", "header secret", "query secret", "upstream header", "client key", "wrong key", "issuer reply"),
    *("upstream reply", "python secret", "command secret", "held token", "grant", "reference"),
)
TOOLS = (("check",), ("token",), ("doctor",))
Marks: TypeAlias = dict[str, str]
Places: TypeAlias = dict[str, bytes]
Environ: TypeAlias = dict[str, str]


def leaks(lab: Lab) -> Row:
    marks = {name: new_mark(name.replace(" ", "-")) for name in NAMES}
    places: Places = {"objects and tracebacks": b""}
    for line_format in ("text", "json"):
        with SandboxClient.start() as sandbox, Issuer(LIFETIME_S) as issuer:
            folder = lab.place("leaks")
            config = _config(sandbox, issuer, marks, folder, line_format)
            environ = {"BENCH_HEADER_SECRET": marks["header secret"]}
            with _command_lines(places), running(config, folder, environ) as proxy:
                _provoke(proxy, sandbox, issuer, marks, places)
                for words in TOOLS:
                    places[f"python -m proxy {words[0]}, {line_format}"] = _run_tool(proxy, folder, words, environ)
                places["objects and tracebacks"] += _run_leaky(proxy, folder, marks, environ)
            places[f"log at TRACE, {line_format}"] = proxy.log().encode()
            marks |= {f"token {number} ({line_format})": token for number, token in enumerate(issuer.granted)}
            # What must be there shows that the search works: the upstream got the token and the upstream's header.
            control = "".join(str(entry["headers"]) for entry in sandbox.log()).encode()
    missed = [line for line in ("Traceback", "_fail_with") if line.encode() not in places["objects and tracebacks"]]
    is_seen = forms_found(marks["upstream header"], control) == ["plain"] and not missed and _finds_every_form()
    is_seen &= any(forms_found(token, control) for token in issuer.granted)
    found = sorted(set(find(marks, places)))
    size = sum(map(len, places.values()))
    return Row(
        "P8",
        f"{len(marks)} marked tokens and secrets (plain, base64, URL-encoded) in {len(places)} places, "
        f"{size / 1e6:.1f} MB: {', '.join(sorted({place.partition(',')[0] for place in places}))}",
        f"{len(found)} hits" + (f": {'; '.join(found[:5])}" if found else "") + ("" if is_seen else "; control failed"),
        "0 hits",
        not found and is_seen,
        {"hits": found, "bytes": {place: len(text) for place, text in places.items()}, "marks": len(marks)},
    )


def _finds_every_form() -> bool:
    """Whether the search sees a mark that is there, in each form and wherever base64's groups of three begin."""
    mark = new_mark("control")
    for before in ("", "a", "ab"):
        encoded = base64.b64encode(f"{before}{mark}:more".encode())
        if forms_found(mark, encoded) != ["base64"]:
            return False
    # The URL-encoded form has the letters and digits of the mark in it.
    plain, url_encoded = f"x{mark[3:-3]}x".encode(), quote(mark, safe="").encode()
    return forms_found(mark, plain) == ["plain"] and "URL-encoded" in forms_found(mark, url_encoded)


def _config(sandbox: SandboxClient, issuer: Issuer, marks: Marks, folder: Path, line_format: str) -> Config:
    """Three sources, each with secrets of its own: by file, by environment variable, and in the config itself."""
    (folder / "secret").write_text(marks["json secret"] + "\n")
    key = {"label": "caller", "sha256": sha256(marks["client key"].encode()).hexdigest()}
    config = config_for(
        sandbox, issuer, client_keys=[key], logging={"level": "TRACE", "format": line_format}, workers=2
    )
    source = config["token_sources"]["corp"]
    source["json"] = {"appId": "bench", "appSecret": {"file": str(folder / "secret")}}
    source["headers"] = {"X-Api-Key": "${BENCH_HEADER_SECRET}"}
    source["query"] = {"key": marks["query secret"]}
    arguments = {"secret": marks["python secret"]}
    config["token_sources"]["vault"] = {
        "type": "python",
        "function": "bench.token_proofs.leaky:fetch",
        "arguments": arguments,
    }
    script = "import os, sys; print(os.environ['SECRET']); sys.exit(os.environ['SECRET'])"
    config["token_sources"]["tool"] = {
        "type": "command",
        "argv": [sys.executable, "-c", script],
        "env": {"SECRET": marks["command secret"]},
    }
    upstream = config["upstreams"][0] | {"headers": {"X-App-Secret": marks["upstream header"]}}
    config["upstreams"] = [
        {**upstream, "name": name, "token_source": name, "models": {f"{name}-*": "*"}} for name in ("vault", "tool")
    ]
    config["upstreams"].append(upstream)
    return config


def _provoke(proxy: ProxyProcess, sandbox: SandboxClient, issuer: Issuer, marks: Marks, places: Places) -> None:
    """Good and bad requests, a failing upstream and an issuer that answers oddly, each answer kept whole."""
    answers: list[bytes] = [places.get("answers", b"")]
    status: list[bytes] = [places.get("/status and health", b"")]
    with httpx.Client(base_url=proxy.url, trust_env=False, timeout=20) as client:

        def ask(path: str = "/v1/chat/completions", *, key: str = "client key", **body: Any) -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "input": "Hello", **body}
            answer = client.post(path, json=body, headers={"Authorization": f"Bearer {marks[key]}"})
            answers.append(str(answer.headers.raw).encode() + answer.content)

        def look() -> None:
            for path in ("/status", "/healthz", "/readyz", "/metrics"):
                answer = client.get(path)
                status.append(str(answer.headers.raw).encode() + answer.content)

        for body in ({}, {"stream": True}, {"model": "vault-m"}, {"model": "tool-m"}):
            ask(**body)
        ask("/v1/embeddings")
        ask(key="wrong key")
        look()
        for fault in _upstream_faults(marks):
            sandbox.faults(upstream=[fault])
            ask()
            ask(stream=True)
        sandbox.faults()
        for raw in _odd_replies(marks):
            issuer.raw, issuer.mode = raw, "raw"
            for seen in (issuer.calls, issuer.granted):  # the odd reply, and then a good one, which ends the back-off
                count, until = len(seen), time.monotonic() + 10
                while len(seen) == count and time.monotonic() < until:
                    ask()
                    time.sleep(0.1)
                look()
                issuer.mode = "good"
        _send_bad_heads(proxy.port, marks, answers)
    places["answers"], places["/status and health"] = b"\n".join(answers), b"\n".join(status)


def _upstream_faults(marks: Marks) -> list[dict[str, Any]]:
    echo = f'{{"error": {{"message": "Incorrect key: {marks["upstream reply"]}"}}}}'
    return [
        {"kind": "reset"},
        {"kind": "close"},
        {"kind": "raw", "bytes": "bm90IEhUVFANCg0K"},
        {"kind": "status", "status": 401, "body": echo},
        {"kind": "redirect", "location": f"/{marks['upstream reply']}"},
        {"kind": "refuse_token"},
        {"kind": "gzip"},
        {"kind": "cut", "frames": 1, "half": True},
    ]


def _odd_replies(marks: Marks) -> list[bytes]:
    """Replies of an issuer that are no token, each with a mark in it; the ones that blame our credentials come last."""
    mark = marks["issuer reply"]
    return [
        reply("200 OK", {"token": mark}),
        reply("200 OK", {"access_token": mark + "\n"}),
        reply("200 OK", {"access_token": mark * 1000}),
        reply("200 OK", {"access_token": mark, "token_type": mark}),
        reply("200 OK", {"access_token": mark, "expires_in": mark}),
        reply("500 Internal Server Error", {"error": mark}, f"X-Error: {mark}", f"Retry-After: {mark}"),
        reply("302 Found", {}, f"Location: /{mark}"),
        reply("200 OK", {"access_token": mark})[:-5],
        mark.encode() + b"\r\n\r\n",
        f"HTTP/1.1 200 {mark}\r\n{mark}\r\n\r\n{mark}".encode(),
        reply("400 Bad Request", {"error": mark, "error_description": mark}),
    ]


def _send_bad_heads(port: int, marks: Marks, answers: list[bytes]) -> None:
    """Requests that no HTTP library would send, with a key in them."""
    key = f"Authorization: Bearer {marks['client key']}".encode()
    for head in (
        b"POST /v1/chat/completions HTTP/1.1\r\n" + key + b"\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + key + b"\r\nContent-Length: x\r\n\r\n",
        key + b"\r\n\r\n",
        b"POST /" + key.partition(b": ")[2] + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n " + key + b"\r\n\r\n",
    ):
        with RawCaller(port) as caller:
            caller.send(head)
            with suppress(OSError, AssertionError):
                answers.append(caller.read_until(b"}"))


def _run_tool(proxy: ProxyProcess, folder: Path, words: tuple[str, ...], environ: Environ) -> bytes:
    """What an operator's command prints; it must be one that there is."""
    done = _run([sys.executable, "-m", "proxy", *words], proxy, folder, environ)
    assert b"No such command" not in done, f"python -m proxy {words[0]}: no such command"
    return done


def _run_leaky(proxy: ProxyProcess, folder: Path, marks: Marks, environ: Environ) -> bytes:
    marked = " ".join(marks[name] for name in ("held token", "grant", "reference"))
    return _run([sys.executable, "-m", "bench.token_proofs.leaky"], proxy, folder, environ | {"MARKED": marked})


def _run(words: list[str], proxy: ProxyProcess, folder: Path, environ: Environ) -> bytes:
    places = {"LLM_PROXY_CONFIG": str(folder / f"{proxy.port}.yaml"), "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(words, cwd=ROOT, env=os.environ | places | environ, capture_output=True, timeout=120)
    return done.stdout + done.stderr


@contextmanager
def _command_lines(places: Places) -> Iterator[None]:
    """Collect the argv of all processes, the short-lived ones among them, until the block is left."""
    seen: set[bytes] = {places.get("argv", b"")}
    over = threading.Event()

    def collect() -> None:
        while not over.wait(0.05):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(file.read_bytes())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        places["argv"] = b"\n".join(sorted(seen))
