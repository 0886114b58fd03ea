import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.tokens.sources import program as program_module
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.program import OUTPUT_MOST_BYTES, Program
from tests.support.waiting import wait_for

MakeProgram = Callable[..., Program]

# Holds a lock for as long as any process lives that was started after it.
_HOLD = "import fcntl, os, sys, time; lock = open(sys.argv[1]); fcntl.flock(lock, fcntl.LOCK_EX)\n"


@pytest.fixture
def make_program(tmp_path: Path) -> MakeProgram:
    """A program of these Python lines with these arguments."""

    def make_program(lines: str, *arguments: str) -> Program:
        file = tmp_path / "program.py"
        file.write_text(lines)
        return Program([sys.executable, "-S", "-E", str(file), *arguments])

    return make_program


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "lock"
    file.touch()
    return file


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A named pipe: whoever opens it for reading sleeps until the test is over."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    keeper = os.open(path, os.O_RDWR)
    yield path
    os.close(keeper)


def _is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _children() -> set[str]:
    return {child for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()}


def _failure(program: Program, **env: str) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as caught:
        program.run(env)
    assert "\n" not in str(caught.value)
    return caught.value


def _in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except TokenFetchError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize("output", [b"", b"token-1", b"token-1\n", b"\xff\x00\r\n", b"x" * 300_000])
def test_output_comes_as_it_was_printed(tmp_path: Path, output: bytes) -> None:
    (tmp_path / "output").write_bytes(output)
    assert Program(["cat", str(tmp_path / "output")]).run({}) == output


def test_program_can_be_run_again(make_program: MakeProgram) -> None:
    program = make_program("import os; print(os.environ['RUN'])")
    assert [program.run({"RUN": run}) for run in ("1", "2")] == [b"1\n", b"2\n"]


def test_arguments_reach_the_program_without_a_shell(make_program: MakeProgram) -> None:
    arguments = ["$HOME", "*", "; exit 3", "", "two words", "'"]
    assert make_program("import sys; print(sys.argv[1:])", *arguments).run({}).decode() == f"{arguments}\n"


def test_environment_is_ours_and_what_is_added(make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    monkeypatch.setenv("BOTH", "ours")
    program = make_program("import os; print(*(os.environ[name] for name in ('OURS', 'ADDED', 'BOTH')))")
    assert program.run({"ADDED": "2", "BOTH": "added"}) == b"1 2 added\n"
    assert os.environ["BOTH"] == "ours"


def test_program_has_a_session_of_its_own(make_program: MakeProgram) -> None:
    lines = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())"
    assert make_program(lines).run({}) == b"True\n"


def test_program_has_nothing_to_read_though_we_have(make_program: MakeProgram, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("ours")
    kept = os.dup(0)
    with (tmp_path / "input").open() as file:
        os.dup2(file.fileno(), 0)
    try:
        assert make_program("import sys; print(repr(sys.stdin.read()))").run({}) == b"''\n"
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_standard_error_is_shown_nowhere(
    make_program: MakeProgram, mark: str, logs: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    lines = f"import sys; print('token-1'); print('{mark}' * 100_000, file=sys.stderr)"
    assert make_program(lines).run({}) == b"token-1\n"
    assert mark not in str(_failure(make_program(f"import sys; sys.exit('{mark}')")))
    assert mark not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param("sys.exit(1)", "ended with exit code 1", id="code-1"),
        pytest.param("sys.exit(255)", "ended with exit code 255", id="code-255"),
        pytest.param("os.close(1); os._exit(3)", "ended with exit code 3", id="after-its-output-was-closed"),
        pytest.param("os.kill(os.getpid(), 9)", "killed by SIGKILL", id="killed"),
        pytest.param("os.kill(os.getpid(), 15)", "killed by SIGTERM", id="terminated"),
        pytest.param("os.kill(os.getpid(), 40)", "killed by signal 40", id="killed-by-a-signal-without-a-name"),
    ],
)
def test_end_other_than_with_code_0_is_a_failed_fetch_whatever_was_printed(
    make_program: MakeProgram, mark: str, end: str, reason: str
) -> None:
    error = _failure(make_program(f"import os, sys; print('{mark}', flush=True); {end}"))
    assert (str(error), error.refused, error.connection) == (f"command: {reason}", False, False)


@pytest.mark.parametrize(
    ("name", "mode", "content", "reason"),
    [
        pytest.param("absent", None, "", "No such file or directory", id="missing"),
        pytest.param("plain", 0o644, "", "Permission denied", id="not-executable"),
        pytest.param("no-format", 0o755, "\x01\x02", "Exec format error", id="no-program"),
        pytest.param("script", 0o755, "#!/absent/interpreter\n", "No such file or directory", id="no-interpreter"),
        pytest.param("", None, "", "Permission denied", id="folder"),
        pytest.param("plain/x", None, "", "No such file or directory", id="in-a-folder-that-is-missing"),
    ],
)
def test_program_that_cannot_be_started_is_a_refused_fetch_that_names_it(
    tmp_path: Path, name: str, mode: int | None, content: str, reason: str
) -> None:
    path = tmp_path / name
    if mode is not None:
        path.write_text(content)
        path.chmod(mode)
    error = _failure(Program([str(path), "s3cret-mark"]))
    assert (str(error), error.refused) == (f"command: {path} cannot be started: {reason}", True)


