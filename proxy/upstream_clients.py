"""An upstream's clients, as its section of the config wants them: time-outs, TLS, proxy, fields, token.

`app` makes each upstream's clients here once; the doctor asks the same way, so that it finds what they would.
"""

from collections.abc import Sequence

import httpx2

from config.addresses import check_http_proxy
from config.upstreams import Upstream as UpstreamSection
from proxy.adapters.base import Adapter
from proxy.adapters.find import find_adapter, import_anew
from proxy.tokens.holder import TokenHolder
from proxy.upstreams.adapted_client import AdaptedClient, AsyncAdaptedClient
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.client import AsyncUpstreamClient, UpstreamClient
from proxy.upstreams.embedding_batches import EmbeddingBatches
from proxy.upstreams.event_loop import EventLoopThread
from proxy.upstreams.lazy_transport import LazyTransport
from proxy.upstreams.request_builder import UpstreamSettings
from proxy.upstreams.tls import ClientTls
from proxy.upstreams.transport import SocketTransport
from proxy.upstreams.tunnel import HttpProxy

# Of connections for split embeddings: how many there are is decided by max_concurrent_requests and concurrency.
_NO_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


def build_client(section: UpstreamSection, tokens: TokenHolder | None, *, idle_most: int) -> UpstreamClient:
    """`idle_most`: connections that it keeps for later requests."""
    settings = upstream_settings(section)
    transport = SocketTransport(
        httpx2.URL(section.base_url),
        tls=upstream_tls(section),
        timeouts=settings.timeouts,
        http_proxy=upstream_http_proxy(section),
        idle_most=idle_most,
    )
    adapter = upstream_adapter(section)
    if adapter is None:
        return UpstreamClient(settings, tokens, transport)
    return AdaptedClient(settings, tokens, transport, adapter)


def build_batches(
    section: UpstreamSection, tokens: TokenHolder | None, event_loop: EventLoopThread
) -> EmbeddingBatches | None:
    """None where the upstream takes inputs of any number."""
    max_batch = section.embeddings.max_batch
    if max_batch is None:
        return None
    transport = LazyTransport(lambda: _async_transport(section))
    settings, adapter = upstream_settings(section), upstream_adapter(section)
    if adapter is None:
        client = AsyncUpstreamClient(settings, tokens, transport)
    else:
        client = AsyncAdaptedClient(settings, tokens, transport, adapter)
    return EmbeddingBatches(
        client,
        tokens,
        event_loop,
        max_batch=max_batch,
        concurrency=section.embeddings.concurrency,
        total_s=section.timeouts.total_s,
    )


def adapter_faults(sections: Sequence[UpstreamSection]) -> tuple[str, ...]:
    """A line for each adapter that cannot be used. The modules of good ones are imported anew."""
    named = {
        f"upstreams[{at}].adapter": (section.adapter.name, section.adapter.folder)
        for at, section in enumerate(sections)
        if section.adapter is not None
    }
    return import_anew(named)


def upstream_adapter(section: UpstreamSection) -> Adapter | None:
    """None where the upstream speaks OpenAI's API. Raises AdapterError."""
    return None if section.adapter is None else find_adapter(section.adapter.name, section.adapter.folder)


def upstream_settings(section: UpstreamSection) -> UpstreamSettings:
    """What the clients of an upstream, and the doctor, ask it with."""
    limits = section.timeouts
    return UpstreamSettings(
        base_url=section.base_url,
        token_header=section.token_header,
        token_prefix=section.token_prefix,
        fields={name: value.reveal() for name, value in section.headers.items()},
        renew_on=frozenset(section.renew_on),
        timeouts=Timeouts(limits.connect_s, limits.first_byte_s, limits.idle_s, limits.total_s),
    )


def upstream_http_proxy(section: UpstreamSection) -> HttpProxy | None:
    """Tells the proxy as it is given now, judged as at load; None where the way is direct."""
    url = section.http_proxy
    return None if url is None else lambda: httpx2.Proxy(check_http_proxy(url.reveal()))


def upstream_tls(section: UpstreamSection) -> ClientTls | None:
    """None for plain HTTP."""
    if not section.base_url.lower().startswith("https:"):
        return None
    return ClientTls(section.ca_bundle, section.client_cert)


def _async_transport(section: UpstreamSection) -> httpx2.AsyncHTTPTransport:
    tls = upstream_tls(section)
    verify = True if tls is None else tls.context()
    http_proxy = upstream_http_proxy(section)
    proxy = None if http_proxy is None else http_proxy()
    return httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=_NO_LIMITS, proxy=proxy)
