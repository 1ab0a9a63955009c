"""How long logs are kept: what was asked for and nothing else, wherever the records lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_audit.errors import ConfigurationError
from otel_audit.store.layout import Layout
from otel_audit.store.retention import NOTHING, Retention, pairs
from tests.engine_process import in_engine
from tests.store.test_migrations import ENGINE

KEEPING = """
from otel_audit.store.retention import Retention
import uuid
def put(log, days, table=None):
    attributes = {schema.RECORD_ID: str(uuid.uuid4()), 'otel_audit.log': log}
    [[moment]] = connection.rows(f"SELECT toString(now64(9) - INTERVAL {days} DAY)")
    row = json.dumps({'Timestamp': moment, 'LogAttributes': attributes}).encode()
    connection.insert(f'otel.{table or schema.landing(log)}', (), 'JSONEachRow', [row])
def left(table):
    connection.query(f'OPTIMIZE TABLE otel.{table} FINAL')
    return sorted(log for [log] in connection.rows(f'SELECT log FROM otel.{table}'))
"""


def test_the_engine_deletes_what_is_older_and_only_of_the_logs_named(tmp_path: Path) -> None:
    """Also those that were sent to another landing table; and audit records stay, wherever they lie."""
    result = in_engine(
        tmp_path,
        ENGINE,
        KEEPING + "migrate(connection.rows)\n"
        "for log in ('audit', 'activity', 'pageview', 'billing'):\n"
        "    put(log, 100)\n"
        "    put(log, 1)\n"
        "    put(log, 100, 'pageview_log' if log == 'audit' else 'audit_log')\n"
        "kept = Retention.parse({'activity': '90d', 'other': '90d', 'traces': '1d'})\n"
        "result['applied'] = migrate(connection.rows, 'otel', kept)\n"
        "result['again'] = migrate(connection.rows, 'otel', kept)\n"
        "result['unnamed'] = migrate(connection.rows)\n"
        "for log in schema.LOGS:\n"
        "    result[log.name] = left(schema.events(log.name))\n",
    )
    assert result["applied"] == ["retention: activity 90d, other 90d, traces 1d"]
    assert result["again"] == result["unnamed"] == []
    assert result["audit"] == ["audit", "audit"]
    assert result["activity"] == ["activity"]
    assert result["pageview"] == ["pageview", "pageview"]
    assert result["other"] == ["audit", "billing", "pageview"]


def test_a_retention_can_be_changed_and_taken_back(tmp_path: Path) -> None:
    result = in_engine(
        tmp_path,
        ENGINE,
        KEEPING + "migrate(connection.rows, 'otel', Retention.parse({'pageview': '30d', 'activity': '9d'}))\n"
        "migrate(connection.rows, 'otel', Retention.parse({'pageview': '7d'}))\n"
        "put('pageview', 10)\n"
        "result['shorter'] = left('pageview_events')\n"
        "migrate(connection.rows, 'otel', Retention.parse({'pageview': 'forever'}))\n"
        "put('pageview', 10)\n"
        "put('activity', 10)\n"
        "result['pageview'] = left('pageview_events')\n"
        "result['activity'] = left('activity_events')\n",
    )
    assert result == {"shorter": [], "pageview": ["pageview"], "activity": []}


def test_a_record_of_a_clock_that_is_far_ahead_is_not_taken_for_an_old_one(tmp_path: Path) -> None:
    """A DateTime ends in 2106; a TTL made of one would delete what comes later at once."""
    result = in_engine(
        tmp_path,
        ENGINE,
        KEEPING + "migrate(connection.rows, 'otel', Retention.parse({'activity': '90d'}))\n"
        "put('activity', -365 * 100)\n"
        "put('activity', -365 * 230)\n"
        "result['left'] = left('activity_events')\n",
    )
    assert result["left"] == ["activity", "activity"]


def test_a_table_that_was_lost_gets_its_retention_again(tmp_path: Path) -> None:
    result = in_engine(
        tmp_path,
        ENGINE,
        KEEPING + "migrate(connection.rows, 'otel', Retention.parse({'activity': '90d'}))\n"
        "connection.query('DROP TABLE otel.activity_events SYNC')\n"
        "connection.query('DROP VIEW otel.activity_events_mv SYNC')\n"
        "result['applied'] = migrate(connection.rows)\n"
        "put('activity', 100)\n"
        "put('activity', 1)\n"
        "result['left'] = left('activity_events')\n",
    )
    assert result["applied"][:4] == [
        "missing tables: activity_events",
        "missing columns: activity_events",
        "missing columns: activity_events",
        "activity_events_mv",
    ]
    assert result["left"] == ["activity"]


def test_nothing_is_deleted_that_nobody_named() -> None:
    assert [table for table, rule in NOTHING.clauses().items() if rule] == ["otel_audit_metrics"]
    clauses = Retention.parse({"pageview": "30d"}).clauses()
    assert {table for table, clause in clauses.items() if clause} == {
        *("pageview_events", "other_events", "otel_audit_metrics")
    }
    assert clauses["other_events"] == "timestamp + INTERVAL 30 DAY DELETE WHERE log = 'pageview'"


def test_cold_storage_moves_whole_parts_and_deletion_comes_after() -> None:
    kept = Retention.parse({"activity": "1y"}, {"activity": "30d", "other": "2w"}, "hot_cold")
    clauses = kept.clauses()
    assert clauses["activity_events"] == (
        "timestamp + INTERVAL 30 DAY TO VOLUME 'cold', timestamp + INTERVAL 1 YEAR DELETE"
    )
    assert clauses["other_events"].startswith("timestamp + INTERVAL 2 WEEK TO VOLUME 'cold', ")
    found = kept.statements(NOTHING, Layout(), frozenset(kept.clauses()))
    assert sum("MODIFY SETTING storage_policy = 'hot_cold'" in sql for sql in found) == len(clauses)


@pytest.mark.parametrize(
    ("delete", "cold", "policy", "expected"),
    [
        ({"activty": "90d"}, {}, "", "valid logs are audit, activity, pageview, other, traces, logs"),
        ({"activity": "90"}, {}, "", "such as 90d or 7y, or forever"),
        ({"activity": "0d"}, {}, "", "such as 90d"),
        ({"activity": "soon"}, {}, "", "such as 90d"),
        ({}, {"audit": "1y"}, "", "--storage-policy"),
        ({}, {"audit": "1y"}, "a'b", "not a valid name"),
    ],
)
def test_nonsense_is_refused_with_what_is_valid(
    delete: dict[str, str], cold: dict[str, str], policy: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        Retention.parse(delete, cold, policy)


def test_pairs_of_the_command_line_are_log_and_age() -> None:
    assert pairs("--retention", ["activity=90d", "traces = 2w"]) == {"activity": "90d", "traces": "2w"}
    with pytest.raises(ConfigurationError, match="write LOG=AGE"):
        pairs("--retention", ["90d"])
