from collections.abc import Iterator
from io import StringIO

import pytest
from gunicorn.config import Config

from proxy.observability.gunicorn_logger import GunicornLogger
from proxy.observability.logging import set_up


@pytest.fixture
def gunicorn_logger(log: StringIO) -> Iterator[GunicornLogger]:
    set_up(stream=log)
    config = Config()
    config.set("accesslog", "-")
    logger = GunicornLogger(config)
    yield logger
    logger.error_log.handlers = []
    logger.error_log.propagate = logger.access_log.propagate = True


def test_line_of_gunicorn_comes_once_and_in_our_shape(gunicorn_logger: GunicornLogger, log: StringIO) -> None:
    gunicorn_logger.info("Listening at: %s", "http://127.0.0.1:5002")
    assert log.getvalue().endswith("INFO     Listening at: http://127.0.0.1:5002\n")
    assert log.getvalue().count("\n") == 1


def test_credential_in_a_line_of_gunicorn_is_taken_out(gunicorn_logger: GunicornLogger, log: StringIO) -> None:
    gunicorn_logger.warning("Invalid request from ip=%s: %s", "::1", "Invalid HTTP Header: 'AUTHORIZATION s3cret-mark'")
    assert "s3cret-mark" not in log.getvalue()
    assert "Invalid request from ip=::1" in log.getvalue()


def test_gunicorn_writes_no_access_lines(
    gunicorn_logger: GunicornLogger, log: StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    gunicorn_logger.access(None, None, {}, None)
    gunicorn_logger.access_log.info("GET /?key=s3cret-mark")
    assert "s3cret-mark" not in log.getvalue() + "".join(capsys.readouterr())
