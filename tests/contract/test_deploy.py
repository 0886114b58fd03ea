"""What deploy/ asks of Prometheus is what this proxy tells: each query is read against a real page of metrics."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from tests.support.load import BODY
from tests.support.promql import Known, labels_of, read_page
from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.sandbox_client import SandboxClient

GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus-alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
COLUMNS = 24
# The last one of Grafana's model with panels in a list, which every release since 8 reads.
SCHEMA_VERSION = 42
# What alerts' texts may hold of Prometheus' templates; a fault in one shows when the alert fires, and not before.
TEMPLATE = re.compile(r"\{\{ \$(?:labels\.\w+|value)(?: \| humanize(?:Percentage|Duration)?)? \}\}")

rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
panels = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """What the page has after requests of each kind that leaves a series of its own."""
    with SandboxClient.start() as sandbox:
        proxy = ProxyProcess.start(sandbox.config(), tmp_path_factory.mktemp("deploy"))
        try:
            with httpx.Client(base_url=proxy.url, trust_env=False, timeout=30) as caller:
                for members in ({}, {"stream": True}):
                    caller.post("/v1/chat/completions", json={**BODY, **members}).raise_for_status()
                for path in ("/readyz", "/v1/models"):
                    caller.get(path).raise_for_status()
                yield read_page(caller.get("/metrics").raise_for_status().text)
        finally:
            proxy.stop()


# The alerts


@rules
def test_alert_asks_for_what_is_there_and_speaks_of_labels_that_it_has(rule: dict[str, Any], known: Known) -> None:
    labels = labels_of(rule["expr"], known)
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels
        assert not re.search(r"[{}$]", TEMPLATE.sub("", text))


@rules
def test_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"LlmProxy[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert all(text.endswith(".") and "\n" not in text for text in rule["annotations"].values())
    assert "for" not in rule or promql_parser.parse_duration(rule["for"])


def test_alerts_are_groups_of_rules_of_different_names() -> None:
    assert all(group.keys() == {"name", "rules"} for group in GROUPS)
    for names in ([group["name"] for group in GROUPS], [rule["alert"] for rule in RULES]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_alert_for_a_target_that_is_gone_names_the_job_of_the_docs() -> None:
    [job] = re.findall(r"- job_name: (\S+)", (ROOT / "docs/operations.md").read_text())
    assert [rule["expr"] for rule in RULES if "up{" in rule["expr"]] == [f'up{{job="{job}"}} == 0']


# The dashboard


@panels
def test_panel_asks_for_what_is_there_and_names_its_lines_by_labels_that_they_have(
    panel: dict[str, Any], known: Known
) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        labels = labels_of(target["expr"].replace("$__rate_interval", "5m"), known)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"__rate_interval", *VARIABLES}
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@panels
def test_panel_says_what_it_answers(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("stat", "timeseries")
    assert panel["title"]
    assert panel["description"].endswith(".") or panel["description"].endswith("?")
    assert panel["fieldConfig"]["defaults"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


def test_panels_lie_side_by_side_on_the_grid() -> None:
    cells: Counter[tuple[int, int]] = Counter()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        cells.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert [cell for cell, count in cells.items() if count > 1] == []
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_dashboard_is_one_that_grafana_imports() -> None:
    assert DASHBOARD["schemaVersion"] == SCHEMA_VERSION
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert "id" not in DASHBOARD  # Grafana's own to give
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"


def test_jobs_to_choose_from_are_those_of_a_metric_that_is_there(known: Known) -> None:
    found = re.fullmatch(r"label_values\((\w+), job\)", VARIABLES["job"]["query"]["query"])
    assert found
    assert found[1] in known
    assert VARIABLES["job"]["definition"] == VARIABLES["job"]["query"]["query"]


# The docs


def test_docs_name_every_metric_with_its_labels(known: Known) -> None:
    rows = re.findall(r"^\| `(llm_proxy_\w+)` \| ([^|]*)\|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    shown: dict[str, set[str]] = {}
    for name, labels in known.items():
        if name.startswith("llm_proxy_"):
            family = re.sub(r"_seconds_(bucket|count|sum)$", "_seconds", name)
            shown.setdefault(family, set()).update(labels.keys() - {"le"})
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == shown


# The reading itself


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("llm_proxy_no_such_thing", "no such metric"),
        ('llm_proxy_in_flight{route="a"}', "has no label route"),
        ('llm_proxy_streams_total{end="lost"}', "never has end"),
        ('rate(llm_proxy_overhead_seconds_bucket{le="0.3"}[5m])', "never has le"),
        ("sum by (source) (llm_proxy_in_flight)", "no label"),
        ("rate(llm_proxy_in_flight[5m])", "no counter"),
        ("histogram_quantile(0.9, sum(rate(llm_proxy_request_seconds_bucket[5m])))", "without le"),
        ("llm_proxy_in_flight and llm_proxy_token_state", "never match"),
    ],
)
def test_query_for_what_is_not_there_is_found(expression: str, expected: str, known: Known) -> None:
    with pytest.raises(AssertionError, match=expected):
        labels_of(expression, known)


@pytest.mark.parametrize("expression", ["sum(", "rate(llm_proxy_requests_total)", "a b"])
def test_query_that_is_no_promql_is_found(expression: str, known: Known) -> None:
    with pytest.raises(ValueError, match=r"."):
        labels_of(expression, known)
