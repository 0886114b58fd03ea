from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from config import SecretRef


def _source(members: str) -> str:
    return f"token_sources: {{s: {{{members}}}}}"


_HTTP_JSON = "type: http_json, url: 'https://iam.example.com/token'"
_CLIENT = "token_url: 'https://iam.example.com/token', client_id: a, client_secret: b"
_CREDENTIALS = f"type: client_credentials, {_CLIENT}"
_EXCHANGE = f"type: token_exchange, {_CLIENT}, subject_token: c"
_NO_TLS = "must start with https://, or be on a loopback host"
_NO_URI = "must be an absolute URI without a fragment, such as https://api.example.com"
_NO_POINTER = "must be a JSON pointer (RFC 6901), such as /data/access_token"
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type"
_ONE_OF = "must be one of http_json, client_credentials, token_exchange, command, file, static, python"


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
    assert (source.auth_method, source.private_key, source.key_id, source.signing_alg, source.assertion_audience) == (
        "client_secret_basic",
        *[None] * 4,
    )
    assert (source.scope, source.audience, source.resource, source.fields) == (None, (), (), {})
    assert (source.default_lifetime_s, source.ca_bundle, source.client_cert) == (300, None, None)
    assert source.issuer == "many_active"


def test_token_exchange_is_a_client_with_a_token_to_exchange(settings_of) -> None:
    source = settings_of(_source(_EXCHANGE)).token_sources["s"]
    assert (source.token_url, source.client_id, source.client_secret) == (
        "https://iam.example.com/token",
        "a",
        SecretRef(text="b"),
    )
    assert (source.subject_token, source.subject_token_type) == (SecretRef(text="c"), f"{_TOKEN_TYPE}:jwt")
    assert (source.actor_token, source.actor_token_type) == (None, f"{_TOKEN_TYPE}:jwt")
    assert (source.requested_token_type, source.default_lifetime_s) == (None, 300)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            "type: command, argv: [a, b]",
            {
                "argv": ("a", "b"),
                "env": {},
                "token_pointer": None,
                "expires_at_pointer": None,
                "expires_in_pointer": None,
            },
        ),
        ("type: python, function: 'a.b:c'", {"function": "a.b:c", "arguments": {}}),
        ("type: static, token: a", {"token": SecretRef(text="a")}),
    ],
    ids=["command", "python", "static"],
)
def test_sources_of_this_host_have_the_defaults_of_the_contract(settings_of, members: str, expected) -> None:
    source = settings_of(_source(members)).token_sources["s"].model_dump()
    defaults = {} if source["type"] == "static" else {"default_lifetime_s": 300, "issuer": "many_active"}
    assert source == {"type": source["type"], **expected, **defaults}


