"""The alert rules: Prometheus can read them, and the Collector has what they ask for."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from tests.collector.running import COLLECTOR, TOKEN, Collector
from tests.e2e.running import ROOT, eventually

GROUPS = yaml.safe_load((COLLECTOR / "alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What Prometheus asks for: other names, if the Collector has them in other forms."""
OF_PROMETHEUS = {"up"}

Series = tuple[str, dict[str, str]]


@contextmanager
def never() -> Iterator[str]:
    """Run a gateway that answers 400: records are dropped for good."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def scrape(collector: Collector) -> list[Series]:
    text = httpx.get(collector.telemetry, headers={"Accept": PROMETHEUS}, timeout=10).text
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE)
    return [(name, dict(re.findall(r'"?([\w.]+)"?="([^"]*)"', labels))) for name, labels in lines]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Series]:
    """What an agent shows that refused, dropped and sent, and a Collector that did nothing yet."""

    def request(records: int) -> bytes:
        logs = [{"body": {"stringValue": "x"}}] * records
        return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}).encode()

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    alone = Collector(tmp_path_factory.mktemp("alone"), "http://127.0.0.1:9")
    with never() as gateway:
        agent = Collector(
            tmp_path_factory.mktemp("agent"),
            configs=["profiles/agent.yaml", "profiles/mirror.yaml"],
            environment={
                "OTELCOL_GATEWAY_URL": gateway,
                "OTELCOL_GATEWAY_TELEMETRY_URL": gateway,
                "OTELCOL_GATEWAY_TOKEN": TOKEN,
                "OTELCOL_QUEUE_RECORDS": "1",
            },
        )
        try:
            agent.start()
            with pytest.raises(httpx.ReadTimeout):  # it waits for room that never comes, until we give up
                httpx.post(agent.sink, content=request(2), headers=headers, timeout=1)
            assert agent.post(request(1), "application/json").status_code == 200
            for name in ("send_failed_log_records otlp_http/audit", "sent_log_records otlp_http/mirror"):
                eventually(lambda name=name: agent.metrics()[f"otelcol_exporter_{name}"] > 0, name, 60)  # type: ignore[misc]
            eventually(
                lambda: agent.metrics()["otelcol_receiver_refused_log_records otlp/audit"] > 0, "refused", 60
            )
            alone.start()
            return scrape(agent) + scrape(alone)
        finally:
            for each in (agent, alone):
                if each.process is not None:
                    each.kill()


def parts(rule: dict[str, Any]) -> list[Any]:
    """Return an expression and all that it is made of."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(rule["expr"]), lambda part: found.append(part) or True)
    return found


def selectors(rule: dict[str, Any]) -> list[Any]:
    return [part for part in parts(rule) if isinstance(part, promql_parser.VectorSelector)]


def matches(matcher: Any, labels: dict[str, str]) -> bool:
    value, wanted = labels.get(matcher.name, ""), matcher.value
    exact = matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual)
    equal = value == wanted if exact else bool(re.fullmatch(wanted, value))
    return equal != (matcher.op in (promql_parser.MatchOp.NotEqual, promql_parser.MatchOp.NotRe))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_what_a_rule_selects_is_what_the_collector_shows(rule: dict[str, Any], series: list[Series]) -> None:
    """Names and labels, as Prometheus gets them."""
    assert selectors(rule)
    for selector in selectors(rule):
        matchers = selector.matchers.matchers
        if selector.name in OF_PROMETHEUS:
            assert {matcher.name for matcher in matchers} <= {"job", "instance"}
            continue
        shown = [labels for name, labels in series if name == selector.name]
        assert shown, f"the Collector has no {selector.name}"
        for matcher in matchers:
            assert any(matcher.name in labels for labels in shown), matcher
        assert any(all(matches(matcher, labels) for matcher in matchers) for labels in shown), selector


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_labels_a_rule_joins_or_groups_by_are_there(rule: dict[str, Any], series: list[Series]) -> None:
    known = {"job", "instance"} | {label for _, labels in series for label in labels}
    named: set[str] = set()
    for part in parts(rule):
        modifier = getattr(part, "modifier", None)
        if isinstance(part, promql_parser.AggregateExpr) and modifier is not None:
            named |= set(modifier.labels)
        if isinstance(part, promql_parser.BinaryExpr) and modifier is not None and modifier.matching:
            named |= set(modifier.matching.labels)
    named |= set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert named <= known


def test_rules_have_what_prometheus_takes_and_nothing_else() -> None:
    """It does not start with a field it does not know."""
    assert all(set(group) <= {"name", "interval", "rules"} for group in GROUPS)
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {
            "alert", "expr", "for", "labels", "annotations",
        }, rule["alert"]  # fmt: skip
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        for text in rule["annotations"].values():
            assert text.count("{{") == text.count("}}")


def test_the_page_says_what_to_do_about_each_and_names_no_other() -> None:
    page = (ROOT / "docs" / "collector.md").read_text()
    assert set(re.findall(r"`(OtelAudit\w+)`", page)) == {rule["alert"] for rule in RULES}


def test_the_example_prometheus_reads_them_and_scrapes_a_job_they_know() -> None:
    prometheus = yaml.safe_load((COLLECTOR / "compose" / "prometheus.yaml").read_text())
    assert [Path(path).name for path in prometheus["rule_files"]] == ["alerts.yaml"]
    (down,) = (rule for rule in RULES if rule["alert"] == "OtelAuditCollectorDown")
    (up,) = selectors(down)
    for job in prometheus["scrape_configs"]:
        assert all(matches(matcher, {"job": job["job_name"]}) for matcher in up.matchers.matchers)
