from pathlib import Path

import pytest

from config import SecretRef


def _source(members: str) -> str:
    return f"token_sources: {{s: {{{members}}}}}"


_HTTP_JSON = "type: http_json, url: 'https://iam.example.com/token'"
_CREDENTIALS = "type: client_credentials, token_url: 'https://iam.example.com/token', client_id: a, client_secret: b"


def test_http_json_has_the_defaults_of_the_contract(settings_of) -> None:
    source = settings_of(_source(_HTTP_JSON)).token_sources["s"]
    assert (source.type, source.url, source.method) == ("http_json", "https://iam.example.com/token", "POST")
    assert source.headers == source.query == source.json_body == source.form == {}
    assert (source.token_pointer, source.expires_in_pointer, source.expires_at_pointer) == (
        "/access_token",
        "/expires_in",
        None,
    )
    assert (source.default_lifetime_s, source.ca_bundle) == (300, None)


def test_client_credentials_have_the_defaults_of_the_contract(settings_of) -> None:
    source = settings_of(_source(_CREDENTIALS)).token_sources["s"]
    assert (source.type, source.token_url) == ("client_credentials", "https://iam.example.com/token")
    assert (source.client_id, source.client_secret) == ("a", SecretRef(text="b"))
    assert (source.scope, source.audience, source.auth_method) == (None, None, "client_secret_basic")
    assert (source.default_lifetime_s, source.ca_bundle) == (300, None)


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ("", "/expires_in"),
        ("expires_in_pointer: null", None),
        ("expires_in_pointer: /data/ttl", "/data/ttl"),
        ("expires_at_pointer: /data/end", None),
        ("expires_at_pointer: null", "/expires_in"),
    ],
)
def test_default_of_the_expiry_pointer_gives_way_to_expires_at(settings_of, members: str, pointer) -> None:
    source = settings_of(_source(f"{_HTTP_JSON}, {members}")).token_sources["s"]
    assert source.expires_in_pointer == pointer


def test_json_keeps_its_shape_and_its_texts_become_secrets(settings_of, tmp_path: Path, mark: str) -> None:
    (tmp_path / "secret").write_text(mark)
    items = "[1, 1.5, true, null, {c: '', d: {file: secret}}]"
    body = f"json: {{a: {mark}, b: {items}, e: {{file: x, f: 1}}, g: {{}}}}"
    settings = settings_of(_source(f"{_HTTP_JSON}, {body}"))
    assert settings.token_sources["s"].json_body == {
        "a": SecretRef(text=mark),
        "b": [1, 1.5, True, None, {"c": SecretRef(text=""), "d": SecretRef(path=tmp_path / "secret")}],
        "e": {"file": SecretRef(text="x"), "f": 1},
        "g": {},
    }
    assert mark not in repr(settings)


@pytest.mark.parametrize("place", ["json", "form", "query"])
def test_body_with_the_one_member_file_is_a_body(settings_of, place: str) -> None:
    source = settings_of(_source(f"{_HTTP_JSON}, {place}: {{file: x}}")).token_sources["s"]
    assert {"json": source.json_body, "form": source.form, "query": source.query}[place] == {
        "file": SecretRef(text="x")
    }


@pytest.mark.parametrize(
    "members",
    [
        f"{_HTTP_JSON}, json: {{a: SECRET}}",
        f"{_HTTP_JSON}, form: {{a: SECRET}}",
        f"{_HTTP_JSON}, query: {{a: SECRET}}",
        f"{_HTTP_JSON}, headers: {{X-A: SECRET}}",
        "type: client_credentials, token_url: 'https://a', client_id: a, client_secret: SECRET",
        "type: static, token: SECRET",
    ],
    ids=["json", "form", "query", "headers", "client_secret", "token"],
)
@pytest.mark.parametrize("secret", ["{file: secret}", "s3cret-mark"], ids=["file", "text"])
def test_secret_is_text_or_a_file_in_each_place_and_never_shown(
    settings_of, tmp_path: Path, mark: str, members: str, secret: str
) -> None:
    (tmp_path / "secret").write_text(mark)
    settings = settings_of(_source(members.replace("SECRET", secret)))
    assert mark not in repr(settings) + str(settings.model_dump())
    assert "SecretRef(" in repr(settings)


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("{file: missing}", "must name a readable file that holds the secret as UTF-8 text"),
        ("{file: empty}", "must name a readable file that holds the secret as UTF-8 text"),
        ("{file: .}", "must name a readable file that holds the secret as UTF-8 text"),
        ("{file: 5}", "must be {file: path} with a path as text"),
        ("{file: a, b: c}", "must be text (a number in quotes) or {file: path}"),
        ("5", "must be text (a number in quotes) or {file: path}"),
        ("null", "must be text (a number in quotes) or {file: path}"),
        ("[a]", "must be text (a number in quotes) or {file: path}"),
        ("''", "must not be empty"),
    ],
)
def test_secret_of_another_form_is_refused(faults_of, tmp_path: Path, secret: str, expected: str) -> None:
    (tmp_path / "empty").write_text("\n")
    assert faults_of(_source(f"type: static, token: {secret}")) == (f"token_sources.s.token: {expected}",)


