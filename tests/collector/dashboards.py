"""Grafana's dashboards as Grafana reads them: panels, variables, and their queries with all filled in.

Grafana itself is not run. What it does to a query is done here: variables are replaced in the browser, in the
format they ask for, then macros on Grafana's server by the ClickHouse data source.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.collector.deploying import reader
from tests.e2e.running import ROOT

GRAFANA = ROOT / "collector" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
STORE = "grafana-clickhouse-datasource"
PROMETHEUS = "prometheus"

_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(?!_)(\w+)")
_MACRO = re.compile(r"\$__(\w+)")


class Range(NamedTuple):
    """The time somebody looks at, in seconds, and the seconds of one point of a chart."""

    since: int
    until: int
    interval: int = 60


class Query(NamedTuple):
    """A query of a panel or a variable, as written."""

    dashboard: str
    title: str
    kind: str
    text: str
    panel: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return what names it in a test's output."""
        return f"{self.dashboard}: {self.title}"


class Answer(NamedTuple):
    """What the store said: the type of each column by its name, and the rows."""

    columns: dict[str, str]
    rows: list[dict[str, Any]]


def read(path: Any) -> dict[str, Any]:
    """Read a dashboard."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return all panels, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries(datasource: str) -> Iterator[Query]:
    """Return all queries that go to a kind of data source."""
    for path in DASHBOARDS:
        dashboard = read(path)
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == datasource:
                    text = target["rawSql"] if datasource == STORE else target["expr"]
                    yield Query(path.stem, panel["title"], panel["type"], text, panel)
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and variable["datasource"]["type"] == datasource:
                text = variable["query"]["rawSql"]
                yield Query(path.stem, f"variable {variable['name']}", "variable", text, variable)


def chosen(dashboard: str) -> dict[str, str]:
    """Return what each variable of a dashboard stands for when it is opened."""
    values = {}
    for variable in read(GRAFANA / "dashboards" / f"{dashboard}.json")["templating"]["list"]:
        value = variable["current"]["value"]
        values[variable["name"]] = variable["allValue"] if value == "$__all" else value
    return values


def expand(text: str, values: Mapping[str, str], shown: Range) -> str:
    """Fill in variables, then macros, as Grafana does.

    A variable without a format, or one Grafana would replace and we do not know, is an error: text from the
    trail would become part of the statement.
    """

    def variable(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2]
        assert form == "percentencode", f"{match[0]} puts a value into the statement as it is"
        return quote(values[name], safe="-_.~")

    return _macros(_VARIABLE.sub(variable, text), shown)


def _macros(text: str, shown: Range) -> str:
    done = ""
    while match := _MACRO.search(text):
        done, rest, argument = done + text[: match.start()], text[match.end() :], ""
        if match[1] in ("timeFilter", "timeInterval"):
            argument, rest = _argument(rest)
        since, until = f"toDateTime({shown.since})", f"toDateTime({shown.until})"
        done += {
            "timeFilter": f"{argument} >= {since} AND {argument} <= {until}",
            "timeInterval": f"toStartOfInterval(toDateTime({argument}), INTERVAL {shown.interval} second)",
            "interval_s": str(shown.interval),
        }[match[1]]
        text = rest
    return done + text


def _argument(text: str) -> tuple[str, str]:
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            assert index, f"a macro has no argument: {text[:40]}"
            return text[1:index], text[index + 1 :]
    raise AssertionError(f"a parenthesis is not closed: {text[:40]}")


def ask(store: str, statements: Sequence[str]) -> list[Answer]:
    """Run statements with the driver of Grafana's data source; one that fails is a failure that names it."""
    asked = {
        "address": store.removeprefix("http://"),
        "database": "otel",
        "user": "default",
        "password": "",
        "queries": statements,
    }
    done = subprocess.run(
        [reader(), "query"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = []
    for statement, found in zip(statements, json.loads(done.stdout), strict=True):
        if found["error"]:
            pytest.fail(f"{found['error']}\n\n{statement}")
        names = [column["name"] for column in found["columns"]]
        assert len(set(names)) == len(names), f"a column twice in {names}"
        answers.append(
            Answer(
                {column["name"]: column["type"] for column in found["columns"]},
                [dict(zip(names, row, strict=True)) for row in found["rows"]],
            )
        )
    return answers
