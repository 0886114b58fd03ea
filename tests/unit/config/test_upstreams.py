from pathlib import Path

import pytest

_NO_HTTP_PROXY = (
    "must be a URL such as http://user:password@proxy.example.com:3128, odd characters in user and password "
    "percent-encoded (@ is %40)"
)


def _upstream(members: str = "") -> str:
    return f"upstreams: [{{name: u, base_url: 'https://llm.example.com/v1/', {members}}}]"


def test_upstream_has_the_defaults_of_the_contract(settings_of) -> None:
    (upstream,) = settings_of(_upstream()).upstreams
    assert (upstream.name, upstream.base_url) == ("u", "https://llm.example.com/v1")
    assert (upstream.token_source, upstream.token_header, upstream.token_prefix) == (
        None,
        "Authorization",
        "Bearer",
    )
    assert (upstream.models, upstream.headers, upstream.strip_fields, upstream.set_fields) == (
        {"*": "*"},
        {},
        (),
        {},
    )
    assert (upstream.embeddings.max_batch, upstream.embeddings.concurrency) == (None, 4)
    assert (upstream.renew_on, upstream.keepalive_comment_s) == ({401}, 4)
    timeouts = upstream.timeouts
    assert (timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s) == (
        5,
        300,
        120,
        1800,
    )
    assert (upstream.http_proxy, upstream.ca_bundle, upstream.client_cert) == (None, None, None)
    assert upstream.fail_over_to is None


@pytest.mark.parametrize(
    "members",
    [
        "models: {gpt-4o: 'gpt 4o', 'gpt-*': '*', '*': fallback}",
        "renew_on: [401, 403]",
        "renew_on: [403]",
        "renew_on: []",
        "token_prefix: ''",
        "token_prefix: 'Token token='",
        "keepalive_comment_s: null",
        "keepalive_comment_s: 0.1",
        "embeddings: {max_batch: 1, concurrency: 1}",
        "timeouts: {connect_s: 0.001, first_byte_s: 0.001, idle_s: 0.001, total_s: 0.001}",
        "set_fields: {temperature: 0.5, stop: [a, null], meta: {user: x}}",
        "strip_fields: [drop_params]",
        "headers: {X-App-Id: a}",
        "fail_over_to: null",
        "http_proxy: null",
        "http_proxy: 'http://proxy.example.com:3128'",
    ],
)
def test_value_within_its_limits_is_taken(settings_of, members: str) -> None:
    assert settings_of(_upstream(members))


