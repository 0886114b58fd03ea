import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.command import CommandSource
from proxy.tokens.sources.program import Program
from proxy.tokens.sources.reply import TOKEN_MOST_CHARS, ReplyShape
from tests.support.unsigned_jwt import unsigned_jwt

_NOW = 1_763_114_400.0  # 2025-11-14T10:00:00Z
_IN_300_S = "2025-11-14T10:05:00Z"
_MARK = "s3cret-mark"


@pytest.fixture
def source_of(tmp_path: Path) -> Callable[..., CommandSource]:
    """A source whose program prints these bytes; what is neither bytes nor text becomes JSON."""

    def source_of(output: object, **options: object) -> CommandSource:
        text = output if isinstance(output, str | bytes) else json.dumps(output)
        file = tmp_path / "output"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return CommandSource(Program(["cat", str(file)]), clock=lambda: _NOW, **options)

    return source_of


@pytest.fixture
def refusal(source_of: Callable[..., CommandSource]) -> Callable[..., str]:
    """The text of the error that an output must bring; checked to be one line that quotes nothing."""

    def refusal(output: object, **options: object) -> str:
        with pytest.raises(TokenFetchError) as caught:
            source_of(output, **options).fetch()
        assert _MARK not in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refusal


def _exec_credential(status: object, version: str = "v1") -> dict[str, object]:
    return {"kind": "ExecCredential", "apiVersion": f"client.authentication.k8s.io/{version}", "status": status}


@pytest.mark.parametrize("output", ["token-1", "token-1\n", "token-1\r\n"])
def test_plain_text_is_the_token_and_lives_for_the_default(source_of, output: str) -> None:
    assert source_of(output, default_lifetime_s=77.0).fetch() == Grant("token-1", 77.0)


def test_printed_jwt_lives_for_what_its_claims_leave(source_of) -> None:
    token = unsigned_jwt({"iat": _NOW - 100, "exp": _NOW + 200})
    assert source_of(token + "\n").fetch() == Grant(token, 200.0)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        pytest.param("", "no token at standard output", id="nothing"),
        pytest.param("\n", "no token at standard output", id="empty-line"),
        pytest.param(f"{_MARK}\n\n", "more than one line at standard output", id="two-line-breaks"),
        pytest.param(f"Logging in...\n{_MARK}\n", "more than one line at standard output", id="chatty"),
        pytest.param(f" {_MARK}\n", "has characters that RFC 6750 does not allow", id="blank-before"),
        pytest.param(f"Bearer {_MARK}\n", "has characters that RFC 6750 does not allow", id="with-a-scheme"),
        pytest.param(f'"{_MARK}"', "has characters that RFC 6750 does not allow", id="quoted"),
        pytest.param(f"{_MARK}é".encode(), "has characters that RFC 6750 does not allow", id="beyond-ascii"),
        pytest.param(f"{_MARK}\0".encode("utf-16"), "has characters that RFC 6750 does not allow", id="utf-16"),
        pytest.param(_MARK.encode() + b"\xff", "has characters that RFC 6750 does not allow", id="no-utf-8"),
        pytest.param(_MARK + "x" * TOKEN_MOST_CHARS, "is longer than 16384 characters", id="too-long"),
        pytest.param(
            unsigned_jwt({"iat": _NOW - 300, "exp": _NOW - 5}), "the token ran out 5 s ago", id="jwt-that-has-run-out"
        ),
    ],
)
def test_plain_text_that_is_no_usable_token_is_a_failed_fetch(refusal, output: object, reason: str) -> None:
    assert reason in refusal(output)


def test_token_of_16_kib_and_a_line_break_is_taken(source_of) -> None:
    assert len(source_of("x" * TOKEN_MOST_CHARS + "\n").fetch().access_token) == TOKEN_MOST_CHARS


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize(
    ("status", "lifetime_s"),
    [
        pytest.param({"token": "token-1", "expirationTimestamp": _IN_300_S}, 300.0, id="with-an-expiry"),
        pytest.param({"token": "token-1", "expirationTimestamp": None}, 77.0, id="null-expiry"),
        pytest.param({"token": "token-1"}, 77.0, id="no-expiry"),
    ],
)
def test_exec_credential_is_read(source_of, version: str, status: object, lifetime_s: float) -> None:
    source = source_of(_exec_credential(status, version), default_lifetime_s=77.0)
    assert source.fetch() == Grant("token-1", lifetime_s)


@pytest.mark.parametrize(
    ("document", "lifetime_s"),
    [
        pytest.param({"Version": 1, "SessionToken": "token-1", "Expiration": _IN_300_S}, 300.0, id="with-an-expiry"),
        pytest.param({"Version": 1, "SessionToken": "token-1", "AccessKeyId": "x"}, 77.0, id="no-expiry"),
    ],
)
def test_credential_process_output_is_read(source_of, document: object, lifetime_s: float) -> None:
    assert source_of(document, default_lifetime_s=77.0).fetch() == Grant("token-1", lifetime_s)


