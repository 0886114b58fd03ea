import math

import pytest

from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.static import StaticSource


def test_static_token_never_expires() -> None:
    grant = StaticSource(lambda: "sk-static").fetch()
    assert (grant.access_token, grant.lifetime_s) == ("sk-static", math.inf)


def test_static_token_is_read_anew_for_each_fetch() -> None:
    tokens = iter(["old", "new"])
    source = StaticSource(lambda: next(tokens))
    assert [source.fetch().access_token for _ in range(2)] == ["old", "new"]


@pytest.mark.parametrize("value", ["", "s3cret-mark\n", "s3cret-mark\r\nX: y", "s3cret-marké", "s3cret-mark two"])
def test_static_token_that_no_header_may_hold_is_a_failed_fetch(mark: str, value: str) -> None:
    with pytest.raises(TokenFetchError) as caught:
        StaticSource(lambda: value).fetch()
    assert mark not in str(caught.value)


def test_static_source_can_be_closed_at_any_time() -> None:
    source = StaticSource(lambda: "sk-static")
    source.close()
    source.close()
    assert source.fetch().access_token == "sk-static"
