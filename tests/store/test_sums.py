"""Counts per day from what the engine has summed up: as if it looked at each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from otel_audit.audit_record import Actor, AuditRecord, Bulk, Column, Target
from otel_audit.store.query import AuditStore
from otel_audit.store.tables import STEPS
from tests.attack.chance import Chance
from tests.engine_process import in_stopped_server
from tests.trail import land, record, serving

BEGIN: Final = 1_788_220_800 * 10**9
"""2026-09-01, in nanoseconds."""
DAY: Final = 86_400 * 10**9
NAMES: Final = 1 + [step.name for step in STEPS].index("names")
"""The version of the step that brings the sums of names."""


def test_names_find_their_ids_in_a_store_that_has_no_sums_of_them_yet(tmp_path: Path) -> None:
    """As in one that was made by an earlier version, until it is migrated; and after that from the sums."""
    records = [
        record("shop.order.update", "UPDATE", at=BEGIN + number, actor=Actor("7", "user", name))
        for number, name in enumerate(["ana", "", "ana", ""])
    ]
    with serving(tmp_path) as running, AuditStore(running.clickhouse) as store:
        land(store._client, records)
    named = 'result.append("actor_names" in str(connection.rows("SHOW CREATE TABLE otel.audit_events")))\n'
    drop = 'connection.query("ALTER TABLE otel.audit_events DROP PROJECTION actor_names")\n'
    undo = f"DELETE WHERE version = {NAMES} SETTINGS mutations_sync = 1"
    assert in_stopped_server(tmp_path, named + drop + named) == [True, False]
    with serving(tmp_path) as running, AuditStore(running.clickhouse) as store:
        assert len(store.query(actor="ana")) == 4
    in_stopped_server(tmp_path, f'connection.query("ALTER TABLE otel.otel_audit_migrations {undo}")\n')
    with serving(tmp_path) as running, AuditStore(running.clickhouse) as store:
        assert len(store.query(actor="ana")) == 4
    assert in_stopped_server(tmp_path, named) == [True]


_COMPARE: Final = """
QUESTIONS = [
    "SELECT toDate(timestamp) AS day, action, count() AS n FROM otel.audit_events WHERE ordinal = 0 "
    "GROUP BY day, action ORDER BY day, action",
    "SELECT toDate(timestamp) AS day, outcome, count() AS n FROM otel.audit_events "
    "WHERE target_type = 'shop.Order' AND day >= '2026-09-10' GROUP BY day, outcome ORDER BY day, outcome",
    "SELECT action AS word, count() AS n FROM otel.audit_events WHERE ordinal = 0 AND log IN ['audit'] "
    "GROUP BY word ORDER BY word",
]
def compare():
    for sql in QUESTIONS:
        summed = connection.rows(sql)
        connection.query("SET optimize_use_projections = 0")
        looked_at = connection.rows(sql)
        connection.query("SET optimize_use_projections = 1")
        plan = str(connection.rows("EXPLAIN " + sql))
        result.append([summed, looked_at, "per_day" in plan])
"""


def made(chance: Chance, number: int) -> AuditRecord:
    """Make the record of a change, one in ten of them of many rows at once."""
    bulk = Bulk(3, ["1", "2", "3"], [Column("status", new=["a", "b", "c"])]) if number % 10 == 0 else None
    return record(
        "shop.order.update",
        chance.choice(("CREATE", "UPDATE", "DELETE")),
        at=BEGIN + chance.randrange(40 * DAY),
        outcome=chance.choice(("success", "failure")),
        target=Target(chance.choice(("shop.Order", "shop.Item")), "" if bulk else str(number)),
        bulk=bulk,
    )


def test_sums_are_what_counting_row_by_row_gives(tmp_path: Path) -> None:
    """Of rows that came twice, before and after they are merged, after some were deleted or rewritten."""
    chance = Chance(12)
    records = [made(chance, number) for number in range(400)]
    with serving(tmp_path) as running, AuditStore(running.clickhouse) as store:
        for begin in range(0, 400, 100):
            land(store._client, records[begin : begin + 100])
        land(store._client, records[150:300])
    result: list[Any] = in_stopped_server(
        tmp_path,
        _COMPARE
        + """
compare()
connection.query("OPTIMIZE TABLE otel.audit_events FINAL")
compare()
connection.query(
    "ALTER TABLE otel.audit_events UPDATE message = 'rewritten' WHERE 1 SETTINGS mutations_sync = 1"
)
compare()
connection.query(
    "ALTER TABLE otel.audit_events MODIFY TTL "
    "timestamp + toIntervalYear(if(toDate(timestamp) < '2026-09-15', -50, 50)) DELETE "
    "SETTINGS mutations_sync = 1"
)
connection.query("OPTIMIZE TABLE otel.audit_events FINAL")
compare()
""",
    )
    assert all(summed == looked_at for summed, looked_at, _ in result), result
    assert all(from_sums for _, _, from_sums in result)
    before, merged, rewritten, deleted = (
        sum(int(row[2]) for row in result[step * 3][0]) for step in range(4)
    )
    assert merged == rewritten == 400 < before
    assert 0 < deleted < 400