def test_file_source_counts_its_path_from_the_folder_of_the_config(settings_of, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    assert settings_of(_source("type: file, path: token")).token_sources["s"].path == tmp_path / "token"


@pytest.mark.parametrize("member", ["audience", "resource"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [("x:y", ("x:y",)), ("['x:y']", ("x:y",)), ("['x:y', 'x:z']", ("x:y", "x:z")), ("[]", ())],
    ids=str,
)
def test_audience_and_resource_are_one_text_or_several(settings_of, member: str, given: str, expected) -> None:
    source = settings_of(_source(f"{_CREDENTIALS}, {member}: {given}")).token_sources["s"]
    assert getattr(source, member) == expected


@pytest.mark.parametrize("grant", ["client_credentials", "token_exchange"])
@pytest.mark.parametrize("name", ["grant_type", "client_assertion", "scope", "resource", "subject_token"])
def test_further_fields_leave_those_of_the_grant_alone(faults_of, settings_of, grant: str, name: str) -> None:
    members = _CREDENTIALS if grant == "client_credentials" else _EXCHANGE
    assert settings_of(_source(f"{members}, fields: {{tenant: x}}"))
    assert faults_of(_source(f"{members}, fields: {{{name}: x}}")) == (
        f"token_sources.s.fields.{name}: must not be a member that the grant itself sends",
    )


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ("private_key: {file: key.pem}", None),
        ("private_key: {file: key.pem}, signing_alg: ES384, key_id: k1, assertion_audience: a", None),
        ("private_key: {file: key.pem}, signing_alg: ES256", "private_key: must be a key that signs with ES256"),
        ("private_key: key.pem", "private_key: must be a private key as PEM without a passphrase or as a JWK"),
        ("private_key: s3cret-mark", "private_key: must be a private key as PEM without a passphrase or as a JWK"),
        ("private_key: {file: key.pem}, signing_alg: HS256", "signing_alg: must be 'RS256', "),
        ("private_key: {file: missing}", "private_key: must name a readable file"),
    ],
    ids=["key", "with-all-its-settings", "other-algorithm", "path-as-text", "no-key", "symmetric", "no-file"],
)
def test_private_key_is_read_at_start(settings_of, faults_of, tmp_path: Path, members: str, fault: str | None) -> None:
    (tmp_path / "key.pem").write_bytes(ECKey.generate_key("P-384").as_pem(private=True))
    client = "type: client_credentials, token_url: 'https://a', client_id: a, auth_method: private_key_jwt"
    if fault is None:
        assert settings_of(_source(f"{client}, {members}"))
    else:
        (found,) = faults_of(_source(f"{client}, {members}"))
        assert found.startswith(f"token_sources.s.{fault}")


@pytest.mark.parametrize("token", ["a", "AZaz09-._~+/==", "a" * 16384], ids=["one", "each-kind", "longest"])
def test_static_token_of_the_characters_of_rfc_6750_is_taken(settings_of, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token + "\n")
    for given in (f"'{token}'", "{file: token}"):
        assert settings_of(_source(f"type: static, token: {given}")).token_sources["s"].token.reveal() == token