@pytest.mark.parametrize(
    ("members", "path", "expected"),
    [
        ("adapter: openai", "adapter", "must be dashscope, plain_sse or package.module:Class"),
        ("adapter: 'company.llm'", "adapter", "must be dashscope, plain_sse or package.module:Class"),
        ("adapter: 'company/llm:Gateway'", "adapter", "must be dashscope, plain_sse or package.module:Class"),
        ("adapter: {name: dashscope}", "adapter", "must be dashscope, plain_sse or package.module:Class"),
        ("models: {}", "models", "must not be empty"),
        ("models: {a: ''}", "models.a", "must not be empty"),
        ("models: {a: 5}", "models.a", "must be text (a number, date, yes or no in quotes)"),
        ("models: {a: '*'}", "models", "must give a name without a wildcard its own name upstream, not *"),
        ("models: {'a*': 'b*'}", "models", "must have whole names or a bare * as values"),
        ("renew_on: [402]", "renew_on[0]", "must be 401 or 403"),
        ("renew_on: [401, 500]", "renew_on[1]", "must be 401 or 403"),
        ("renew_on: 401", "renew_on", "must be a list"),
        ("token_header: 'a b'", "token_header", "must be a field name of RFC 9110, such as X-App-Id"),
        (
            "token_header: Host",
            "token_header",
            "must not be host, content-length, transfer-encoding or connection",
        ),
        (
            "token_prefix: ' a'",
            "token_prefix",
            "must be printable ASCII without spaces at its ends, or empty",
        ),
        (
            'token_prefix: "a\\n"',
            "token_prefix",
            "must be printable ASCII without spaces at its ends, or empty",
        ),
        ("keepalive_comment_s: 0", "keepalive_comment_s", "must be above 0"),
        ("embeddings: {max_batch: 0}", "embeddings.max_batch", "must be above 0"),
        ("embeddings: {concurrency: 0}", "embeddings.concurrency", "must be above 0"),
        ("timeouts: {connect_s: 0}", "timeouts.connect_s", "must be above 0"),
        ("timeouts: {first_byte_s: -1}", "timeouts.first_byte_s", "must be above 0"),
        ("timeouts: {idle_s: .inf}", "timeouts.idle_s", "must be a finite number"),
        ("timeouts: {total_s: null}", "timeouts.total_s", "must be a number"),
        ("set_fields: {model: a}", "set_fields.model", "must not be model or stream"),
        ("set_fields: {stream: true}", "set_fields.stream", "must not be model or stream"),
        ("strip_fields: a", "strip_fields", "must be a list"),
        ("http_proxy: ''", "http_proxy", "must not be empty"),
        ("http_proxy: true", "http_proxy", "must be text (a number in quotes) or {file: path}"),
        ("http_proxy: 'proxy.example.com:3128'", "http_proxy", _NO_HTTP_PROXY),
        (
            "http_proxy: 'https://proxy.example.com:3128'",
            "http_proxy",
            "must start with http://: a proxy that is itself reached by TLS or by SOCKS is not supported",
        ),
        (
            "http_proxy: {file: missing}",
            "http_proxy",
            "must name a readable file that holds the secret as UTF-8 text",
        ),
        ("ca_bundle: missing.pem", "ca_bundle", "must be the path of an existing file"),
        ("client_cert: missing.pem", "client_cert", "must be the path of an existing file"),
        ("token_source: 5", "token_source", "must be text (a number, date, yes or no in quotes)"),
    ],
)
def test_value_outside_its_limits_is_a_fault_that_says_what_is_expected(
    faults_of, members: str, path: str, expected: str
) -> None:
    assert faults_of(_upstream(members)) == (f"upstreams[0].{path}: {expected}",)


@pytest.mark.parametrize("name", ["dashscope", "plain_sse", "llm:Gateway", "company.llm_2:Gateway"])
def test_adapter_is_looked_for_beside_the_config(settings_of, tmp_path: Path, name: str) -> None:
    adapter = settings_of(_upstream(f"adapter: '{name}'")).upstreams[0].adapter
    assert (adapter.name, adapter.folder) == (name, tmp_path)
    assert settings_of(_upstream("adapter: null")).upstreams[0].adapter is None


def test_url_of_a_proxy_is_a_secret_as_it_holds_the_password(settings_of, tmp_path: Path, mark: str) -> None:
    url = f"http://user:{mark}@proxy.example.com:3128"
    (tmp_path / "url").write_text(url + "\n")
    for given in (f"'{url}'", "{file: url}", "'${URL}'"):
        settings = settings_of(_upstream(f"http_proxy: {given}"), {"URL": url})
        assert settings.upstreams[0].http_proxy.reveal() == url
        assert mark not in repr(settings) + str(settings.model_dump())


def test_text_that_is_no_url_of_a_proxy_is_refused_wherever_it_stands(faults_of, tmp_path: Path, mark: str) -> None:
    url = f"http://user:{mark}/@proxy.example.com:3128"
    (tmp_path / "url").write_text(url)
    for given in (f"'{url}'", "{file: url}", "'${URL}'"):
        faults = faults_of(_upstream(f"http_proxy: {given}"), {"URL": url})
        assert faults == (f"upstreams[0].http_proxy: {_NO_HTTP_PROXY}",)


def test_at_least_one_upstream_is_needed(faults_of) -> None:
    assert faults_of("upstreams: []") == ("upstreams: must not be empty",)
