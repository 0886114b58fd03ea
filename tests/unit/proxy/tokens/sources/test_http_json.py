import itertools
import json

import pytest

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.http_json import HttpJsonSource
from proxy.tokens.sources.reply import ReplyShape


def test_configured_request_goes_out_and_its_reply_is_read_by_pointers(issuer, make_endpoint) -> None:
    issuer.answer({"data": {"token": "token-1", "ttl": "120"}})
    parts = {"json": {"appId": "a", "appSecret": "b"}, "headers": {"X-Tenant": "t"}, "params": {"v": "2"}}
    shape = ReplyShape(token="/data/token", expires_in="/data/ttl")
    assert HttpJsonSource(make_endpoint(issuer.url), lambda: parts, shape).fetch() == Grant("token-1", 120.0)
    (received,) = issuer.received
    assert (received.method, received.target, received.fields["x-tenant"]) == ("POST", "/token?v=2", "t")
    assert json.loads(received.body) == {"appId": "a", "appSecret": "b"}


def test_form_goes_out_as_a_form(issuer, make_endpoint) -> None:
    HttpJsonSource(make_endpoint(issuer.url), lambda: {"data": {"a": "b c&"}}, ReplyShape()).fetch()
    assert issuer.received[0].form == {"a": "b c&"}
    assert issuer.received[0].fields["content-type"] == "application/x-www-form-urlencoded"


def test_get_has_no_body(issuer, make_endpoint) -> None:
    HttpJsonSource(make_endpoint(issuer.url, "GET"), dict, ReplyShape()).fetch()
    assert (issuer.received[0].method, issuer.received[0].body) == ("GET", b"")


def test_request_is_built_anew_for_each_fetch(issuer, make_endpoint) -> None:
    numbers = itertools.count()
    source = HttpJsonSource(make_endpoint(issuer.url), lambda: {"json": {"n": next(numbers)}}, ReplyShape())
    source.fetch()
    source.fetch()
    assert [json.loads(received.body) for received in issuer.received] == [{"n": 0}, {"n": 1}]


def test_absolute_expiry_counts_from_the_issuers_own_date(issuer, make_endpoint) -> None:
    issuer.answer({"t": "token-1", "until": "2025-11-14T10:05:00Z"}, Date="Fri, 14 Nov 2025 10:00:00 GMT")
    shape = ReplyShape(token="/t", expires_at="/until")
    assert HttpJsonSource(make_endpoint(issuer.url), dict, shape).fetch() == Grant("token-1", 300.0)


def test_secret_that_cannot_be_read_is_a_failed_fetch_without_a_call(issuer, make_endpoint) -> None:
    def build_request() -> dict[str, object]:
        raise TokenFetchError("no such file", refused=True)

    with pytest.raises(TokenFetchError, match="no such file"):
        HttpJsonSource(make_endpoint(issuer.url), build_request, ReplyShape()).fetch()
    assert issuer.connections == 0
