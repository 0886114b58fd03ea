import itertools
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from proxy.tokens.sources import python as python_module
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.python import PythonSource
from tests.support.unsigned_jwt import unsigned_jwt

_NOW = 1_763_114_400.0
_MARK = "s3cret-mark"
MakeModule = Callable[[str], str]


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeModule]:
    """Writes a module that can be imported and gives its name, a new one each time."""
    names: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make_module(lines: str) -> str:
        names.append(f"tokens_{uuid.uuid4().hex}")
        (tmp_path / f"{names[-1]}.py").write_text(lines)
        return names[-1]

    yield make_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def answer_of(make_module: MakeModule) -> Callable[..., Grant]:
    """What becomes of a function's answer, given as Python text."""

    def answer_of(answer: str, **options: object) -> Grant:
        name = make_module(f"import collections, types\ndef token():\n    return {answer}\n")
        return PythonSource(f"{name}:token", clock=lambda: _NOW, **options).fetch()

    return answer_of


def _failure(source: PythonSource) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as caught:
        source.fetch()
    assert _MARK not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    ("answer", "lifetime_s"),
    [
        pytest.param("'token-1'", 77.0, id="text"),
        pytest.param("('token-1', 60)", 60.0, id="pair"),
        pytest.param("('token-1', 0.5)", 0.5, id="pair-with-a-fraction"),
        pytest.param("('token-1', None)", 77.0, id="pair-without-a-lifetime"),
        pytest.param("{'access_token': 'token-1', 'expires_in': 60}", 60.0, id="mapping"),
        pytest.param("{'access_token': 'token-1', 'expires_in': '60', 'scope': 'x'}", 60.0, id="as-from-an-issuer"),
        pytest.param("{'access_token': 'token-1'}", 77.0, id="mapping-without-a-lifetime"),
        pytest.param("types.MappingProxyType({'access_token': 'token-1', 'expires_in': 60})", 60.0, id="other-mapping"),
        pytest.param("collections.namedtuple('Token', 'a b')('token-1', 60)", 60.0, id="named-tuple"),
    ],
)
def test_answer_is_a_text_a_pair_or_a_mapping(answer_of, answer: str, lifetime_s: float) -> None:
    assert answer_of(answer, default_lifetime_s=77.0) == Grant("token-1", lifetime_s)


