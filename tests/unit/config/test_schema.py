import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

_HASH = "ab" * 32
_NO_SECRET = "must name a readable file that holds the secret as UTF-8 text"
_NO_FILE = "must be the path of an existing file"
_NO_URL = "must be a URL such as https://llm.example.com/v1"
_NO_REDIS_URL = (
    "must be a URL such as rediss://:password@redis.example.com:6379/0, odd characters in the password "
    "percent-encoded (/ is %2F)"
)


def _key(members: str = "") -> str:
    return f"client_keys: [{{label: a, sha256: '{_HASH}', {members}}}]"


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("server: {workers: 0}", "server.workers", "must be above 0"),
        ("server: {workers: -1}", "server.workers", "must be above 0"),
        ("server: {workers: true}", "server.workers", "must be a number"),
        ("server: {workers: 1.5}", "server.workers", "must be a whole number"),
        ("server: {workers: null}", "server.workers", "must be a whole number"),
        ("server: {threads: 0}", "server.threads", "must be above 0"),
        ("server: {max_body_bytes: 0}", "server.max_body_bytes", "must be above 0"),
        ("server: {max_concurrent_requests: 0}", "server.max_concurrent_requests", "must be above 0"),
        ("server: {drain_s: 0}", "server.drain_s", "must be above 0"),
        ("server: {drain_s: 'inf'}", "server.drain_s", "must be a finite number"),
        ("server: {drain_s: 'nan'}", "server.drain_s", "must be above 0"),
        ("server: {drain_s: x}", "server.drain_s", "must be a number"),
        ("server: {worker_class: sync}", "server.worker_class", "must be 'gevent' or 'gthread'"),
        ("server: {url_prefixes: []}", "server.url_prefixes", "must not be empty"),
        ("server: {url_prefixes: x}", "server.url_prefixes", "must be a list"),
        ("server: {url_prefixes: [/a, /a]}", "server.url_prefixes", "must not name a prefix twice, nor with /v1"),
        ("server: {port: 1}", "server.port", "is not a known key"),
        ("server: 5", "server", "must be a mapping"),
        ("srver: {}", "srver", "is not a known key"),
        ("token_store: {type: nowhere}", "token_store.type", "must be 'file', 'memory' or 'redis'"),
        ("token_store: {type: redis, url: ''}", "token_store.url", "must not be empty"),
        ("token_store: {type: redis, url: {file: missing}}", "token_store.url", _NO_SECRET),
        ("token_store: {type: redis, url: 'redis://r', ca_bundle: missing}", "token_store.ca_bundle", _NO_FILE),
        ("token_store: {type: redis, url: 'redis://r', password: x}", "token_store.password", "is not a known key"),
        ("logging: {format: xml}", "logging.format", "must be 'text' or 'json'"),
        ("logging: {bodies: true}", "logging.bodies", "must be false: prompts and answers are never logged"),
        ("logging: {bodies: maybe}", "logging.bodies", "must be true or false"),
        ("sandbox: {token_lifetime_s: 0}", "sandbox.token_lifetime_s", "must be above 0"),
        ("tracing: {}", "tracing.otlp_endpoint", "is required"),
        ("tracing: {otlp_endpoint: collector}", "tracing.otlp_endpoint", _NO_URL),
        ("tracing: {otlp_endpoint: 'http://c:4318', headers: {}}", "tracing.headers", "is not a known key"),
        (_key("requests_per_minute: 0"), "client_keys[0].requests_per_minute", "must be above 0"),
        (_key("max_concurrent: 0"), "client_keys[0].max_concurrent", "must be above 0"),
        (_key("models: '*'"), "client_keys[0].models", "must be a list"),
        (_key("models: ['']"), "client_keys[0].models[0]", "must not be empty"),
        (_key("admin: 5"), "client_keys[0].admin", "must be true or false"),
        ("client_keys: [{}]", "client_keys[0].label", "is required"),
    ],
)
def test_value_outside_its_limits_is_a_fault_that_says_what_is_expected(
    faults_of, text: str, path: str, expected: str
) -> None:
    assert f"{path}: {expected}" in faults_of(text)