@pytest.mark.parametrize(
    ("members", "path", "expected"),
    [
        (f"{_HTTP_JSON}, method: DELETE", "method", "must be 'GET', 'POST' or 'PUT'"),
        (f"{_HTTP_JSON}, json: [a]", "json", "must be a mapping"),
        (f"{_HTTP_JSON}, json_body: {{}}", "json_body", "is not a known key"),
        (f"{_HTTP_JSON}, form: {{a: 5}}", "form.a", "must be text (a number in quotes) or {file: path}"),
        (f"{_HTTP_JSON}, default_lifetime_s: 0", "default_lifetime_s", "must be above 0"),
        (f"{_HTTP_JSON}, ca_bundle: missing", "ca_bundle", "must be the path of an existing file"),
        (f"{_HTTP_JSON}, ca_bundle: 5", "ca_bundle", "must be the path of an existing file"),
        (f"{_CREDENTIALS}, scope: ''", "scope", "must not be empty"),
        (f"{_CREDENTIALS}, ca_bundle: .", "ca_bundle", "must be the path of an existing file"),
        (
            f"{_CREDENTIALS}, auth_method: none",
            "auth_method",
            "must be 'client_secret_basic' or 'client_secret_post'",
        ),
        (f"{_CREDENTIALS}, static: 1", "static", "is not a known key"),
        ("type: client_credentials", "client_secret", "is required"),
        ("type: static, token: a, ca_bundle: b", "ca_bundle", "is not a known key"),
        ("type: command", "type", "must be one of http_json, client_credentials, static"),
        ("type: [a]", "type", "must be one of http_json, client_credentials, static"),
        ("url: a", "type", "must be one of http_json, client_credentials, static"),
    ],
)
def test_fault_of_a_source_has_its_path_without_the_type(faults_of, members: str, path: str, expected: str) -> None:
    assert f"token_sources.s.{path}: {expected}" in faults_of(_source(members))


def test_source_named_like_a_type_keeps_its_name_in_paths(faults_of) -> None:
    assert faults_of("token_sources: {static: {type: static}}") == ("token_sources.static.token: is required",)


def test_source_name_is_a_label(faults_of) -> None:
    (fault,) = faults_of("token_sources: {'a b': {type: static, token: x}}")
    assert fault.startswith('token_sources["a b"]: must be 1 to 64 letters')


@pytest.mark.parametrize("pointer", ["", "/", "/a", "/a/0/b", "/a~0b~1c", "/ü x"])
def test_json_pointer_is_taken(settings_of, pointer: str) -> None:
    assert settings_of(_source(f"{_HTTP_JSON}, token_pointer: '{pointer}'")).token_sources["s"].token_pointer == pointer


@pytest.mark.parametrize("pointer", ["a", "a/b", "#/a", "$.a", "/a~", "/a~2"])
@pytest.mark.parametrize("key", ["token_pointer", "expires_in_pointer", "expires_at_pointer"])
def test_text_that_is_no_json_pointer_is_refused(faults_of, key: str, pointer: str) -> None:
    assert faults_of(_source(f"{_HTTP_JSON}, {key}: '{pointer}'")) == (
        f"token_sources.s.{key}: must be a JSON pointer (RFC 6901), such as /data/access_token",
    )


@pytest.mark.parametrize("name", ["", "X A", "X:A", "Ä", "X(A)", "X\\nA"])
def test_header_name_that_is_no_token_is_refused(faults_of, name: str) -> None:
    (fault,) = faults_of(_source(f'{_HTTP_JSON}, headers: {{"{name}": x}}'))
    assert fault.endswith("must be a field name of RFC 9110, such as X-App-Id")


@pytest.mark.parametrize("value", ["a\\nb", "a\\rb", "\\0", "\\x1f", "\\x7f", "é"])
def test_header_value_that_is_not_plain_ascii_is_refused(faults_of, value: str) -> None:
    assert faults_of(_source(f'{_HTTP_JSON}, headers: {{X-A: "{value}"}}')) == (
        "token_sources.s.headers.X-A: must hold ASCII characters only, and no line break or other control character",
    )


def test_header_value_may_hold_a_tab_or_be_empty(settings_of) -> None:
    headers = settings_of(_source(f'{_HTTP_JSON}, headers: {{X-A: "a\\tb", X-B: ""}}')).token_sources["s"].headers
    assert [value.reveal() for value in headers.values()] == ["a\tb", ""]
