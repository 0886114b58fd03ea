"""From a section of a source that asks an endpoint of any kind to its request."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import load
from proxy.token_sources import build_source
from proxy.tokens.sources.base import Source
from tests.support.token_issuer import Issuer

_UPSTREAM = {"name": "llm", "base_url": "https://llm.example.com/v1"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Source]:
    """The source of an http_json section; the config file's folder is tmp_path."""

    def build(**section: Any) -> Source:
        sources = {"corp": {"type": "http_json", **section}}
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({"token_sources": sources, "upstreams": [_UPSTREAM]}, sort_keys=False))
        return build_source(load(file, {}).token_sources["corp"])

    return build


@pytest.mark.parametrize(
    ("query_of_url", "query", "target"),
    [
        ("", {}, "/token"),
        ("?tenant=a", {}, "/token?tenant=a"),
        ("", {"v": "2 3"}, "/token?v=2+3"),
        ("?tenant=a&flag", {"v": "2", "w": "&"}, "/token?tenant=a&flag=&v=2&w=%26"),
        ("?tenant=a&v=1&a=%2F", {"v": "2"}, "/token?tenant=a&v=2&a=%2F"),
    ],
    ids=["none", "of-the-url", "of-the-section", "both", "same-name"],
)
def test_query_is_added_to_that_of_the_url(
    issuer: Issuer, build, query_of_url: str, query: dict[str, str], target: str
) -> None:
    build(url=issuer.url + query_of_url, query=query).fetch()
    assert issuer.received[0].target == target


def test_rotated_secret_of_the_query_counts_at_the_next_fetch(issuer: Issuer, build, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("old\n")
    source = build(url=issuer.url + "?a=b", query={"key": {"file": "secret"}})
    source.fetch()
    (tmp_path / "secret").write_text("new\n")
    source.fetch()
    assert [received.target for received in issuer.received] == ["/token?a=b&key=old", "/token?a=b&key=new"]