@pytest.mark.parametrize(
    "token",
    ["id:s3cret-mark", "s3cret-mark ", " s3cret-mark", "s3cret-m\xe4rk", "s3cret=mark", "=", "a" * 16385],
    ids=["colon", "blank-behind", "blank-before", "umlaut", "equals-sign-inside", "equals-sign-alone", "too-long"],
)
def test_static_token_that_no_header_may_hold_is_refused(faults_of, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    for given in (f"'{token}'", "{file: token}"):
        assert faults_of(_source(f"type: static, token: {given}")) == (
            "token_sources.s.token: must be a token as RFC 6750 has it: at most 16384 letters, digits and -._~+/, "
            "and = only at the end",
        )


@pytest.mark.parametrize("function", ["a:b", "a.b:c", "_a.b1:c_2"])
def test_function_is_a_module_and_a_name(settings_of, function: str) -> None:
    assert settings_of(_source(f"type: python, function: '{function}'")).token_sources["s"].function == function


@pytest.mark.parametrize("function", ["", "a", "a.b", ":a", "a:", "a:b.c", "a:b:c", "a b:c", "1a:b", "a-b:c", "é:a"])
def test_function_of_another_form_is_refused(faults_of, function: str) -> None:
    assert faults_of(_source(f"type: python, function: '{function}'")) == (
        "token_sources.s.function: must be package.module:function",
    )


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
        f"{_CREDENTIALS}, fields: {{a: SECRET}}",
        f"{_EXCHANGE}, actor_token: SECRET",
        _EXCHANGE.replace("subject_token: c", "subject_token: SECRET"),
        "type: static, token: SECRET",
        "type: command, argv: [x], env: {A: SECRET}",
        "type: python, function: 'a:b', arguments: {a: [{b: SECRET}]}",
    ],
    ids=[
        "json",
        "form",
        "query",
        "headers",
        "client_secret",
        "fields",
        "actor",
        "subject",
        "static",
        "env",
        "arguments",
    ],
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
        (f"{_HTTP_JSON}, method: HEAD", "method", "must be 'GET', 'POST', 'PUT', 'PATCH' or 'DELETE'"),
        (f"{_HTTP_JSON}, json: [a]", "json", "must be a mapping"),
        (f"{_HTTP_JSON}, json_body: {{}}", "json_body", "is not a known key"),
        (f"{_HTTP_JSON}, form: {{a: 5}}", "form.a", "must be text (a number in quotes) or {file: path}"),
        (f"{_HTTP_JSON}, default_lifetime_s: 0", "default_lifetime_s", "must be above 0"),
        (f"{_HTTP_JSON}, ca_bundle: missing", "ca_bundle", "must be the path of an existing file"),
        (f"{_HTTP_JSON}, ca_bundle: 5", "ca_bundle", "must be the path of a file, as text"),
        (f"{_CREDENTIALS}, scope: ''", "scope", "must not be empty"),
        (f"{_CREDENTIALS}, ca_bundle: .", "ca_bundle", "must be the path of an existing file"),
        (
            f"{_CREDENTIALS}, auth_method: client_secret_jwt",
            "auth_method",
            "must be 'client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth' or 'none'",
        ),
        (f"{_CREDENTIALS}, token_url: 'http://iam.example.com'", "token_url", _NO_TLS),
        (f"{_CREDENTIALS}, audience: 5", "audience", "must be a list"),
        (f"{_CREDENTIALS}, audience: ['']", "audience[0]", "must not be empty"),
        (f"{_CREDENTIALS}, resource: ''", "resource[0]", "must not be empty"),
        (f"{_CREDENTIALS}, resource: ['x:y', api]", "resource[1]", _NO_URI),
        (f"{_EXCHANGE}, resource: 'https://api.example.com#x'", "resource[0]", _NO_URI),
        (f"{_CREDENTIALS}, fields: {{a: 5}}", "fields.a", "must be text (a number in quotes) or {file: path}"),
        (f"{_CREDENTIALS}, issuer: x", "issuer", "must be 'many_active' or 'single_active'"),
        (f"{_CREDENTIALS}, subject_token: x", "subject_token", "is not a known key"),
        (f"{_EXCHANGE}, subject_token_type: ''", "subject_token_type", "must not be empty"),
        (f"{_EXCHANGE}, actor_token: ''", "actor_token", "must not be empty"),
        ("type: token_exchange", "subject_token", "is required"),
        ("type: command", "argv", "is required"),
        ("type: command, argv: []", "argv", "must not be empty"),
        ("type: command, argv: ls -l", "argv", "must be a list"),
        ("type: command, argv: [ls, 5]", "argv[1]", "must be text (a number, date, yes or no in quotes)"),
        ('type: command, argv: [ls, "a\\0b"]', "argv[1]", "must not hold NUL"),
        ("type: command, argv: [x], env: {A: 5}", "env.A", "must be text (a number in quotes) or {file: path}"),
        ('type: command, argv: [x], env: {A: "a\\0b"}', "env.A", "must not hold NUL"),
        ("type: command, argv: [x], env: {A=B: x}", 'env["A=B"]', "must be the name of a variable: without = and NUL"),
        (
            'type: command, argv: [x], env: {"A\\0": x}',
            'env["A\\u0000"]',
            "must be the name of a variable: without = and NUL",
        ),
        ("type: command, argv: [x], token_pointer: a", "token_pointer", _NO_POINTER),
        ("type: file, path: .", "path", "must be the path of a file in an existing folder"),
        ("type: python, function: 'a:b', arguments: [x]", "arguments", "must be a mapping"),
        (f"{_CREDENTIALS}, static: 1", "static", "is not a known key"),
        ("type: client_credentials", "client_id", "is required"),
        ("type: static, token: a, ca_bundle: b", "ca_bundle", "is not a known key"),
        ("type: oauth", "type", _ONE_OF),
        ("type: [a]", "type", _ONE_OF),
        ("url: a", "type", _ONE_OF),
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
