"""PromQL read against what a page of metrics has: names, labels, and labels' values where the config has no say."""

import re
from collections.abc import Mapping
from typing import Any

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

# By the name of a sample: its labels, and the values that they have on the page.
Known = Mapping[str, Mapping[str, set[str]]]

TARGET_LABELS = frozenset({"job", "instance"})  # which Prometheus puts to all that it scrapes
_FIXED_LABELS = ("end", "kind", "result", "le", "route")  # their values are ours, not the config's or an upstream's
_OF_COUNTERS = ("rate", "increase", "irate")


def read_page(text: str) -> Known:
    known: dict[str, dict[str, set[str]]] = {"up": {}}  # Prometheus' own, for each target
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = known.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return known


def labels_of(expression: str, known: Known) -> frozenset[str]:
    """The labels that the result of an expression has. An AssertionError where it asks for what is not there."""
    labels = _labels(promql_parser.parse(expression), known)
    assert labels is not None, f"a number, no series: {expression}"
    return labels


def _labels(expr: Any, known: Known) -> frozenset[str] | None:
    """None: a number, which has no labels."""
    match expr:
        case promql_parser.NumberLiteral():
            return None
        case promql_parser.ParenExpr():
            return _labels(expr.expr, known)
        case promql_parser.MatrixSelector():
            return _labels(expr.vector_selector, known)
        case promql_parser.VectorSelector():
            return _of_selector(expr, known)
        case promql_parser.AggregateExpr():
            return _of_aggregate(expr, known)
        case promql_parser.Call():
            return _of_call(expr, known)
        case promql_parser.BinaryExpr():
            return _of_binary(expr, known)
    raise AssertionError(f"not read by this test: {type(expr).__name__}")


def _of_selector(expr: Any, known: Known) -> frozenset[str]:
    assert expr.name in known, f"no such metric: {expr.name}"
    labels = known[expr.name]
    for matcher in expr.matchers.matchers:
        assert matcher.name in labels.keys() | TARGET_LABELS, f"{expr.name} has no label {matcher.name}"
        if matcher.name in _FIXED_LABELS:
            unknown = set(matcher.value.split("|")) - labels[matcher.name]
            assert not unknown, f"{expr.name} never has {matcher.name}={unknown}"
    return labels.keys() | TARGET_LABELS


def _of_aggregate(expr: Any, known: Known) -> frozenset[str]:
    inner = _labels(expr.expr, known) or frozenset()
    if expr.modifier is None:
        return frozenset()
    kept = frozenset(expr.modifier.labels)
    assert "By" in str(expr.modifier.type), "not read by this test: without"
    assert kept <= inner, f"no label {kept - inner} to keep"
    return kept


def _of_call(expr: Any, known: Known) -> frozenset[str]:
    [labels] = [found for found in (_labels(argument, known) for argument in expr.args) if found is not None]
    if expr.func.name in _OF_COUNTERS:
        name = expr.args[0].vector_selector.name
        assert re.search(r"_(total|bucket|count|sum)$", name), f"{expr.func.name} of {name}, which is no counter"
    if expr.func.name == "histogram_quantile":
        assert "le" in labels, "histogram_quantile without le"
        labels -= {"le"}
    return labels


def _of_binary(expr: Any, known: Known) -> frozenset[str] | None:
    left, right = _labels(expr.lhs, known), _labels(expr.rhs, known)
    if left is None or right is None:
        return left if right is None else right
    assert expr.modifier is None or expr.modifier.matching is None, "not read by this test: on, ignoring"
    assert left == right, f"series never match: {sorted(left)} and {sorted(right)}"
    return left
