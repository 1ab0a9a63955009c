"""The Collector's metrics that the dashboards draw, against those the real Collector has."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import promql_parser
import pytest

from otel_audit.audit_record import new_record_id
from tests.collector.dashboards import PROMETHEUS, Query, queries
from tests.collector.running import Collector, site
from tests.e2e.running import eventually

AGENT_QUEUE = 20_000
"""What the agent's queue for ordinary telemetry holds (profiles/agent.yaml)."""
ADDED_BY_PROMETHEUS = {"instance", "job"}
ASKED = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;q=0.3"
"""The forms Prometheus asks for, best first: in the first one, names of counters would differ."""

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? \S+")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The metrics of an agent and a gateway, and the labels of each, once everything has happened.

    Many come into being when they first count something. So records, logs and spans pass, the gateway refuses
    the agent's records for good, and a request does not fit into a queue.
    """
    directory = tmp_path_factory.mktemp("metrics")
    with site(directory) as (store, gateway, _, _):
        forwarding = {
            "OTELCOL_GATEWAY_URL": gateway.base,
            "OTELCOL_GATEWAY_TELEMETRY_URL": gateway.otlp,
            "OTELCOL_GATEWAY_TOKEN": "wrong",
        }
        agent = Collector(directory, "", ["profiles/agent.yaml"], forwarding, "agent")
        store.start()
        gateway.start()
        agent.start()
        try:
            assert gateway.post(*logs(record=True)).status_code == 200
            assert agent.post(*logs(record=True)).status_code == 200
            assert telemetry(gateway, "logs", logs()).status_code == 200
            assert telemetry(gateway, "traces", spans()).status_code == 200
            assert telemetry(agent, "logs", logs(AGENT_QUEUE + 1)).status_code != 200
            found: dict[str, set[str]] = {}

            def all_there() -> bool:
                found.update(scrape(gateway))
                found.update(scrape(agent))
                return drawn() <= set(found)

            eventually(all_there, f"{drawn()} are exposed", 30)
            yield found
        finally:
            agent.kill()


def telemetry(collector: Collector, kind: str, request: tuple[bytes, str]) -> httpx.Response:
    """Post ordinary telemetry."""
    body, content_type = request
    url = f"{collector.otlp}/v1/{kind}"
    return httpx.post(url, content=body, headers={"Content-Type": content_type}, timeout=60)


def scrape(collector: Collector) -> dict[str, set[str]]:
    """Return the metrics of a Collector by the names a Prometheus reads, with the names of their labels."""
    text = httpx.get(collector.telemetry, headers={"Accept": ASKED}, timeout=10).text
    return {
        match[1]: set(re.findall(r'(\w+)="', match[2] or ""))
        for match in map(_SAMPLE.fullmatch, text.splitlines())
        if match
    }


def logs(count: int = 1, *, record: bool = False) -> tuple[bytes, str]:
    """Make a request of ordinary logs, or of audit records."""
    attributes = {"otel_audit.log": "audit"} | ({"audit.record.id": new_record_id()} if record else {})
    one = {
        "timeUnixNano": str(time.time_ns()),
        "body": {"stringValue": "hello"},
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
    }
    return posted({"resourceLogs": [{"scopeLogs": [{"logRecords": [one] * count}]}]})


def spans() -> tuple[bytes, str]:
    """Make a request of one span."""
    moment = str(time.time_ns())
    one = {
        "traceId": "ab" * 16,
        "spanId": "cd" * 8,
        "name": "GET /",
        "kind": 2,
        "startTimeUnixNano": moment,
        "endTimeUnixNano": moment,
    }
    return posted({"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]})


def posted(request: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the body and the content type of a request."""
    return json.dumps(request).encode(), "application/json"


def parts(query: Query) -> list[Any]:
    """Return an expression and all that it is made of, with a duration where Grafana puts one."""
    found: list[Any] = []
    parsed = promql_parser.parse(query.text.replace("$__rate_interval", "1m"))
    promql_parser.walk(parsed, lambda part: found.append(part) or True)
    return found


def names(query: Query) -> set[str]:
    """Return the names of the metrics an expression selects."""
    return {part.name for part in parts(query) if isinstance(part, promql_parser.VectorSelector)}  # type: ignore[misc]


def drawn() -> set[str]:
    """Return the names of all metrics that the dashboards draw."""
    return {name for each in queries(PROMETHEUS) for name in names(each)}


def test_every_metric_drawn_is_one_of_the_collectors(exposed: Mapping[str, set[str]]) -> None:
    """By the very name: a counter has no `_total` at its end here."""
    assert len(drawn()) > 10
    assert drawn() <= set(exposed)


def test_metrics_are_grouped_by_labels_they_have(exposed: Mapping[str, set[str]]) -> None:
    """A label that is not there would make one line of all, and one that is not grouped by names no line."""
    for each in queries(PROMETHEUS):
        (grouped,) = (part for part in parts(each) if isinstance(part, promql_parser.AggregateExpr))
        assert grouped.modifier is not None, each.text
        labels = set(grouped.modifier.labels)
        for name in names(each):
            assert labels <= exposed[name] | ADDED_BY_PROMETHEUS, each.text
        (legend,) = (
            target["legendFormat"] for target in each.panel["targets"] if target["expr"] == each.text
        )
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == labels, each.text


def test_a_counter_is_drawn_as_a_rate_and_a_gauge_as_it_is() -> None:
    """The sum of a counter since a Collector's start says nothing."""
    for each in queries(PROMETHEUS):
        called = {part.func.name for part in parts(each) if isinstance(part, promql_parser.Call)}
        counters = {name for name in names(each) if re.search(r"_(log_records|spans)$", name)}
        assert called == ({"rate"} if counters else set()), each.text
