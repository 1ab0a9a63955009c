"""store init, migrate, status and roles, as an administrator uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from otel_audit.store.client import RefusedQuery, StoreClient
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import State, expected, plan
from tests.cli.conftest import Command
from tests.store.test_layout import CLUSTER, Cluster, journal
from tests.trail import Serving


def test_the_sql_of_a_new_store_is_printed_without_a_connection(command: Command) -> None:
    done = command("store", "init", "--print", "--url", "http://127.0.0.1:1", "--retention", "activity=90d")
    assert done.status == 0
    assert done.out.startswith("CREATE DATABASE IF NOT EXISTS otel;\n")
    assert "-- logs\n" in done.out
    assert "ALTER TABLE otel.activity_events MODIFY TTL timestamp + INTERVAL 90 DAY DELETE;" in done.out
    assert "ROLE" not in done.out
    clustered = command("store", "init", "--print", "--cluster", "main", "--database", "trail", "--roles")
    assert "CREATE TABLE IF NOT EXISTS trail.audit_log ON CLUSTER 'main' (" in clustered.out
    assert (
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}'"
        in clustered.out
    )
    assert "CREATE ROLE IF NOT EXISTS otel_writer ON CLUSTER 'main';" in clustered.out


def test_the_roles_are_printed(command: Command) -> None:
    done = command("store", "roles", "--tenant", "acme")
    assert done.status == 0
    assert "GRANT INSERT, SHOW COLUMNS ON otel.audit_log TO otel_writer;" in done.out
    assert "USING tenant = 'acme' TO `otel_tenant_acme`;" in done.out


def test_the_configuration_says_cluster_and_retention_and_options_go_over_it(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "otel-audit.toml").write_text(
        '[store]\ncluster = "main"\n[store.retention]\nactivity = "90d"\npageview = "7d"\n'
    )
    done = command("store", "init", "--print", "--retention", "pageview=1d")
    assert "otel.activity_events_local ON CLUSTER 'main' MODIFY TTL timestamp + INTERVAL 90 DAY" in done.out
    assert "otel.pageview_events_local ON CLUSTER 'main' MODIFY TTL timestamp + INTERVAL 1 DAY" in done.out
    single = command("store", "init", "--print", "--cluster", "")
    assert "CLUSTER" not in single.out
    (tmp_path / "otel-audit.toml").write_text('[store.retention]\nactivity = "soon"\n')
    wrong = command("store", "migrate")
    assert wrong.status == 2
    assert "90d, 18mo or 7y" in wrong.err


def test_a_store_that_is_there_is_left_alone(command: Command, trail: Serving) -> None:
    for verb in ("init", "migrate"):
        done = command("store", verb, "--url", trail.clickhouse)
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith("Nothing to do: the ")
    assert command("store", "migrate", "--dry-run", "--url", trail.clickhouse).out == ""


def test_the_embedded_store_is_not_changed_from_outside(command: Command, trail: Serving) -> None:
    """It sets its own retention at its start; who tries is told so."""
    arguments = ("store", "migrate", "--url", trail.clickhouse, "--retention", "activity=90d")
    shown = command(*arguments, "--dry-run")
    assert "-- retention: activity 90d\nALTER TABLE otel.activity_events MODIFY TTL" in shown.out
    done = command(*arguments)
    assert done.status == 3
    assert "set [store.retention] in its configuration" in done.err


def test_status_is_a_table_for_people_and_an_object_for_programs(command: Command, trail: Serving) -> None:
    done = command("store", "status", "--url", trail.clickhouse, "--utc", width=160)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.out)
    assert done.status == 0, done.err
    assert plain.startswith("database otel: schema version ")
    assert re.search(r"audit_events +8 +[\d.]+ KiB +1 +2026-11-23 14:00:01 +2026-11-23 14:00:30 +-", plain)
    found = json.loads(command("store", "status", "--json", "--url", trail.clickhouse).out)
    assert found["version"] == found["current"]
    assert (found["pending"], found["missing"]) == ([], {})
    assert [each["rows"] for each in found["tables"] if each["name"] == "audit_events"] == [8]


def answering(monkeypatch: pytest.MonkeyPatch, execute: Any) -> None:
    """Let the store be one that is not to be had here."""
    monkeypatch.setattr(StoreClient, "rows", lambda self, sql, parameters=None: execute(sql))


def test_a_new_server_is_given_its_tables(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[str] = []

    def server(sql: str) -> list[Any]:
        run.append(sql)
        return []

    answering(monkeypatch, server)
    done = command("store", "init", "--roles")
    assert done.status == 0
    assert done.out.splitlines()[:2] == ["Applied: tables", "Applied: logs"]
    assert done.out.splitlines()[-1] == "Applied: roles"
    assert sum(sql.startswith("CREATE TABLE") for sql in run) >= 12


def test_init_does_not_touch_a_store_of_an_older_version(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def server(sql: str) -> list[Any]:
        if "system.tables" in sql:
            return [["otel_audit_migrations"], ["audit_events"]]
        assert "argMax" in sql
        return [["tables", "tables", 1, ""]]

    answering(monkeypatch, server)
    done = command("store", "init")
    assert done.status == 3
    assert "`otel-audit store migrate` upgrades it to" in done.err
    assert "-- logs" in command("store", "migrate", "--dry-run").out


class OfFormerRows:
    """A current store on a server, with rows of a former version in two months."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.left = [["audit_events", "202611", 1200], ["activity_events", "202610", 7]]
        self.refuses = refuses
        self.run: list[str] = []

    def __call__(self, sql: str) -> list[Any]:
        if "attributes_form = 0" in sql and sql.startswith("SELECT"):
            return list(self.left)
        if sql.startswith("ALTER"):
            if self.refuses:
                raise RefusedQuery("not permitted", 497)
            self.run.append(sql)
            del self.left[0]
        return whole(sql)


