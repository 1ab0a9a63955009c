"""A cluster's tables: its statements are parsed by the engine, and run as far as one engine can run them.

Keeper, replicas and hosts that answer each other are not to be had here. So ``ON CLUSTER`` is left out and
replicated tables are plain ones; everything else of the statements is run, on an engine that knows a cluster.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from otel_audit.errors import ConfigurationError, StoreError
from otel_audit.store import schema, tables
from otel_audit.store.filters import Filters, select
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import Change, State, expected, migrate, plan, read_state
from otel_audit.store.retention import Retention
from otel_audit.store.rewriting import statement
from otel_audit.store.roles import roles

CLUSTER = Layout("otel", "main")
KEPT = Retention.parse({"activity": "90d", "other": "1y", "traces": "2w"}, {"audit": "18mo"}, "hot_cold")

CONFIG = """<clickhouse>
  <remote_servers><main>
    <shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9</port></replica></shard>
    <shard><internal_replication>true</internal_replication><replica><host>127.0.0.2</host><port>9</port></replica></shard>
  </main></remote_servers>
  <storage_configuration>
    <disks><slow><path>{slow}/</path></slow></disks>
    <policies><hot_cold><volumes>
      <default><disk>default</disk></default><cold><disk>slow</disk></cold>
    </volumes></hot_cold></policies>
  </storage_configuration>
</clickhouse>"""

SCRIPT = """
import json, sys
from chdb import _chdb
given = json.loads(sys.stdin.read())
connection = _chdb.connect(sys.argv[1])
answers = []
for sql in given:
    try:
        result = connection.query(sql, 'JSONCompactEachRow')
        answers.append(result.error_message() if result.has_error()
                       else [json.loads(line) for line in result.bytes().splitlines()])
    except RuntimeError as error:
        answers.append(str(error))
