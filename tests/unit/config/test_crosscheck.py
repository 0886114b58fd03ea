import pytest

_HASH = "ab" * 32


@pytest.mark.parametrize("bind", ["127.0.0.1:5002", "127.8.8.8:80", "[::1]:5002", "localhost:5002"])
def test_empty_client_keys_are_fine_on_loopback(settings_of, bind: str) -> None:
    settings = settings_of(f"server: {{bind: '{bind}'}}\nclient_keys: []")
    assert settings.server.is_loopback


@pytest.mark.parametrize("bind", ["0.0.0.0:5002", "[::]:5002", "10.0.0.1:5002", "proxy.example.com:5002"])
@pytest.mark.parametrize("keys", ["", "client_keys: []", "client_keys:"], ids=["absent", "empty", "null"])
def test_open_address_needs_a_client_key(faults_of, settings_of, bind: str, keys: str) -> None:
    server = f"server: {{bind: '{bind}'}}\n"
    assert faults_of(server + keys) == (
        "client_keys: must hold at least one key, as server.bind is not a loopback address",
    )
    settings = settings_of(f"{server}client_keys: [{{label: a, sha256: '{_HASH}'}}]")
    assert not settings.server.is_loopback


def test_unknown_token_source_lists_the_known_ones(faults_of, settings_of) -> None:
    text = """
token_sources: {a: {type: static, token: x}, b: {type: static, token: x}}
upstreams: [{name: u, base_url: 'https://u', token_source: SOURCE}]
"""
    assert faults_of(text.replace("SOURCE", "c")) == (
        "upstreams[0].token_source: must name one of token_sources: null, a, b",
    )
    assert settings_of(text.replace("SOURCE", "b")).upstreams[0].token_source == "b"
    assert settings_of(text.replace("SOURCE", "null")).upstreams[0].token_source is None


@pytest.mark.parametrize(
    ("second", "choices"),
    [
        ("b", None),
        ("null", None),
        ("a", "null, b, c"),
        ("d", "null, b, c"),
        ("'*'", "null, b, c"),
        ("''", "null, b, c"),
    ],
)
def test_fail_over_is_to_another_upstream(faults_of, settings_of, second: str, choices: str | None) -> None:
    others = "{name: b, base_url: 'https://b', fail_over_to: a}, {name: c, base_url: 'https://c', fail_over_to: b}"
    text = f"upstreams: [{{name: a, base_url: 'https://a', fail_over_to: {second}}}, {others}]"
    if choices is None:
        assert settings_of(text).upstreams[1].fail_over_to == "a"
    else:
        assert faults_of(text) == (f"upstreams[0].fail_over_to: must name another one of upstreams: {choices}",)


def test_fail_over_of_a_wrong_type_is_one_fault(faults_of) -> None:
    text = "upstreams: [{name: a, base_url: 'https://a', fail_over_to: [b]}, {name: b, base_url: 'https://b'}]"
    assert faults_of(text) == ("upstreams[0].fail_over_to: must be text (a number, date, yes or no in quotes)",)


def test_repeated_names_are_faults_that_show_the_first(faults_of) -> None:
    faults = faults_of(
        f"""
client_keys:
  - {{label: a, sha256: '{_HASH}'}}
  - {{label: a, sha256: '{"cd" * 32}'}}
  - {{label: b, sha256: '{_HASH.upper()}'}}
upstreams: [{{name: u, base_url: 'https://u'}}, {{name: v, base_url: 'https://u'}}, {{name: u, base_url: 'https://u'}}]
"""
    )
    assert faults == (
        "upstreams[2].name: must not repeat that of upstreams[0]",
        "client_keys[1].label: must not repeat that of client_keys[0]",
        "client_keys[2].sha256: must not repeat that of client_keys[0]",
    )


@pytest.mark.parametrize(
    ("header", "headers", "name"),
    [
        ("", "{authorization: x}", "authorization"),
        ("token_header: X-Token,", "{A: b, x-token: x}", "x-token"),
        ("token_header: X-Token,", "{Authorization: x}", None),
    ],
    ids=["default", "own", "free"],
)
def test_headers_leave_the_token_header_free(faults_of, settings_of, header: str, headers: str, name) -> None:
    text = f"upstreams: [{{name: u, base_url: 'https://u', {header} headers: {headers}}}]"
    if name is None:
        assert settings_of(text)
    else:
        expected = f"upstreams[0].headers.{name}: must not be the token_header: it carries the token"
        assert faults_of(text) == (expected,)


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ("json: {a: b}", None),
        ("form: {a: b}", None),
        ("json: {a: b}, form: {}", None),
        ("json: {a: b}, form: {a: b}", "form: must be left out beside json: a request has one body"),
        ("expires_in_pointer: /a", None),
        ("expires_at_pointer: /a", None),
        ("expires_at_pointer: /a, expires_in_pointer: null", None),
        (
            "expires_at_pointer: /a, expires_in_pointer: /b",
            "expires_in_pointer: must be left out beside expires_at_pointer",
        ),
    ],
)
def test_http_json_takes_one_body_and_one_expiry(faults_of, settings_of, members: str, fault) -> None:
    text = f"token_sources: {{s: {{type: http_json, url: 'https://u', {members}}}}}"
    if fault is None:
        assert settings_of(text)
    else:
        assert faults_of(text) == (f"token_sources.s.{fault}",)


def test_command_needs_a_token_pointer_for_an_expiry_pointer(faults_of, settings_of) -> None:
    source = "token_sources: {{s: {{type: command, argv: [x], {}}}}}"
    for pointer in ("expires_at_pointer", "expires_in_pointer"):
        assert faults_of(source.format(f"{pointer}: /a")) == (
            f"token_sources.s.{pointer}: needs token_pointer beside it",
        )
        assert settings_of(source.format(f"{pointer}: /a, token_pointer: /b"))