def whole(sql: str) -> list[Any]:
    """Answer as a store to which nothing has to be done."""
    if "system.tables" in sql:
        return [[name] for name in expected(Layout())]
    if "argMax" in sql:
        made = "\n".join(statement for each in plan(State(), Layout()) for statement in each.statements)
        notes = re.findall(r"VALUES \('(\w+)', '(\w+)', (\d+), '(\w*)'", made)
        return [[kind, name, int(number), checksum] for kind, name, number, checksum in notes]
    return []


def test_rows_of_a_former_version_are_rewritten_month_by_month(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is named, and with --dry-run its statement is shown."""
    server = OfFormerRows()
    answering(monkeypatch, server)
    shown = command("store", "migrate", "--dry-run")
    assert "-- audit_events: rows of 202611\nALTER TABLE otel.audit_events UPDATE attributes = " in shown.out
    assert server.run == []
    done = command("store", "migrate")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-2:] == [
        "Rewriting audit_events, 2026-11: 1,200 rows",
        "Rewriting activity_events, 2026-10: 7 rows",
    ]
    assert [sql.partition(" UPDATE ")[0] for sql in server.run] == [
        "ALTER TABLE otel.audit_events",
        "ALTER TABLE otel.activity_events",
    ]


def test_an_embedded_store_rewrites_its_rows_itself(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, OfFormerRows(refuses=True))
    done = command("store", "migrate")
    assert done.status == 0
    assert "Not permitted. `otel-audit serve` does this itself, in the background;" in done.out


def test_status_says_what_is_missing_on_which_host(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.store.test_status import Answering

    whole = expected(CLUSTER)
    answering(monkeypatch, Answering({"a": whole, "b": whole - {"pageview_log"}}, journal=journal()))
    done = command("store", "status", "--cluster", "main")
    assert done.status == 1
    assert "missing on b: pageview_log" in done.out
    assert "does not accept writes: audit_events on b" in done.out.replace("_local", "")
    assert "pending, for `otel-audit store migrate`: missing tables: pageview_log" in done.out


def test_who_may_not_is_told_which_role_is_needed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def server(sql: str) -> list[Any]:
        if sql.startswith("CREATE"):
            raise RefusedQuery("Code: 497. DB::Exception: ana: Not enough privileges", 497)
        return []

    answering(monkeypatch, server)
    done = command("store", "init")
    assert done.status == 3
    assert "needs the role otel_migrator" in done.err


@pytest.mark.parametrize(
    ("arguments", "expected_text"),
    [
        (["migrate", "--retention", "activity"], "write LOG=AGE"),
        (["migrate", "--retention", "activty=9d"], "valid logs are audit, activity"),
        (["init", "--cold", "audit=1y"], "--storage-policy"),
        (["init", "--cluster", "a b"], "not a valid cluster name"),
        (["roles", "--tenant", "a b"], "cannot be used in a role name"),
    ],
)
def test_nonsense_is_refused_before_anything_is_asked(
    command: Command, arguments: list[str], expected_text: str
) -> None:
    done = command("store", *arguments)
    assert done.status == 2
    assert expected_text in done.err


def test_an_unknown_cluster_is_told_with_those_there_are(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Cluster({}))
    done = command("store", "migrate", "--cluster", "elsewhere")
    assert done.status == 3
    assert "it has main, other" in done.err
    assert Layout("otel", "elsewhere").cluster == "elsewhere"