print(json.dumps(answers))
connection.close()
"""


def run(directory: Path, statements: Sequence[str]) -> list[Any]:
    """Run statements on an engine that knows the cluster; give the rows of each, or the error as text."""
    config = directory / "cluster.xml"
    slow = directory / "slow"
    slow.mkdir(exist_ok=True)
    config.write_text(CONFIG.format(slow=slow))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"{directory / 'engine'}?config-file={config}"],
        input=json.dumps(list(statements)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def assert_all_run(statements: Sequence[str], answers: Sequence[Any]) -> None:
    failed = [
        (sql[:200], answer)
        for sql, answer in zip(statements, answers, strict=True)
        if isinstance(answer, str)
    ]
    assert not failed


def statements(changes: Sequence[Change]) -> list[str]:
    return [statement for change in changes for statement in change.statements]


def of_one_host(statement: str) -> str:
    """Return what of a statement can be run without Keeper."""
    alone = statement.replace(" ON CLUSTER 'main'", "")
    return re.sub(r"ENGINE = Replicated(\w+)\('[^)]*\)", r"ENGINE = \1()", alone)


@pytest.mark.parametrize("layout", [Layout(), CLUSTER], ids=["server", "cluster"])
def test_the_engine_parses_every_statement_for_the_administrator(layout: Layout, tmp_path: Path) -> None:
    """Tables, views, retention, roles and row policies, as they are printed for a review."""
    given = [
        *statements(plan(State(), layout, KEPT)),
        *KEPT.statements(
            KEPT.overlaid(Retention({"logs": "1d"})), layout, expected(layout) | {"otel_logs_local"}
        ),
        *roles(layout, ["acme", "globex-2"]),
        *(sql for each in ("all", "small") for sql in layout.index("audit_events", each)),
        *(statement(layout, schema.events(log.name), "202611") for log in schema.LOGS),
    ]
    assert len(given) > 100
    read = [f"EXPLAIN AST {sql}" for sql in given if not sql.startswith("INSERT")]
    answers = run(tmp_path, [*read, "EXPLAIN AST GRANT NONSENSE ON a.b TO c"])
    assert isinstance(answers.pop(), str)  # it does tell sense from nonsense
    assert_all_run(read, answers)


def test_all_but_replication_runs_on_an_engine_that_knows_the_cluster(tmp_path: Path) -> None:
    """Every object is made, and every kind of question is understood by the Distributed tables."""
    made = [of_one_host(sql) for sql in statements(plan(State(), CLUSTER, KEPT, "small"))]
    questions = [
        Filters(),
        Filters(log="*", target="shop.Order/7", actor="ana"),
        Filters(log="activity", field="status=paid", text="two words"),
        Filters(trace_id="ab" * 16, request_id="r", since="1h", until="now", tenant="acme", action="READ"),
    ]
    asked = []
    for filters in questions:
        sql, parameters = select("otel", filters, rows=10, related=True)
        asked.append(f"EXPLAIN {filled(sql, parameters)}")
    asked += [of_one_host(statement(CLUSTER, schema.events(log.name), "202611")) for log in schema.LOGS]
    asked += [f"EXPLAIN SELECT * FROM otel.{log.name}_trail" for log in schema.LOGS]
    names = "SELECT name FROM system.tables WHERE database = 'otel' AND name NOT LIKE '.inner%'"
    answers = run(tmp_path, [*made, *asked, names])
    assert_all_run([*made, *asked, names], answers)
    assert {name for (name,) in answers[-1]} == expected(CLUSTER)
    assert any("ReadFromRemote" in str(line) for line in answers[len(made)])


def filled(sql: str, parameters: dict[str, Any]) -> str:
    """Put parameters into a statement, as their literals."""
    for name, value in parameters.items():
        sql = re.sub(rf"\{{{name}:[A-Za-z0-9()]+\}}", lambda _, value=value: repr(value), sql)  # type: ignore[misc]
    return sql


def test_rows_of_a_record_and_of_a_stream_lie_on_one_shard(tmp_path: Path) -> None:
    """So a resend is merged with the first sending, and a chain is whole on its shard."""
    made = [of_one_host(sql) for sql in statements(plan(State(), CLUSTER))]
    [table] = {
        table.of("audit") for step in tables.STEPS for table in step.tables if table.name == "{log}_events"
    }
    inserted = (
        "INSERT INTO otel.audit_events_local (timestamp, record_id, ordinal, stream) "
        "SELECT toDateTime64('2026-01-01', 9), toUUID(concat('00000000-0000-7000-8000-', "
        "leftPad(toString(intDiv(number, 5)), 12, '0'))), number % 5, "
        "if(number < 5000, concat('stream-', toString(intDiv(number, 50))), '') FROM numbers(10000)"
    )
    rows = f"(SELECT *, {table.shard_by} % 4 AS shard FROM otel.audit_events_local)"
    asked = [
        f"SELECT max(n) FROM (SELECT uniqExact(shard) AS n FROM {rows} GROUP BY record_id)",
        f"SELECT max(n) FROM (SELECT uniqExact(shard) AS n FROM {rows} WHERE stream != '' GROUP BY stream)",
        f"SELECT min(n), max(n) FROM (SELECT uniqExact(stream) AS n FROM {rows} GROUP BY shard)",
        f"SELECT min(n), max(n) FROM (SELECT count() AS n FROM {rows} WHERE stream = '' GROUP BY shard)",
    ]
    answers = run(tmp_path, [*made, inserted, *asked])
    assert_all_run([*made, inserted, *asked], answers)
    assert answers[-4:-2] == [[[1]], [[1]]]
    for [[fewest, most]] in answers[-2:]:
        assert fewest > 0
        assert most < 2 * fewest  # spread over the shards, those without a stream as well


def test_a_cold_volume_and_a_retention_are_taken_by_the_engine(tmp_path: Path) -> None:
    """With the policy's two volumes there, on a single server: as printed."""
    made = statements(plan(State(), Layout(), KEPT))
    asked = ["SELECT create_table_query FROM system.tables WHERE name = 'audit_events'"]
    answers = run(tmp_path, [*made, *asked])
    assert_all_run([*made, *asked], answers)
    assert (
        "toIntervalMonth(18) TO VOLUME \\'cold\\'" in answers[-1][0][0]
        or "TO VOLUME 'cold'" in answers[-1][0][0]
    )
    assert "storage_policy = 'hot_cold'" in answers[-1][0][0].replace("\\'", "'")


class Cluster:
    """What the hosts of a cluster would answer."""

    def __init__(
        self, hosts: dict[str, frozenset[str]], *, asked: str = "a", journal: Sequence[Any] = ()
    ) -> None:
        self.hosts = hosts
        self.asked = asked
        self.journal = journal
        self.definitions: dict[str, str] = {}
        self.run: list[str] = []

    def __call__(self, sql: str) -> Sequence[Sequence[Any]]:
        if "system.clusters" in sql:
            return [["main"], ["other"]]
        if "clusterAllReplicas('main', system.one)" in sql:
            return [[host, ["", *sorted(names)]] for host, names in self.hosts.items()]
        if sql == "SELECT hostName()":
            return [[self.asked]]
        if "argMax(checksum" in sql:
            return self.journal
        if "create_table_query" in sql:
            return [[name, text] for name, text in self.definitions.items() if f"'{name}'" in sql]
        assert not sql.startswith("SELECT"), sql
        self.run.append(sql)
        return []


