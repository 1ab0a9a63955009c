"""Fewer indexes take less room and change no answer, whenever they are chosen."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from otel_audit.store.client import StoreClient
from otel_audit.store.filters import Filters
from otel_audit.store.query import AuditStore
from otel_audit.store.tables import INDEXES
from tests.store.test_same_answers import any_record
from tests.trail import land, serving

MADE = """
SELECT create_table_query FROM system.tables WHERE name IN ('other_events', 'audit_events')
ORDER BY name = 'audit_events'
"""
TRACES = [f"{number:032x}" for number in range(1, 5)]
QUESTIONS = (
    Filters(),
    Filters(text="refund order"),
    Filters(text="paid", log="*"),
    Filters(trace_id=TRACES[0]),
    Filters(trace_id=TRACES[1], log="*"),
    Filters(trace_id="f" * 32),
    Filters(request_id="r-1"),
    Filters(field="status=paid"),
    Filters(target="shop.Order/1", actor="ana"),
    Filters(text="order", request_id="r-2", outcome="failure"),
)


def test_a_store_answers_the_same_with_any_selection(tmp_path: Path) -> None:
    """Of records that came before it, while it was in force and after it."""
    chance = random.Random(5)
    records = [
        msgspec.structs.replace(any_record(chance), trace_id=chance.choice(TRACES)) for _ in range(120)
    ]
    answers = []
    for indexes in ("all", "small", "small", "all"):
        with serving(tmp_path, OTEL_AUDIT_STORE_INDEXES=indexes) as running:
            client = StoreClient(running.clickhouse)
            land(client, records)  # from the second round on they were there before, and are there again
            made = client.rows(MADE)
            for name in {name for each in INDEXES.values() for name in each}:
                assert (f"INDEX {name} " in made[0][0]) == (name in INDEXES[indexes]), (name, indexes)
                has = name in INDEXES[indexes] and name != "ix_requests"  # no request is ever counted there
                assert (f"INDEX {name} " in made[1][0]) == has, (name, indexes)
            with AuditStore(client.config) as store:
                pages = [store.find(question, limit=1000) for question in QUESTIONS]
            answers.append([[(each.id, each.ordinal) for each in page] for page in pages])
            client.close()
    assert all(each == answers[0] for each in answers)
    assert [bool(found) for found in answers[0]].count(True) >= len(QUESTIONS) - 2
