"""What the proxy's metrics say after a run, beside the access lines: both must have counted the same requests."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.soaking.access_lines import AccessLog
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import wait_for

TOTALS = "/metrics and the access lines have counted the same requests and streams"


@dataclass(frozen=True)
class Totals:
    """The samples of one scrape that matter here, all workers together."""

    statuses: Mapping[str, int]  # llm_proxy_requests_total
    ends: Mapping[str, int]  # llm_proxy_streams_total
    fetches: Mapping[str, int]  # llm_proxy_token_fetches_total, by result
    in_flight: int  # the scrape among them
    page: bytes


def final_totals(proxy: ProxyProcess) -> Totals:
    """As scrape(), once its own line is in the log, so that whoever reads that next has them all."""
    request_id = uuid4().hex
    totals = scrape(proxy.url, request_id)
    wait_for(lambda: f" request_id={request_id} " in proxy.log())
    return totals


def scrape(url: str, request_id: str = "scrape") -> Totals:
    fields = {"Connection": "close", "X-Request-Id": request_id}
    page = httpx.get(f"{url}/metrics", headers=fields, trust_env=False, timeout=10).raise_for_status()
    statuses: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    fetches: Counter[str] = Counter()
    in_flight = 0
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            value = int(sample.value)
            if sample.name == "llm_proxy_requests_total":
                statuses[sample.labels["status"]] += value
            elif sample.name == "llm_proxy_streams_total":
                ends[sample.labels["end"]] += value
            elif sample.name == "llm_proxy_token_fetches_total":
                fetches[sample.labels["result"]] += value
            elif sample.name == "llm_proxy_in_flight":
                in_flight += value
    return Totals(statuses, ends, fetches, in_flight, page.content)


def differences(totals: Totals, log: AccessLog, *, kills: int) -> list[str]:
    """Where the counts differ by more than the one request that a killed worker may have written down, not counted.

    `log` has been read up to now, so it has the line of the scrape itself, which the scrape has not.
    """
    lines = Counter(log.statuses)
    lines["200"] -= 1
    found = []
    for what, counted, written in (("status", totals.statuses, lines), ("stream end", totals.ends, log.ends)):
        for label in sorted({*counted, *written}):
            if abs(counted.get(label, 0) - written[label]) > kills:
                found.append(f"{what} {label}: {counted.get(label, 0)} counted, {written[label]} lines")
    return found
