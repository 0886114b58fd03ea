import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ModelNotFound
from proxy.routing import ModelMap, is_allowed, matches, resolve


@pytest.mark.parametrize(
    ("models", "model", "expected"),
    [
        pytest.param({"gpt-4o": "deploy"}, "gpt-4o", "deploy", id="alias"),
        pytest.param({"gpt-4o": "gpt-4o"}, "gpt-4o", "gpt-4o", id="same name"),
        pytest.param({"gpt-4o": "deploy"}, "deploy", None, id="the upstream's name is no caller's name"),
        pytest.param({"gpt-4o": "deploy"}, "GPT-4o", None, id="case counts"),
        pytest.param({"gpt-4o": "deploy"}, "gpt-4o-mini", None, id="longer name"),
        pytest.param({"gpt-4o": "deploy"}, "", None, id="empty name"),
        pytest.param({"*": "*"}, "any/thing:7b", "any/thing:7b", id="all as they are"),
        pytest.param({"*": "one"}, "anything", "one", id="all as one"),
        pytest.param({"gpt-*": "*"}, "gpt-5", "gpt-5", id="some as they are"),
        pytest.param({"gpt-*": "one"}, "gpt-5", "one", id="some as one"),
        pytest.param({"gpt-*": "*"}, "gpt-", "gpt-", id="star for nothing"),
        pytest.param({"gpt-*": "*"}, "my-gpt-5", None, id="no match in the middle"),
        pytest.param({"*-mini": "*"}, "gpt-mini", "gpt-mini", id="star first"),
        pytest.param({"a*c": "*"}, "abbc", "abbc", id="star inside"),
        pytest.param({"*": "*", "gpt-4o": "deploy"}, "gpt-4o", "deploy", id="exact before wildcard"),
        pytest.param({"gpt-*": "first", "*": "second"}, "gpt-5", "first", id="first wildcard"),
        pytest.param({"*": "first", "gpt-*": "second"}, "gpt-5", "first", id="first wildcard in the file's order"),
        pytest.param({"*": "*"}, "*", "*", id="a caller who sends a star"),
        pytest.param({"gpt-*": "*"}, "gpt-*", "gpt-*", id="a caller who sends a pattern, as it is"),
        pytest.param({"gpt-*": "one"}, "gpt-*", "one", id="a caller who sends a pattern"),
        pytest.param({}, "m", None, id="no models"),
    ],
)
def test_model_gets_the_upstreams_name(models: dict[str, str], model: str, expected: str | None) -> None:
    assert ModelMap("llm", models).resolve(model) == expected


def test_aliases_are_the_names_without_a_wildcard() -> None:
    assert ModelMap("llm", {"b": "x", "*": "*", "a-*": "*", "a": "a"}).aliases() == ["b", "a"]


def test_first_upstream_that_serves_the_model_is_asked() -> None:
    maps = [ModelMap("one", {"a": "x"}), ModelMap("two", {"b": "y"}), ModelMap("three", {"b": "z"})]
    assert resolve(maps, "b") == ("two", "y")


def test_wildcard_of_an_earlier_upstream_goes_before_a_later_name() -> None:
    assert resolve([ModelMap("one", {"*": "*"}), ModelMap("two", {"b": "y"})], "b") == ("one", "b")


@pytest.mark.parametrize("maps", [[], [ModelMap("one", {"a": "a"})]], ids=["no upstream", "other models"])
def test_model_that_nobody_serves_is_not_found(maps: list[ModelMap]) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve(maps, "b")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert "b" not in caught.value.message.split()


@pytest.mark.parametrize(
    ("patterns", "model", "expected"),
    [
        (["*"], "any", True),
        (["gpt-4o"], "gpt-4o", True),
        (["gpt-4o"], "gpt-4o-mini", False),
        (["gpt-*"], "gpt-5", True),
        (["gpt-*"], "o3", False),
        (["a", "gpt-*"], "gpt-5", True),
        ([], "any", False),
    ],
)
def test_key_may_use_the_models_of_its_list(patterns: list[str], model: str, expected: bool) -> None:
    assert is_allowed(patterns, model) is expected


@pytest.mark.parametrize(
    ("pattern", "model", "expected"),
    [
        ("a?c", "a?c", True),
        ("a?c", "abc", False),
        ("a[bc]", "a[bc]", True),
        ("a[bc]", "ab", False),
        ("[[]", "[", False),
        ("a[!b]*", "a[!b]x", True),
        ("a.c", "abc", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a*", "a\nb", True),
        ("a", "a\n", False),
        ("**", "ab", True),
    ],
)
def test_only_the_star_stands_for_something_else(pattern: str, model: str, expected: bool) -> None:
    assert matches(pattern, model) is expected


@given(st.text())
def test_every_name_without_a_star_matches_itself(name: str) -> None:
    plain = name.replace("*", "")
    assert matches(plain, plain)
    assert not matches(plain, plain + "x")