_CLIENT = "token_url: 'https://u', client_id: a"
_EXCHANGE = f"type: token_exchange, subject_token: t, {_CLIENT}"


@pytest.mark.usefixtures("client_pem")
@pytest.mark.parametrize("grant", [f"type: client_credentials, {_CLIENT}", _EXCHANGE], ids=["credentials", "exchange"])
@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ("", "client_secret: is required for auth_method client_secret_basic"),
        ("client_secret: null", "client_secret: is required for auth_method client_secret_basic"),
        ("client_secret: x", None),
        ("auth_method: client_secret_post", "client_secret: is required for auth_method client_secret_post"),
        ("auth_method: client_secret_post, client_secret: x", None),
        ("auth_method: client_secret_post, client_secret: x, client_cert: client.pem", None),
        ("auth_method: private_key_jwt", "private_key: is required for auth_method private_key_jwt"),
        ("auth_method: tls_client_auth", "client_cert: is required for auth_method tls_client_auth"),
        ("auth_method: tls_client_auth, client_cert: client.pem", None),
        ("client_secret: x, signing_alg: RS256", "signing_alg: must be left out with auth_method client_secret_basic"),
        (
            "client_secret: x, assertion_audience: x",
            "assertion_audience: must be left out with auth_method client_secret_basic",
        ),
    ],
)
def test_each_way_to_prove_who_we_are_takes_its_own_means_alone(
    faults_of, settings_of, grant: str, members: str, fault: str | None
) -> None:
    text = f"token_sources: {{s: {{{grant}, {members}}}}}"
    if fault is None:
        assert settings_of(text)
    else:
        assert faults_of(text) == (f"token_sources.s.{fault}",)


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ("", None),
        ("client_secret: null", None),
        ("client_secret: x", "client_secret: must be left out with auth_method none"),
        ("key_id: x", "key_id: must be left out with auth_method none"),
    ],
)
def test_token_may_be_exchanged_without_a_proof(faults_of, settings_of, members: str, fault: str | None) -> None:
    text = f"token_sources: {{s: {{{_EXCHANGE}, auth_method: none, {members}}}}}"
    if fault is None:
        assert settings_of(text)
    else:
        assert faults_of(text) == (f"token_sources.s.{fault}",)


@pytest.mark.parametrize("members", ["", "client_secret: x"])
def test_credentials_of_a_client_are_no_grant_without_a_proof(faults_of, members: str) -> None:
    source = f"type: client_credentials, {_CLIENT}, auth_method: none, {members}"
    assert faults_of(f"token_sources: {{s: {{{source}}}}}") == (
        "token_sources.s.auth_method: must not be none: the grant is for clients that prove who they are "
        "(RFC 6749 §4.4)",
    )


def test_type_of_an_actors_token_needs_the_token(faults_of, settings_of) -> None:
    source = f"token_sources: {{s: {{{_EXCHANGE}, auth_method: none, actor_token_type: x, MORE}}}}"
    assert settings_of(source.replace("MORE", "actor_token: y"))
    for more in ("", "actor_token: null"):
        assert faults_of(source.replace("MORE", more)) == (
            "token_sources.s.actor_token_type: needs actor_token beside it",
        )


def test_method_of_no_known_name_is_one_fault(faults_of) -> None:
    (fault,) = faults_of(f"token_sources: {{s: {{type: client_credentials, {_CLIENT}, auth_method: [x]}}}}")
    assert fault.startswith("token_sources.s.auth_method: must be 'client_secret_basic', ")


def test_single_active_issuer_needs_a_shared_store(faults_of, settings_of) -> None:
    source = "token_sources: {s: {type: http_json, url: 'https://u', issuer: single_active}}\n"
    assert settings_of(source)
    assert settings_of(source + "token_store: {type: redis, url: 'redis://r'}")
    assert faults_of(source + "token_store: {type: memory}") == (
        "token_sources.s.issuer: must not be single_active with token_store type memory",
    )


@pytest.mark.usefixtures("client_pem")
@pytest.mark.parametrize(
    ("store", "fault"),
    [
        ("{type: redis, url: 'redis://r'}", None),
        ("{type: redis, url: 'rediss://r', ca_bundle: client.pem}", None),
        ("{type: redis}", "url: is required for type redis"),
        ("{type: redis, url: null}", "url: is required for type redis"),
        ("{url: 'redis://r'}", "url: must be left out but for type redis"),
        ("{type: memory, url: 'redis://r'}", "url: must be left out but for type redis"),
        ("{type: file, ca_bundle: client.pem}", "ca_bundle: must be left out but for type redis"),
    ],
)
def test_url_is_there_for_redis_alone(faults_of, settings_of, store: str, fault: str | None) -> None:
    if fault is None:
        assert settings_of(f"token_store: {store}")
    else:
        assert faults_of(f"token_store: {store}") == (f"token_store.{fault}",)


@pytest.mark.parametrize(
    "value", ["5", "text", "[5, null, [x]]", "{a: 5}", "[{name: [x], label: 5, headers: 5}]", "null"]
)
@pytest.mark.parametrize(
    "section", ["server", "client_keys", "token_sources", "upstreams", "logging", "sandbox", "token_store"]
)
def test_wrong_type_anywhere_is_a_fault_and_no_crash(faults_of, section: str, value: str) -> None:
    assert faults_of(f"{section}: {value}\nunknown: 1")
