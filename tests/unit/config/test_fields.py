"""The same fields in each place of the config that gives a request some of its own."""

from collections.abc import Callable

import pytest

from config import SecretRef

_HTTP_JSON = "token_sources: {{s: {{type: http_json, url: 'https://iam.example.com/token', headers: {}}}}}"
_UPSTREAM = "upstreams: [{{name: u, base_url: 'https://llm.example.com/v1', headers: {}}}]"
_RESERVED = "must not be host, content-length, transfer-encoding or connection"
_NO_VALUE = "must hold ASCII characters only, and no line break or other control character"
_NO_NAME = "must be a field name of RFC 9110, such as X-App-Id"


@pytest.fixture(params=["http_json", "upstream"])
def fields_of(request: pytest.FixtureRequest, settings_of) -> Callable[[str], dict[str, SecretRef]]:
    """The fields of a YAML mapping."""
    if request.param == "upstream":
        return lambda mapping: settings_of(_UPSTREAM.format(mapping)).upstreams[0].headers
    return lambda mapping: settings_of(_HTTP_JSON.format(mapping)).token_sources["s"].headers


@pytest.fixture(params=["http_json", "upstream"])
def fault_of(request: pytest.FixtureRequest, faults_of) -> Callable[[str], str]:
    """The one fault of a YAML mapping, from its fields on."""
    template, place = (_UPSTREAM, "upstreams[0]") if request.param == "upstream" else (_HTTP_JSON, "token_sources.s")

    def fault_of(mapping: str) -> str:
        (fault,) = faults_of(template.format(mapping))
        assert fault.startswith(f"{place}.headers")
        return fault.removeprefix(f"{place}.headers")

    return fault_of


@pytest.mark.parametrize("name", ["", "X A", "X:A", "Ä", "X(A)", "X\\nA"])
def test_name_that_is_no_token_is_refused(fault_of, name: str) -> None:
    assert fault_of(f'{{"{name}": x}}').endswith(f": {_NO_NAME}")


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION"])
def test_field_that_the_http_client_sets_is_refused(fault_of, name: str) -> None:
    assert fault_of(f"{{{name}: x}}") == f".{name}: {_RESERVED}"


def test_field_that_is_named_twice_is_refused(fault_of) -> None:
    assert fault_of("{X-A: a, x-a: b}") == ": must not name a field twice (case does not count)"


@pytest.mark.parametrize("value", ["a\\nb", "a\\rb", "\\0", "\\x1f", "\\x7f", "é"])
def test_value_that_is_not_plain_ascii_is_refused(fault_of, value: str) -> None:
    assert fault_of(f'{{X-A: "{value}"}}') == f".X-A: {_NO_VALUE}"


@pytest.mark.parametrize("value", [" a", "a ", "\\ta", "a\\t", " "])
def test_value_with_a_blank_at_an_end_is_refused(fault_of, value: str) -> None:
    assert fault_of(f'{{X-A: "{value}"}}') == ".X-A: must have no blank or tab at its ends"


def test_value_in_a_file_is_judged_too(fault_of, tmp_path) -> None:
    (tmp_path / "secret").write_text("a \n")
    assert fault_of("{X-A: {file: secret}}") == ".X-A: must have no blank or tab at its ends"


def test_value_is_a_secret_that_may_hold_a_tab_or_be_empty(fields_of, mark: str) -> None:
    fields = fields_of(f'{{X-A: "{mark}\\tb c", X-B: "", x-c: "!"}}')
    assert {name: value.reveal() for name, value in fields.items()} == {"X-A": f"{mark}\tb c", "X-B": "", "x-c": "!"}
    assert mark not in repr(fields)