@pytest.mark.parametrize(
    ("argument", "env"),
    [
        pytest.param("s3cret-mark\0", {}, id="nul-in-an-argument"),
        pytest.param("\ud800s3cret-mark", {}, id="lone-surrogate-in-an-argument"),
        pytest.param("", {"A": "s3cret-mark\0"}, id="nul-in-a-variable"),
        pytest.param("", {"A": "\ud800s3cret-mark"}, id="lone-surrogate-in-a-variable"),
        pytest.param("", {"A=s3cret-mark": ""}, id="equals-sign-in-a-name"),
    ],
)
def test_what_no_program_can_be_given_is_a_refused_fetch(mark: str, argument: str, env: dict[str, str]) -> None:
    error = _failure(Program(["echo", argument]), **env)
    expected = "command: echo cannot be started: an argument or a variable that no program can be given"
    assert (str(error), error.refused) == (expected, True)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_program_that_cannot_be_started_just_now_is_not_refused() -> None:
    error = _failure(Program(["echo", "x" * 10_000_000]))
    assert (str(error), error.refused) == ("command: echo cannot be started: Argument list too long", False)


@pytest.mark.parametrize(
    ("length", "fits"),
    [
        pytest.param(OUTPUT_MOST_BYTES - 1, True, id="just-below"),
        pytest.param(OUTPUT_MOST_BYTES, True, id="at-the-limit"),
        pytest.param(OUTPUT_MOST_BYTES + 1, False, id="just-above"),
    ],
)
def test_output_of_up_to_one_mebibyte_is_read(make_program: MakeProgram, length: int, fits: bool) -> None:
    program = make_program(f"print('x' * {length}, end='')")
    if fits:
        assert len(program.run({})) == length
    else:
        assert str(_failure(program)) == f"command: output of more than {OUTPUT_MOST_BYTES} bytes"


def test_program_that_prints_without_end_is_killed(make_program: MakeProgram, lock: Path) -> None:
    program = make_program(_HOLD + "while True: print('x' * 65536)", str(lock))
    assert str(_failure(program)) == f"command: output of more than {OUTPUT_MOST_BYTES} bytes"
    assert not _is_held(lock)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("time.sleep(60)", id="silent"),
        pytest.param("print('s3cret-mark', flush=True); time.sleep(60)", id="after-a-token"),
        pytest.param("os.close(1); time.sleep(60)", id="after-its-output-was-closed"),
        pytest.param("os.fork(); time.sleep(60)", id="with-a-child"),
        pytest.param("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(60)", id="deaf-to-sigterm"),
        pytest.param("import signal; os.kill(os.getpid(), signal.SIGSTOP)", id="stopped"),
    ],
)
def test_program_that_takes_too_long_is_killed_with_its_children(
    make_program: MakeProgram, lock: Path, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    monkeypatch.setattr(program_module, "RUN_DEADLINE_S", 0.5)
    error = _failure(make_program(_HOLD + lines, str(lock)))
    assert (str(error), error.refused) == ("command: not done within the deadline", False)
    wait_for(lambda: not _is_held(lock))


def test_child_that_outlives_its_program_is_killed_and_the_output_counts(make_program: MakeProgram, lock: Path) -> None:
    lines = _HOLD + "print('token-1', flush=True)\nif os.fork() == 0: time.sleep(60)"
    assert make_program(lines, str(lock)).run({}) == b"token-1\n"
    wait_for(lambda: not _is_held(lock))


def test_daemon_that_keeps_the_output_open_holds_nothing_up(make_program: MakeProgram, gate: Path) -> None:
    lines = "import os, sys; print('x' * 300_000, flush=True)\nif os.fork() == 0: os.setsid(); open(sys.argv[1]).read()"
    assert make_program(lines, str(gate)).run({}) == b"x" * 300_000 + b"\n"


def test_close_kills_the_program_and_its_children(make_program: MakeProgram, lock: Path) -> None:
    program = make_program(_HOLD + "os.fork(); time.sleep(60)", str(lock))
    thread, outcome = _in_thread(lambda: program.run({}))
    wait_for(lambda: _is_held(lock))
    program.close()
    thread.join(10)
    assert [str(error) for error in outcome] == ["command: killed by SIGKILL"]
    wait_for(lambda: not _is_held(lock))


def test_nothing_is_started_after_close(make_program: MakeProgram, tmp_path: Path) -> None:
    program = make_program("import sys; open(sys.argv[1], 'w')", str(tmp_path / "started"))
    program.close()
    program.close()
    assert str(_failure(program)) == "command: closed"
    assert not (tmp_path / "started").exists()


def test_no_process_and_no_open_file_is_left_behind(make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program("pass").run({})
    children, open_files = _children(), set(os.listdir("/proc/self/fd"))
    make_program("print('token-1')").run({})
    _failure(make_program("import sys; sys.exit(1)"))
    monkeypatch.setattr(program_module, "RUN_DEADLINE_S", 0.2)
    _failure(make_program("import time; time.sleep(60)"))
    _failure(Program(["/absent/program"]))
    assert (_children(), set(os.listdir("/proc/self/fd"))) == (children, open_files)