def test_jwt_without_a_lifetime_beside_it_lives_for_what_its_claims_leave(answer_of) -> None:
    assert answer_of(repr(unsigned_jwt({"iat": _NOW - 100, "exp": _NOW + 200}))).lifetime_s == 200.0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param("None", "python: the function returned NoneType, and neither a text, ", id="none"),
        pytest.param("b's3cret-mark'", "python: the function returned bytes, and neither a text, ", id="bytes"),
        pytest.param("['s3cret-mark', 60]", "python: the function returned list, and neither", id="list"),
        pytest.param("('s3cret-mark',)", "python: the function returned tuple, and neither", id="one-item"),
        pytest.param("('s3cret-mark', 60, 1)", "python: the function returned tuple, and neither", id="three-items"),
        pytest.param("''", "no token at the root", id="empty-text"),
        pytest.param("'s3cret-mark\\n'", "the token at the root has characters", id="line-break"),
        pytest.param("(None, 60)", "no token at /0", id="pair-without-a-token"),
        pytest.param("('s3cret-mark', 0)", "the lifetime by /1 is not above 0 and finite", id="zero"),
        pytest.param("('s3cret-mark', -1)", "the lifetime by /1 is not above 0 and finite", id="negative"),
        pytest.param("('s3cret-mark', float('nan'))", "the lifetime by /1 is not above 0 and finite", id="nan"),
        pytest.param("('s3cret-mark', float('inf'))", "the lifetime by /1 is not above 0 and finite", id="infinite"),
        pytest.param("('s3cret-mark', True)", "the lifetime at /1 is not a number", id="bool"),
        pytest.param("('s3cret-mark', 'soon')", "the lifetime at /1 is not a number", id="words"),
        pytest.param("{}", "no token at /access_token", id="empty-mapping"),
        pytest.param("{'access_token': 's3cret-mark', 'expires_in': 0}", "the lifetime by /expires_in", id="zero-in"),
        pytest.param(repr(unsigned_jwt({"exp": _NOW - 5})), "the token ran out 5 s ago", id="jwt-that-has-run-out"),
    ],
)
def test_any_other_answer_is_a_failed_fetch(answer_of, answer: str, reason: str) -> None:
    with pytest.raises(TokenFetchError) as caught:
        answer_of(answer)
    assert str(caught.value).startswith(reason)
    assert _MARK not in str(caught.value)
    assert not caught.value.refused


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        pytest.param("raise ValueError('s3cret-mark')", "ValueError", id="exception"),
        pytest.param("raise type('s3cret'.title(), (Exception,), {})('s3cret-mark')", "S3Cret", id="one-of-its-own"),
        pytest.param("raise SystemExit('s3cret-mark')", "SystemExit", id="system-exit"),
        pytest.param("raise KeyboardInterrupt('s3cret-mark')", "KeyboardInterrupt", id="interrupt"),
        pytest.param("raise TimeoutError('s3cret-mark')", "TimeoutError", id="time-out-of-its-own"),
        pytest.param("from proxy.tokens.sources.base import TokenFetchError as E; raise E('s3cret-mark')",
                     "TokenFetchError", id="one-of-ours"),
        pytest.param("token(1)", "TypeError", id="wrong-arguments"),
    ],
)  # fmt: skip
def test_of_an_exception_only_the_type_is_told(
    make_module, capfd: pytest.CaptureFixture[str], statement: str, kind: str
) -> None:
    name = make_module(f"def token():\n    {statement}\n")
    error = _failure(PythonSource(f"{name}:token"))
    assert (str(error), error.refused) == (f"python: the function raised {kind}", False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("base", "method", "kind"),
    [
        pytest.param("Mapping", "__getitem__", "ValueError", id="value"),
        pytest.param("Mapping", "__iter__", "SystemExit", id="names"),
        pytest.param("Mapping", "__getitem__", "TokenFetchError", id="one-of-ours"),
        pytest.param("tuple", "__iter__", "ValueError", id="pair"),
    ],
)
def test_answer_that_cannot_be_read_is_the_functions_failure(
    make_module, capfd: pytest.CaptureFixture[str], base: str, method: str, kind: str
) -> None:
    name = make_module(
        "from collections.abc import Mapping\n"
        "from proxy.tokens.sources.base import TokenFetchError\n"
        f"class Lazy({base}):\n"
        "    def __getitem__(self, key): return 's3cret-mark'\n"
        "    def __iter__(self): return iter(['access_token'])\n"
        "    def __len__(self): return 2\n"
        f"    def {method}(self, *_): raise {kind}('s3cret-mark')\n"
        "def token(): return Lazy()\n"
    )
    error = _failure(PythonSource(f"{name}:token"))
    assert (str(error), error.refused) == (f"python: the function raised {kind}", False)
    assert capfd.readouterr() == ("", "")


def test_function_gets_its_arguments_by_name_read_anew_for_each_fetch(make_module) -> None:
    name = make_module("def token(*, tenant, secret): return f'{tenant}-{secret}'")
    secrets = itertools.count(1)
    source = PythonSource(f"{name}:token", read_arguments=lambda: {"tenant": "t", "secret": next(secrets)})
    assert [source.fetch().access_token for _ in range(2)] == ["t-1", "t-2"]


def test_secret_that_cannot_be_read_is_a_failed_fetch_and_nothing_is_called(make_module) -> None:
    def read_arguments() -> dict[str, str]:
        raise TokenFetchError("no such file", refused=True)

    name = make_module("def token(): return 'token-1'")
    error = _failure(PythonSource(f"{name}:token", read_arguments=read_arguments))
    assert (str(error), error.refused, name in sys.modules) == ("no such file", True, False)


