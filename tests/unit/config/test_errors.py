import pytest

from config.errors import ConfigError, describe


@pytest.mark.parametrize(
    ("location", "line"),
    [
        ((), "the file: is bad"),
        (("upstreams", 0, "timeouts", "connect_s"), "upstreams[0].timeouts.connect_s: is bad"),
        (("models", "gpt-4.1"), 'models["gpt-4.1"]: is bad'),
        (("headers", "a\nb"), 'headers["a\\nb"]: is bad'),
        (("headers", ""), 'headers[""]: is bad'),
    ],
    ids=["top", "keys and indices", "key with a dot", "key with a line break", "empty key"],
)
def test_fault_is_one_line_with_its_path(location: tuple[str | int, ...], line: str) -> None:
    assert describe(location, "is bad") == line


def test_error_text_has_one_line_for_each_fault() -> None:
    error = ConfigError(["a: is bad", "b: is bad"])
    assert error.faults == ("a: is bad", "b: is bad")
    assert str(error) == "a: is bad\nb: is bad"
