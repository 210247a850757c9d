"""The page on observability shows alerts on what is measured, and a line of the log as it is written."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
import yaml

from app.gateway.access import AccessLine
from app.gateway.families import FAMILIES, Kind
from routing.types import Reason
from tests.docs.pages import PAGES, blocks

PAGE = "docs/observability.md"
_NAME = re.compile(r"\b(?:kingmaker|process)_[a-z_]+\b")


def _rules() -> dict[str, str]:
    """The expressions of the page's alerts, by name."""
    (groups,) = [yaml.safe_load(block)["groups"] for block in blocks(PAGE, "yaml")]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


@pytest.mark.parametrize(("alert", "expression"), _rules().items(), ids=list(_rules()))
def test_an_alert_asks_for_what_is_measured(alert: str, expression: str) -> None:
    """Metrics that there are, by labels that they have, with values that these can take; and only counters
    have a rate.
    """
    names = _NAME.findall(expression)
    assert names, alert
    assert set(names) <= set(FAMILIES)
    labels = {"worker", *(label for name in names for label in FAMILIES[name].labels)}
    asked = re.findall(r"\b(?:by|on) \(([a-z, ]+)\)", expression)
    assert {label for part in asked for label in part.split(", ")} <= labels
    known = {
        "code": {"2xx", "3xx", "4xx", "5xx"},
        "reason": {reason.value for reason in Reason},
        "result": {"new", "kept", "away"},
    }
    for label, value in re.findall(r'([a-z]+)="([^"]+)"', expression):
        assert label in labels
        assert value in known[label]
    for name in re.findall(r"(?:rate|increase)\(([a-z_]+)", expression):
        assert FAMILIES[name].kind is Kind.COUNTER


def test_every_metric_that_a_page_names_is_there() -> None:
    """On any page but the changelog, which also names what there was."""
    named = {name for page, text in PAGES.items() if page != "CHANGELOG.md" for name in _NAME.findall(text)}
    assert named <= set(FAMILIES)


def test_the_line_of_the_access_log_that_is_shown_is_one() -> None:
    """Every field, in order."""
    (shown,) = blocks(PAGE, "json")
    line = json.loads(shown.replace("\n", ""))
    assert list(line) == list(AccessLine.__struct_fields__)
    msgspec.convert(line, AccessLine)