def test_module_is_imported_at_the_first_fetch_and_once(make_module, tmp_path: Path) -> None:
    name = make_module("calls = []\ndef token():\n    calls.append(1)\n    return f'token-{len(calls)}'")
    source = PythonSource(f"{name}:token")
    assert name not in sys.modules
    assert [source.fetch().access_token for _ in range(2)] == ["token-1", "token-2"]


def test_function_of_a_module_in_a_package_is_found(tmp_path: Path, make_module, monkeypatch) -> None:
    package = f"package_{uuid.uuid4().hex}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "inner.py").write_text("class token:\n    def __new__(cls): return 'token-1'")
    assert PythonSource(f"{package}.inner:token").fetch().access_token == "token-1"
    for name in (f"{package}.inner", package):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param("import absent_module_9", "cannot be imported: ModuleNotFoundError absent_module_9", id="import"),
        pytest.param("raise ValueError('s3cret-mark')", "cannot be imported: ValueError", id="exception"),
        pytest.param("raise SystemExit('s3cret-mark')", "cannot be imported: SystemExit", id="system-exit"),
        pytest.param("'s3cret-mark", "cannot be imported: SyntaxError", id="syntax"),
        pytest.param("", "has no function token", id="no-function"),
        pytest.param("token = 's3cret-mark'", "has no function token", id="no-function-but-a-text"),
    ],
)
def test_module_that_cannot_be_used_is_a_refused_fetch(make_module, lines: str, reason: str) -> None:
    name = make_module(lines)
    error = _failure(PythonSource(f"{name}:token"))
    assert (str(error), error.refused) == (f"python: {name} {reason}", True)


def test_missing_module_is_a_refused_fetch() -> None:
    error = _failure(PythonSource("absent_package_9.inner:token"))
    expected = "python: absent_package_9.inner cannot be imported: ModuleNotFoundError absent_package_9"
    assert (str(error), error.refused) == (expected, True)


def test_module_that_was_mended_is_used_at_the_next_fetch(make_module, tmp_path: Path) -> None:
    name = make_module("raise ValueError")
    source = PythonSource(f"{name}:token")
    _failure(source)
    (tmp_path / f"{name}.py").write_text("def token(): return 'token-1'")
    assert source.fetch().access_token == "token-1"


@pytest.fixture
def held(make_module: MakeModule) -> Iterator[ModuleType]:
    """A module whose function counts, waits for `gate` and returns."""
    name = make_module(
        "import threading\n"
        "gate, calls = threading.Event(), []\n"
        "def token():\n    calls.append(threading.current_thread())\n    gate.wait(10)\n    return 'token-1'\n"
    )
    module = __import__(name)
    yield module
    module.gate.set()
    for thread in module.calls:
        thread.join(10)
        assert not thread.is_alive()


def test_call_that_does_not_return_is_given_up_and_begun_anew_while_fewer_than_three_go_on(
    held: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python_module, "CALL_DEADLINE_S", 0.1)
    source = PythonSource(f"{held.__name__}:token")
    for _ in range(3):
        error = _failure(source)
        assert (str(error), error.refused) == ("python: no answer within the deadline", False)
    assert str(_failure(source)) == "python: 3 calls that were given up have still not ended"
    assert len(held.calls) == 3
    monkeypatch.setattr(python_module, "CALL_DEADLINE_S", 10.0)
    held.gate.set()
    held.calls[0].join(10)
    assert source.fetch().access_token == "token-1"
    assert len(held.calls) == 4


def test_thread_of_a_call_does_not_keep_the_process_alive(held: ModuleType) -> None:
    held.gate.set()
    PythonSource(f"{held.__name__}:token").fetch()
    assert held.calls[0].daemon


def test_printed_source_shows_no_secret(make_module, mark: str) -> None:
    name = make_module("def token(secret): return secret")
    source = PythonSource(f"{name}:token", read_arguments=lambda: {"secret": mark})
    source.fetch()
    source.close()
    assert mark not in repr(source) + repr(vars(source))
