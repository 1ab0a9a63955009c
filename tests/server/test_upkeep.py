"""Many parts become one, within the memory the engine has; what does not fit is not begun."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from otel_audit.server.engine.upkeep import Partition, due
from tests.engine_process import in_engine

NIGHT = datetime.datetime(2026, 11, 28, 3, 0, tzinfo=datetime.UTC)
NOON = datetime.datetime(2026, 11, 28, 12, 0, tzinfo=datetime.UTC)
LIMIT = 10_000


def partition(
    name: str, *, size: int = 1000, largest: int = 500, changed: datetime.datetime = NOON
) -> Partition:
    """Return a partition of the audit log."""
    return Partition("audit_events", name, size, largest, changed)


@pytest.mark.parametrize("name", ["202610", "20261127"])
def test_a_past_partition_is_merged_at_night(name: str) -> None:
    """Of a month or of a day; at noon it can wait."""
    assert due([partition(name)], NIGHT, LIMIT) == [partition(name)]
    assert due([partition(name)], NOON, LIMIT) == []


def test_a_machine_that_is_off_at_night_merges_at_noon() -> None:
    """What did not change for two days is merged at any hour."""
    old = partition("202610", changed=NOON - datetime.timedelta(days=2))
    assert due([old], NOON, LIMIT) == [old]


def test_the_hours_are_those_of_the_machine() -> None:
    """Three o'clock where the server is, not in UTC."""
    zone = datetime.timezone(datetime.timedelta(hours=9))
    assert due([partition("202610")], NOON.astimezone(zone), LIMIT) == []
    assert due([partition("202610")], NIGHT.replace(tzinfo=zone), LIMIT) == [partition("202610")]


def test_what_does_not_fit_is_not_begun() -> None:
    """A partition with more bytes than one merge may have."""
    assert due([partition("202610", size=LIMIT + 1)], NIGHT, LIMIT) == []


def test_a_few_late_rows_do_not_rewrite_a_month() -> None:
    """Less than a sixteenth of what is merged already is left where it is."""
    assert due([partition("202610", size=1050, largest=1000)], NIGHT, LIMIT) == []
    assert due([partition("202610", size=1070, largest=1000)], NIGHT, LIMIT) != []


def test_this_month_is_merged_when_it_has_grown_by_half() -> None:
    """So each row is rewritten a few times only; today's partition is left to the engine."""
    assert due([partition("202611", size=1400, largest=1000)], NIGHT, LIMIT) == []
    grown = partition("202611", size=1500, largest=1000)
    assert due([grown], NIGHT, LIMIT) == [grown]
    assert due([grown], NOON + datetime.timedelta(days=1), LIMIT) == []
    assert due([partition("20261128")], NIGHT, LIMIT) == []


def test_a_table_without_partitions_is_left_alone() -> None:
    """The journal of migrations has one part a release."""
    assert due([partition("all")], NIGHT, LIMIT) == []


SCRIPT = """
import datetime, json, sys
from pathlib import Path
from otel_audit.server.engine.engine import Engine
from otel_audit.server.engine.upkeep import Upkeep
from otel_audit.store.migrations import migrate

engine = Engine(Path(sys.argv[1]), memory_bytes=280 * 2**20, fsync=False)
result = {}
with engine.connection() as connection:
    def parts():
        return connection.rows(
            "SELECT partition_id, count() FROM system.parts WHERE active AND table = 'audit_events' "
            "GROUP BY partition_id ORDER BY partition_id"
        )

    migrate(connection.rows, "otel")
    connection.prepare_inserts()
    connection.query("SYSTEM STOP MERGES")
    for name in ("max_block_size", "min_insert_block_size_rows"):
        connection.query(f"SET {name} = 4000")
    connection.query("SET max_threads = 1")
    now = datetime.datetime(2026, 11, 28, 3, 0, tzinfo=datetime.UTC)
"""


def test_merging_takes_less_memory_than_the_engine_has(tmp_path: Path) -> None:
    """Eight parts with more words than the memory holds, 48 of each record's own: one, with nothing lost."""
    result = in_engine(
        tmp_path,
        SCRIPT,
        "connection.query('''INSERT INTO otel.audit_events (timestamp, record_id, message)\n"
        "  SELECT toDateTime64('2026-10-05 00:00:00', 9, 'UTC') + number, generateUUIDv4(number),\n"
        "    arrayStringConcat(arrayMap(i -> lower(hex(sipHash64(number, i))), range(48)), ' ')\n"
        "  FROM numbers(32000)''')\n"
        "result['before'] = parts()\n"
        "connection.query('SYSTEM START MERGES')\n"
        "result['merged'] = [each.id for each in Upkeep(engine, 'otel').merge(now)]\n"
        "result['after'] = parts()\n"
        "count = 'SELECT count(), uniqExact(record_id) FROM otel.audit_events'\n"
        "result['found'] = connection.rows(count)\n"
        "result['word'] = connection.rows('''SELECT count() FROM otel.audit_events\n"
        "  WHERE hasAllTokens(search_text, [lower(hex(sipHash64(toUInt64(777), 0)))])''')\n",
    )
    assert result == {
        "before": [["202610", 8]],
        "merged": ["202610"],
        "after": [["202610", 1]],
        "found": [[32000, 32000]],
        "word": [[1]],
    }
