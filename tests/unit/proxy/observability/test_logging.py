import json
import logging
import re
from io import StringIO

import pytest
from loguru import logger

from proxy.observability.logging import InterceptHandler, redact, set_up

MARK = "s3cret-mark"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"Authorization: Bearer {MARK}", "Authorization ***", id="field"),
        pytest.param(f"authorization: basic {MARK}", "authorization ***", id="lower case"),
        pytest.param(f"Proxy-Authorization: Bearer {MARK}", "Proxy-Authorization ***", id="proxy"),
        pytest.param(f"API-Key: {MARK}", "API-Key ***", id="api-key"),
        pytest.param(f"x-api-key={MARK}", "x-api-key ***", id="x-api-key"),
        pytest.param(f"Cookie: a={MARK}; b=c", "Cookie ***", id="cookie"),
        pytest.param(f"Set-Cookie: a={MARK}; Path=/", "Set-Cookie ***", id="set-cookie"),
        pytest.param(f"{{'authorization': 'Bearer {MARK}'}}", "{'authorization ***", id="dict"),
        pytest.param(f"sent Bearer {MARK} twice", "sent Bearer *** twice", id="in a sentence"),
        pytest.param(f'"bearer  {MARK}", "x"', '"bearer ***", "x"', id="quoted"),
        pytest.param(f"BASIC {MARK}", "BASIC ***", id="basic"),
        pytest.param(f"Authorization {MARK}", "Authorization ***", id="field without its colon"),
        pytest.param("model sk-Ab_9-efgh012345678", "model ***", id="client key"),
        pytest.param("gpt-sk-abcdefgh01234567:x", "gpt-***:x", id="client key inside of a name"),
        pytest.param("of eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "of ***", id="JWT"),
        pytest.param(f"Authorization: {MARK}\nnext line", "Authorization ***\nnext line", id="up to the line's end"),
    ],
)
def test_credentials_are_taken_out(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("request status=200 outcome=done", "The Authorization header is missing.", "a bearer", "basically done"),
        *("", "ü", "gpt-4o-240806-deploy-gs", "sk-short", "risk-abcdefgh01234567", "0af7651916cd43dd8448eb211c80319c"),
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_text_line_has_time_level_and_message(log: StringIO) -> None:
    set_up(stream=log)
    logger.info("hello {}", 5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d INFO     hello 5\n", log.getvalue())


def test_json_line_is_one_object_with_what_was_bound(log: StringIO) -> None:
    set_up(stream=log, line_format="json")
    logger.bind(status=200, model='a"\nb').warning("hello\nyou")
    [line] = log.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").startswith("20")
    assert entry == {"level": "WARNING", "message": "hello\nyou", "status": 200, "model": 'a"\nb'}


@pytest.mark.parametrize(("level", "shown"), [("DEBUG", 3), ("INFO", 2), ("WARNING", 1)])
def test_lines_below_the_level_are_left_out(log: StringIO, level: str, shown: int) -> None:
    set_up(stream=log, level=level)
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    assert len(log.getvalue().splitlines()) == shown


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_credential_is_in_no_line(log: StringIO, line_format: str) -> None:
    set_up(stream=log, line_format=line_format)  # type: ignore[arg-type]
    logger.info("refused: Bearer {}", MARK)
    logging.getLogger("library").warning("Authorization: %s", MARK)
    logger.bind(cause=f"Bearer {MARK}").info("bound")
    assert MARK not in log.getvalue()
    assert len(log.getvalue().splitlines()) == 3


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_credential_is_in_no_traceback(log: StringIO, line_format: str) -> None:
    set_up(stream=log, line_format=line_format)  # type: ignore[arg-type]
    try:
        raise ValueError(f"cannot read Bearer {MARK}, sorry")
    except ValueError:
        logger.exception("failed")
    assert "ValueError: cannot read Bearer ***, sorry" in log.getvalue()
    assert MARK not in log.getvalue()


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_traceback_shows_no_values(log: StringIO, line_format: str) -> None:
    set_up(stream=log, line_format=line_format)  # type: ignore[arg-type]
    secret = MARK
    try:
        secret[1 / 0]  # type: ignore[index]
    except ZeroDivisionError:
        logger.exception("failed")
    assert "ZeroDivisionError" in log.getvalue()
    assert MARK not in log.getvalue()


def test_lines_of_libraries_come_in_the_same_shape(log: StringIO) -> None:
    set_up(stream=log, line_format="json")
    logging.getLogger("some.library").error("%s of %d {braces}", "one", 2)
    entry = json.loads(log.getvalue())
    assert (entry["level"], entry["message"]) == ("ERROR", "one of 2 {braces}")


def test_traceback_of_a_library_comes_along(log: StringIO) -> None:
    set_up(stream=log, line_format="json")
    try:
        raise KeyError("k")
    except KeyError:
        logging.getLogger("some.library").exception("failed")
    assert "KeyError: 'k'" in json.loads(log.getvalue())["exception"]


def test_level_that_loguru_does_not_know_is_kept_as_a_number(log: StringIO) -> None:
    set_up(stream=log)
    logging.getLogger("library").log(35, "between")
    assert "Level 35 between" in log.getvalue()


@pytest.mark.parametrize("name", ["openai", "httpx", "httpx2", "httpcore", "urllib3", "asyncio"])
def test_libraries_that_speak_of_requests_are_quiet(log: StringIO, name: str) -> None:
    set_up(stream=log, level="DEBUG")
    logging.getLogger(name).info("Request options: ...")
    assert log.getvalue() == ""


def test_set_up_twice_writes_each_line_once(log: StringIO) -> None:
    set_up(stream=log)
    set_up(stream=log)
    logger.info("a")
    logging.getLogger("library").info("b")
    assert len(log.getvalue().splitlines()) == 2


class FullDisk(StringIO):
    def write(self, text: str) -> int:
        raise OSError("no space left")


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_line_that_cannot_be_written_raises_nothing(
    log: StringIO, line_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(stream=FullDisk(), line_format=line_format)  # type: ignore[arg-type]
    logger.info("a")
    assert "no space left" in capsys.readouterr().err


def test_handler_alone_hands_over_to_loguru(log: StringIO) -> None:
    set_up(stream=log)
    record = logging.LogRecord("name", logging.INFO, "", 1, "%s", ("hello",), None)
    InterceptHandler().emit(record)
    assert log.getvalue().endswith("INFO     hello\n")
