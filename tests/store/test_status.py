"""How a store is: what it holds, what it lacks, and what a cluster's hosts say."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from otel_audit.audit_record import Target
from otel_audit.store.client import StoreClient
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import State, expected, migrate, plan
from otel_audit.store.retention import Retention
from otel_audit.store.status import read_status
from otel_audit.store.tables import CURRENT
from tests.store.test_layout import CLUSTER, Cluster, journal
from tests.trail import land, record, serving

NOW = time.time_ns()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreClient]:
    variables: dict[str, Any] = {"OTEL_AUDIT_STORE_RETENTION": "pageview=30d"}
    with serving(tmp_path_factory.mktemp("status"), **variables) as server:
        client = StoreClient(server.clickhouse)
        yield client
        client.close()


def test_a_store_says_what_it_holds_how_much_and_from_when_to_when(client: StoreClient) -> None:
    made = [
        record("a.b", "READ", at=NOW - number * 10**9, target=Target("a.B"), log=log)
        for number, log in enumerate(["audit", "audit", "audit", "pageview"])
    ]
    land(client, made)
    found = read_status(client.rows, Layout())
    assert (found.version, found.pending, found.missing, found.complete) == (CURRENT, [], {}, True)
    by_name = {each.name: each for each in found.tables}
    assert list(by_name) == [
        *("audit_events", "activity_events", "pageview_events", "other_events", "otel_logs", "otel_traces"),
        "otel_audit_metrics",
    ]
    audit = by_name["audit_events"]
    assert (audit.rows, audit.parts, audit.retention) == (3, 1, "")
    assert (audit.oldest, audit.newest) == (NOW - 2 * 10**9, NOW)
    assert audit.bytes > 0
    assert by_name["pageview_events"].retention == "timestamp + INTERVAL 30 DAY DELETE"
    activity = by_name["activity_events"]
    assert (activity.rows, activity.bytes, activity.oldest, activity.newest) == (0, 0, 0, 0)


def test_an_empty_server_lacks_everything() -> None:
    found = read_status(lambda sql: [], Layout())
    assert (found.version, found.complete, found.tables) == (0, False, [])
    assert found.missing == {"": sorted(expected(Layout()))}
    assert found.pending == [change.name for change in plan(State(), Layout()) if change.name]


class Answering(Cluster):
    """A cluster that tells of its parts and replicas too."""

    def __call__(self, sql: str) -> Sequence[Sequence[Any]]:
        if "system.parts" in sql:
            assert "clusterAllReplicas('main', system.parts)" in sql
            return [["a", "audit_events_local", 10, 1000, 2], ["b", "audit_events_local", 7, 700, 1]]
        if "system.replicas" in sql:
            return [["a", "audit_events_local", 0, 0, 0], ["b", "audit_events_local", 1, 90, 12]]
        if "min(" in sql:
            return [[5, 9]] if "otel.audit_events" in sql else [[0, 0]]
        return super().__call__(sql)


def test_a_cluster_is_told_of_host_by_host() -> None:
    whole = expected(CLUSTER)
    cluster = Answering({"a": whole, "b": whole - {"pageview_log"}}, journal=journal())
    found = read_status(cluster, CLUSTER)
    assert found.missing == {"b": ["pageview_log"]}
    assert found.pending == ["missing tables: pageview_log"]
    audit = [(each.host, each.rows, each.newest) for each in found.tables if each.name == "audit_events"]
    assert audit == [("a", 10, 9), ("b", 7, 9)]
    assert [(each.host, each.delay, each.queue) for each in found.stuck] == [("b", 90, 12)]
    assert not found.complete
    assert migrate(cluster, CLUSTER, Retention()) == ["missing tables: pageview_log"]