def test_smallest_numbers_within_the_limits_are_taken(settings_of) -> None:
    numbers = "workers: 1, threads: 1, max_body_bytes: 1, max_concurrent_requests: 1, drain_s: 0.001"
    settings = settings_of(
        f"server: {{{numbers}, worker_class: gthread}}\n" + _key("requests_per_minute: 1, max_concurrent: 1")
    )
    assert (settings.server.workers, settings.server.drain_s, settings.server.worker_class) == (
        1,
        0.001,
        "gthread",
    )
    assert settings.client_keys[0].requests_per_minute == settings.client_keys[0].max_concurrent == 1


@pytest.mark.parametrize("prefix", ["", "/a", "/a/b-c_d.e~f/1", "/.well-known", "/..."])
def test_url_prefix_is_empty_or_a_plain_path(settings_of, prefix: str) -> None:
    assert settings_of(f"server: {{url_prefixes: ['{prefix}']}}").server.url_prefixes == (prefix,)


@pytest.mark.parametrize(
    "prefix", ["/", "a", "/a/", "//a", "/a//b", "/a b", "/a%20", "/é", "/a?b", "/./a", "/a/..", "/<id>"]
)
def test_url_prefix_of_another_form_is_refused(faults_of, prefix: str) -> None:
    (fault,) = faults_of(f"server: {{url_prefixes: ['{prefix}']}}")
    assert fault.startswith("server.url_prefixes[0]: must be empty or a path")


@pytest.mark.parametrize(
    ("bind", "host", "port", "loopback"),
    [("0.0.0.0:80", "0.0.0.0", 80, False), ("[::1]:5002", "::1", 5002, True)],
)
def test_server_tells_the_parts_of_its_address(settings_of, bind: str, host: str, port: int, loopback: bool) -> None:
    server = settings_of(f"server: {{bind: '{bind}'}}\n" + _key()).server
    assert (server.host, server.port, server.is_loopback) == (host, port, loopback)


def test_client_key_has_the_defaults_of_the_contract(settings_of) -> None:
    (key,) = settings_of(f"client_keys: [{{label: a, sha256: '{_HASH.upper()}'}}]").client_keys
    assert (key.label, key.sha256, key.models) == ("a", _HASH, ("*",))
    assert (key.expires_at, key.requests_per_minute, key.max_concurrent, key.admin) == (
        None,
        None,
        None,
        False,
    )


@pytest.mark.parametrize("label", ["a", "A.b_c-1", "x" * 64])
def test_label_within_its_limits_is_taken(settings_of, label: str) -> None:
    assert settings_of(f"client_keys: [{{label: {label}, sha256: '{_HASH}'}}]").client_keys[0].label == label


@pytest.mark.parametrize("label", ["", "x" * 65, "a b", "a/b", "é", "a\\n"])
def test_label_outside_its_limits_is_refused(faults_of, label: str) -> None:
    (fault,) = faults_of(f'client_keys: [{{label: "{label}", sha256: "{_HASH}"}}]')
    assert fault == "client_keys[0].label: must be 1 to 64 letters, digits, dots, underscores or hyphens"


@pytest.mark.parametrize("digest", ["a" * 63, "a" * 65, "g" * 64, "", f"{_HASH}\\n"])
def test_hash_of_another_form_is_refused(faults_of, digest: str) -> None:
    assert faults_of(f'client_keys: [{{label: a, sha256: "{digest}"}}]') == (
        "client_keys[0].sha256: must be 64 hex digits",
    )


@pytest.mark.parametrize(
    ("text", "offset"),
    [("2027-01-31T00:00:00Z", 0), ("'2027-01-31T00:00:00Z'", 0), ("2027-01-31 08:00:00+08:00", 8)],
)
def test_expiry_is_an_instant_with_a_zone(settings_of, text: str, offset: int) -> None:
    (key,) = settings_of(_key(f"expires_at: {text}")).client_keys
    assert key.expires_at == datetime(2027, 1, 31, tzinfo=UTC)
    assert key.expires_at.utcoffset() == timedelta(hours=offset)


@pytest.mark.parametrize("text", ["2027-01-31T00:00:00", "2027-01-31"])
def test_expiry_without_a_zone_is_told_to_add_one(faults_of, text: str) -> None:
    (fault,) = faults_of(_key(f"expires_at: {text}"))
    assert fault.startswith("client_keys[0].expires_at: must have a time zone: add one, such as Z")


@pytest.mark.parametrize("text", ["2027", "1800000000", "'1800000000'", "2027-13-01T00:00:00Z", "soon", "true", "''"])
def test_expiry_that_is_no_date_and_time_is_refused(faults_of, text: str) -> None:
    assert faults_of(_key(f"expires_at: {text}")) == (
        "client_keys[0].expires_at: must be a date and time such as 2027-01-31T00:00:00Z",
    )