def journal() -> list[list[Any]]:
    """Return what the journal says after a whole run."""
    noted = []
    for sql in statements(plan(State(), CLUSTER, Retention.parse({"activity": "90d"}))):
        found = re.search(r"VALUES \('(\w+)', '(\w+)', (\d+), '(\w*)'", sql)
        if found:
            noted.append([found[1], found[2], int(found[3]), found[4]])
    return noted


WHOLE = expected(CLUSTER)


def test_a_cluster_that_has_all_is_left_alone() -> None:
    cluster = Cluster({"a": WHOLE, "b": WHOLE}, journal=journal())
    assert migrate(cluster, CLUSTER) == []
    assert cluster.run == []


def test_a_host_that_came_later_gets_what_the_others_have_by_now() -> None:
    """Its replicas must be like those of their shard, with the retention that was set since."""
    cluster = Cluster({"a": WHOLE, "new": frozenset()}, journal=journal())
    cluster.definitions = {
        "audit_events_local": "CREATE TABLE otel.audit_events_local (`timestamp` …) TTL timestamp + 9"
    }
    applied = migrate(cluster, CLUSTER)
    assert any(name.startswith("missing tables: ") for name in applied)
    assert (
        "CREATE TABLE IF NOT EXISTS otel.audit_events_local ON CLUSTER 'main' "
        "(`timestamp` …) TTL timestamp + 9"
    ) in cluster.run
    assert any(sql.startswith("CREATE DATABASE IF NOT EXISTS otel ON CLUSTER") for sql in cluster.run)
    assert [sql for sql in cluster.run if "CREATE MATERIALIZED VIEW" in sql]
    assert not [sql for sql in cluster.run if "MODIFY QUERY" in sql]


def test_a_view_that_changed_while_a_host_was_added_is_altered_on_the_others() -> None:
    noted = [
        [kind, name, version, "old" if name == "audit_events_mv" else checksum]
        for kind, name, version, checksum in journal()
    ]
    cluster = Cluster({"a": WHOLE, "b": WHOLE - {"audit_events_mv"}}, journal=noted)
    assert migrate(cluster, CLUSTER) == ["audit_events_mv"]
    heads = [
        sql.partition(" TO ")[0].partition(" MODIFY QUERY")[0]
        for sql in cluster.run
        if "audit_events_mv" in sql
    ]
    assert heads[:2] == [
        "CREATE MATERIALIZED VIEW IF NOT EXISTS otel.audit_events_mv ON CLUSTER 'main'",
        "ALTER TABLE otel.audit_events_mv ON CLUSTER 'main'",
    ]


def test_every_statement_for_a_cluster_reaches_all_its_hosts() -> None:
    given = statements(plan(State(), CLUSTER, KEPT)) + roles(CLUSTER, ["acme"])
    assert not [
        sql
        for sql in given
        if " ON CLUSTER 'main'" not in sql and not sql.startswith(("INSERT", "GRANT ON CLUSTER"))
    ]
    assert not [
        sql for sql in statements(plan(State(), Layout(), KEPT)) if "CLUSTER" in sql or "_local" in sql
    ]


def test_what_cannot_be_a_cluster_of_ours_is_refused() -> None:
    with pytest.raises(StoreError, match="has no cluster 'elsewhere'; it has main, other"):
        read_state(Cluster({}), Layout("otel", "elsewhere"))
    with pytest.raises(StoreError, match="belongs to a single server"):
        read_state(Cluster({"a": frozenset({schema.EVENTS, schema.MIGRATIONS})}), CLUSTER)
    with pytest.raises(StoreError, match="--url of a host that has them, such as b"):
        read_state(Cluster({"a": frozenset(), "b": WHOLE}), CLUSTER)
    with pytest.raises(StoreError, match="is on a cluster; set its name"):
        read_state(lambda sql: [[name] for name in WHOLE], Layout())
    with pytest.raises(ConfigurationError, match="not a valid cluster name"):
        Layout("otel", "main'; DROP")