@pytest.mark.parametrize(
    ("document", "shape", "lifetime_s"),
    [
        pytest.param(
            {"credential": {"access_token": "token-1", "token_expiry": _IN_300_S}},
            ReplyShape("/credential/access_token", None, "/credential/token_expiry"),
            300.0,
            id="gcloud-config-helper",
        ),
        pytest.param({"token": "token-1", "ttl": 60}, ReplyShape("/token", "/ttl"), 60.0, id="relative-expiry"),
        pytest.param({"token": "token-1"}, ReplyShape("/token", None, None, 77.0), 77.0, id="no-expiry"),
        pytest.param(["token-1"], ReplyShape("/0", None), 300.0, id="list"),
        pytest.param('"token-1"\n', ReplyShape("", None), 300.0, id="json-text"),
        pytest.param(_exec_credential({"token": "x"}) | {"t": "token-1"}, ReplyShape("/t"), 300.0, id="before-forms"),
    ],
)
def test_any_json_is_read_by_pointers(source_of, document: object, shape: ReplyShape, lifetime_s: float) -> None:
    assert source_of(document, shape=shape).fetch() == Grant("token-1", lifetime_s)


def test_json_may_have_blanks_around_it(source_of) -> None:
    output = "\n  " + json.dumps(_exec_credential({"token": "token-1"}), indent=2) + "\n\n"
    assert source_of(output).fetch().access_token == "token-1"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        pytest.param("{" + _MARK, "command: the output is not JSON", id="no-json"),
        pytest.param('{"a": "\xff"}'.encode("latin-1"), "command: the output is not JSON", id="no-utf-8"),
        pytest.param({"token": _MARK}, "needs token_pointer", id="unknown-form"),
        pytest.param({}, "needs token_pointer", id="empty"),
        pytest.param({"Version": 2, "SessionToken": _MARK}, "needs token_pointer", id="credential-process-version-2"),
        pytest.param({"Version": 1, "AccessKeyId": _MARK}, "no token at /SessionToken", id="without-session-token"),
        pytest.param(
            _exec_credential({"token": _MARK}, "v1alpha1"),
            "an ExecCredential of neither client.authentication.k8s.io/v1 nor client.authentication.k8s.io/v1beta1",
            id="exec-credential-of-another-version",
        ),
        pytest.param(
            {"kind": "ExecCredential", "apiVersion": [_MARK]}, "an ExecCredential of neither", id="no-version"
        ),
        pytest.param(_exec_credential({"clientKeyData": _MARK}), "no token at /status/token", id="certificate-only"),
        pytest.param(_exec_credential(None), "no token at /status/token", id="no-status"),
        pytest.param(
            _exec_credential({"token": _MARK, "expirationTimestamp": "2025-11-14T10:00:00Z"}),
            "the lifetime by /status/expirationTimestamp is not above 0",
            id="expired",
        ),
        pytest.param(
            {"Version": 1, "SessionToken": _MARK, "Expiration": "2025-11-14T10:05:00"},
            "the expiry at /Expiration has no zone",
            id="expiry-without-a-zone",
        ),
    ],
)
def test_json_that_holds_no_usable_token_is_a_failed_fetch(refusal, output: object, reason: str) -> None:
    assert reason in refusal(output)


@pytest.mark.parametrize("output", ["token-1", "{", ""])
def test_output_that_is_no_json_where_pointers_are_set_is_a_failed_fetch(refusal, output: str) -> None:
    assert refusal(output, shape=ReplyShape()) == "command: the output is not JSON"


def test_expiry_counts_from_before_the_program_ran() -> None:
    ends = datetime.fromtimestamp(_NOW + 300, UTC).isoformat()
    output = json.dumps({"Version": 1, "SessionToken": "token-1", "Expiration": ends})
    times = iter([_NOW, _NOW + 9])
    assert CommandSource(Program(["echo", output]), clock=lambda: next(times)).fetch().lifetime_s == 300.0


def test_environment_is_read_anew_for_each_fetch() -> None:
    secrets = itertools.count(1)
    program = Program(["sh", "-c", "echo token-$SECRET"])
    source = CommandSource(program, read_env=lambda: {"SECRET": str(next(secrets))})
    assert [source.fetch().access_token for _ in range(2)] == ["token-1", "token-2"]


def test_secret_that_cannot_be_read_is_a_failed_fetch_and_the_program_does_not_run(tmp_path: Path) -> None:
    def read_env() -> dict[str, str]:
        raise TokenFetchError("no such file", refused=True)

    source = CommandSource(Program(["touch", str(tmp_path / "ran")]), read_env=read_env)
    with pytest.raises(TokenFetchError, match="no such file"):
        source.fetch()
    assert not (tmp_path / "ran").exists()


def test_failed_program_is_a_failed_fetch() -> None:
    with pytest.raises(TokenFetchError, match="command: ended with exit code 1"):
        CommandSource(Program(["false"])).fetch()


def test_closed_source_starts_no_program(source_of) -> None:
    source = source_of("token-1")
    source.close()
    with pytest.raises(TokenFetchError, match="command: closed"):
        source.fetch()


def test_printed_source_shows_no_secret(mark: str) -> None:
    source = CommandSource(Program(["echo", mark]), read_env=lambda: {"SECRET": mark})
    source.fetch()
    assert mark not in repr(source) + repr(vars(source))


def test_source_is_never_watched(source_of) -> None:
    source = source_of("token-1")
    assert (source.watch_s, source.has_changed()) == (float("inf"), False)