@pytest.mark.parametrize("level", ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"])
def test_log_levels_from_trace_to_error_are_taken(settings_of, level: str) -> None:
    assert settings_of(f"logging: {{level: {level}}}").logging.level == level


def test_sandbox_stands_on_loopback_with_tokens_of_300_s(settings_of) -> None:
    sandbox = settings_of("sandbox: {}").sandbox
    assert (sandbox.bind, sandbox.host, sandbox.port, sandbox.token_lifetime_s) == (
        "127.0.0.1:5003",
        "127.0.0.1",
        5003,
        300,
    )


@pytest.mark.parametrize("bind", ["0.0.0.0:5003", "10.0.0.1:5003", "[::]:5003"])
def test_sandbox_beyond_loopback_is_refused(faults_of, bind: str) -> None:
    assert faults_of(f"sandbox: {{bind: '{bind}'}}") == (
        "sandbox.bind: must be an address on loopback, such as 127.0.0.1:5003",
    )


def test_token_store_is_a_file_of_this_host_where_nothing_is_said(settings_of) -> None:
    store = settings_of("").token_store
    assert (store.type, store.url, store.ca_bundle) == ("file", None, None)


@pytest.mark.parametrize("url", ["redis://:{}@r:6379/0", "rediss://:{}@r", "unix://:{}@/run/redis.sock"])
def test_url_of_redis_is_a_secret_as_it_holds_the_password(settings_of, tmp_path: Path, mark: str, url: str) -> None:
    (tmp_path / "url").write_text(url.format(mark) + "\n")
    settings = settings_of("token_store: {type: redis, url: {file: url}}")
    assert settings.token_store.url.reveal() == url.format(mark)
    assert mark not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize("url", ["redis.example.com:6379", "s3cret-mark", "redis://:s3cret-mark/@r", " redis://r"])
def test_text_that_is_no_url_of_redis_is_refused(faults_of, tmp_path: Path, url: str) -> None:
    (tmp_path / "url").write_text(url)
    for given in (f"'{url}'", "{file: url}", "'${URL}'"):
        assert faults_of(f"token_store: {{type: redis, url: {given}}}", {"URL": url}) == (
            f"token_store.url: {_NO_REDIS_URL}",
        )


@pytest.mark.usefixtures("client_pem")
@pytest.mark.parametrize("given", ["'{}'", "{{file: url}}", "'${{URL}}'"], ids=["text", "file", "environment"])
def test_bundle_of_the_token_store_is_for_tls_alone(settings_of, faults_of, tmp_path: Path, given: str) -> None:
    for url in ("redis://r", "unix:///r", "rediss://r"):
        (tmp_path / "url").write_text(url)
        text = f"token_store: {{type: redis, url: {given.format(url)}, ca_bundle: client.pem}}"
        if url == "rediss://r":
            assert settings_of(text, {"URL": url}).token_store.ca_bundle == tmp_path / "client.pem"
        else:
            assert faults_of(text, {"URL": url}) == ("token_store.ca_bundle: must be left out but for a rediss:// url",)


@pytest.mark.usefixtures("client_pem")
def test_url_of_redis_that_is_missing_is_the_one_fault_beside_a_bundle(faults_of) -> None:
    assert faults_of("token_store: {type: redis, ca_bundle: client.pem}") == (
        "token_store.url: is required for type redis",
    )
    assert faults_of("token_store: {type: redis, url: '${URL}', ca_bundle: client.pem}") == (
        "token_store.url: needs the environment variable URL, which is not set",
    )


def test_tracing_is_off_where_nothing_is_said_and_needs_its_endpoint_alone(settings_of) -> None:
    assert settings_of("").tracing is None
    given = settings_of("tracing: {otlp_endpoint: 'http://collector:4318/'}").tracing
    assert given.otlp_endpoint == "http://collector:4318"


def test_tracing_without_its_packages_is_refused_at_load(faults_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])  # where packages are looked for
    fault = "tracing.otlp_endpoint: needs the packages of requirements-otel.txt installed"
    assert faults_of("tracing: {otlp_endpoint: 'http://collector:4318'}") == (fault,)


def test_settings_are_frozen(settings_of) -> None:
    settings = settings_of("server: {workers: 1}")
    with pytest.raises(ValueError, match="frozen"):
        settings.server.workers = 2
