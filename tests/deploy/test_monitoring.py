"""The Grafana dashboard and the Prometheus alerts use metrics that the service exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = [rule["expr"] for rule in RULES]


@pytest.fixture(scope="module")
def scraped(client: FlaskClient, sorted_letters: dict[str, Any]) -> dict[str, set[str]]:
    """The labels of each sample in a scrape, after a trace was computed and read."""
    for _ in range(2):
        client.get(f"/v1/traces/{sorted_letters['id']}")
    families = text_string_to_metric_families(client.get("/metrics").text)
    labels: dict[str, set[str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_a_query_uses_existing_metrics_and_labels(query: str, scraped: dict[str, set[str]]) -> None:
    names = re.findall(r"cutaway_\w+", re.sub(r'"[^"]*"', "", query))
    assert names
    assert set(names) <= set(scraped)
    created = set(re.findall(r'label_replace\(.*?, "(\w+)"', query))
    used = set(re.findall(r"(\w+)\s*=~?\s*\"", query))
    for labels in re.findall(r"by \(([^)]*)\)", query):
        used |= set(re.split(r",\s*", labels))
    assert used - created <= set.union(*(scraped[name] for name in names))


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_the_brackets_of_a_query_are_balanced(query: str) -> None:
    left = re.sub(r'"[^"]*"', "", query)
    while (shorter := re.sub(r"\([^()\[\]{}]*\)|\[[^()\[\]{}]*\]|\{[^()\[\]{}]*\}", "", left)) != left:
        left = shorter
    assert not set(left) & set("()[]{}")


def test_the_dashboard_shows_every_metric(scraped: dict[str, set[str]]) -> None:
    shown = " ".join(QUERIES)
    metrics = {name for name in scraped if name.startswith("cutaway_") and not name.endswith("_created")}
    stems = {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics}
    assert {stem for stem in stems if stem not in shown} == set()


def test_the_dashboard_has_what_grafana_requires() -> None:
    assert DASHBOARD.keys() >= {"title", "uid", "schemaVersion", "panels", "templating", "time"}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel.keys() >= {"type", "title", "gridPos", "targets", "datasource", "fieldConfig"} for panel in panels)
    [variable] = DASHBOARD["templating"]["list"]
    assert all(panel["datasource"]["uid"] == f"${{{variable['name']}}}" for panel in panels)


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24  # Grafana's columns


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_a_summary_and_a_description(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    placeholders = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert placeholders <= {label for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in [labels]}
