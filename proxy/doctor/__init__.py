"""What an operator asks when a token does not work: where it stands, and at which step it fails and why.

Only `cli` calls it. `token_check` and `upstream_check` walk the steps and write one line for each into a `report`;
nothing here prints a secret, a token, or a value that another server sent.
"""

from config import Settings
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.report import Report, take_over_log
from proxy.doctor.token_check import check_source
from proxy.doctor.token_states import print_token_states
from proxy.doctor.upstream_check import check_upstream

__all__ = ["Report", "examine", "print_token_states", "take_over_log"]


def examine(
    settings: Settings, report: Report, *, model: str | None = None, embedding_model: str | None = None
) -> None:
    """Try every token source, and every upstream with its token. The models are named as callers name them."""
    foreign = ForeignText(settings)
    if settings.sandbox is not None:
        report.heading(f"a sandbox on {settings.sandbox.bind} is part of this config: it runs while the proxy does")
    tokens = {
        name: check_source(report, name, section, settings.token_store, foreign)
        for name, section in settings.token_sources.items()
    }
    for section in settings.upstreams:
        token = tokens.get(section.token_source or "")
        check_upstream(report, section, token, foreign, model=model, embedding_model=embedding_model)
    count = report.counts
    report.heading(f"{count['FAIL']} FAIL, {count['warn']} warn, {count['ok']} ok, {count['skip']} skip")
