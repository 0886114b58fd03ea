"""What is kept for each path. The bytes of requests: tests/contract/test_upstream_requests.py."""

from proxy.upstreams.request_builder import KEPT_MOST, RequestBuilder, UpstreamSettings


def test_paths_are_kept_until_they_are_too_many() -> None:
    builder = RequestBuilder(UpstreamSettings("http://upstream.example/v1"))
    urls = [builder.url(f"/{number}") for number in range(KEPT_MOST)]
    assert all(builder.url(f"/{number}") is url for number, url in enumerate(urls))
    assert builder.url("/new") == "http://upstream.example/v1/new"
    assert len(builder._urls) == 1
    assert builder.url("/0") == urls[0]


def test_heads_are_kept_until_they_are_too_many() -> None:
    builder = RequestBuilder(UpstreamSettings("http://upstream.example"))
    for number in range(KEPT_MOST + 1):
        head = builder.head("POST", f"/{number}", b"", [], None)
        assert head.startswith(b"POST /%d HTTP/1.1\r\nHost: upstream.example\r\n" % number)
    assert len(builder._heads) == 1
