"""The files Grafana loads: dashboards and data sources that fit together, and show data as data."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml

from otel_audit.store.schema import LOGS, TRACE_TIMES, TRACES, events
from tests.collector.dashboards import (
    DASHBOARDS,
    GRAFANA,
    PROMETHEUS,
    STORE,
    Range,
    chosen,
    expand,
    panels,
    queries,
    read,
)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_loaded(path: Path) -> None:
    """Ids are unique, panels do not overlap, everything named is there."""
    dashboard = read(path)
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["id"] is None  # Grafana gives it
    assert dashboard["uid"] == f"otel-audit-{path.stem}"
    assert dashboard["editable"] is False
    found = list(panels(dashboard))
    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert cells, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
        targets = panel.get("targets", [])
        assert bool(targets) is (panel["type"] != "row")
        assert panel["type"] in {"row", "stat", "table", "timeseries", "traces"}
        assert len({target["refId"] for target in targets}) == len(targets)
        assert all(target["datasource"] == panel["datasource"] for target in targets)
        if targets:
            assert panel["description"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_links_lead_to_dashboards_and_variables_that_are_there(path: Path) -> None:
    """And carry the value encoded, so that it stays one."""
    boards = {dashboard["uid"]: dashboard for dashboard in map(read, DASHBOARDS)}
    links = [
        (panel["title"], link["url"])
        for panel in panels(read(path))
        for override in panel.get("fieldConfig", {}).get("overrides", [])
        for each in override["properties"]
        if each["id"] == "links"
        for link in each["value"]
    ]
    assert links
    for title, url in links:
        found = re.fullmatch(
            r"/d/([\w-]+)\?\$\{__url_time_range\}(?:&var-log=\$\{log:percentencode\})?&var-(\w+)=\$\{__value\.raw:percentencode\}",
            url,
        )
        assert found, (title, url)
        assert found[2] in {each["name"] for each in boards[found[1]]["templating"]["list"]}, (title, url)
    for link in read(path)["links"]:
        assert link["url"].removeprefix("/d/") in boards


def test_nothing_of_the_trail_is_rendered_as_markup() -> None:
    """Grafana escapes text, unless a panel asks for HTML or Markdown."""
    text = "".join(path.read_text("utf-8") for path in DASHBOARDS)
    assert not re.search(r'"(?:html|markdown|image|jsonView)"', text, re.IGNORECASE)
    assert not any(panel["type"] in ("text", "html") for path in DASHBOARDS for panel in panels(read(path)))


def test_data_sources_and_dashboards_are_provisioned() -> None:
    """The uids the dashboards name, and the folder they lie in, where the containers have it."""
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/otel-audit.yaml").read_text())
    there = {(each["type"], each["uid"]) for each in provisioned["datasources"]}
    named = {
        (source["type"], source["uid"])
        for dashboard in map(read, DASHBOARDS)
        for part in (*panels(dashboard), *dashboard["templating"]["list"])
        for source in (part.get("datasource"), *(each["datasource"] for each in part.get("targets", [])))
        if source
    }
    assert named == there == {(STORE, "otel-audit-store"), (PROMETHEUS, "otel-audit-metrics")}
    assert all(each["editable"] is False for each in provisioned["datasources"])
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/otel-audit.yaml").read_text())[
        "providers"
    ]
    compose = yaml.safe_load((GRAFANA.parent / "compose/compose.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts["../grafana/dashboards"] == provider["options"]["path"]
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"


def test_queries_are_written_for_the_version_of_the_plugin_that_is_installed() -> None:
    """A newer one would rewrite them when it opens them."""
    compose = yaml.safe_load((GRAFANA.parent / "compose/compose.yaml").read_text())
    installed = compose["services"]["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
    text = "".join(path.read_text("utf-8") for path in DASHBOARDS)
    versions = set(re.findall(r'"pluginVersion": "([^"]*)"', text))
    assert {f"{STORE}@{version}" for version in versions} == {installed}


def test_queries_only_read_what_the_reader_may() -> None:
    """A user with the role otel_reader must be able to look at everything."""
    readable = {events(log.name) for log in LOGS} | {f"{log.name}_trail" for log in LOGS}
    readable |= {TRACES, TRACE_TIMES, "system.parts"}
    for each in queries(STORE):
        text = expand(each.text, chosen(each.dashboard), Range(0, 3600))
        named = set(re.findall(r"\bFROM\s+([\w.]+)", text))
        assert named, each.name
        assert named <= readable, each.name
