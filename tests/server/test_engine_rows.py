"""Requests the engine reads itself give the rows that ours do; what is unusual is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_audit.audit_record import Bulk, Change, Column, Target, new_record_id
from otel_audit.semconv import RECORD_ID
from otel_audit.server.engine import native
from otel_audit.server.otlp.engine_rows import block_by_engine, rows_by_engine
from otel_audit.server.otlp.rows import Rows, log_rows
from otel_audit.store.client import StoreClient
from otel_audit.store.schema import LOGS, events
from tests.server.otlp_messages import any_value, audit, key_values, logs
from tests.trail import DRIVER, record, serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}
NOW = 1_790_000_000 * 10**9
UNKNOWN_FIELD = b"\xf8\x07\x01"
"""What a description does not have: with it a request is ours to make rows of."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, StoreClient]]:
    with serving(tmp_path_factory.mktemp("direct")) as server:
        store = StoreClient(server.clickhouse)
        with httpx.Client(base_url=server.http, timeout=30) as otlp:
            yield otlp, store
        store.close()


def entry(log: str | None = None, **attributes: Any) -> dict[str, Any]:
    """Return the least there is to a record, with a body that says which it is."""
    found = {RECORD_ID: new_record_id(), "audit.action": "READ", **attributes}
    if log is not None:
        found["otel_audit.log"] = log
    return {"time": NOW, "body": found[RECORD_ID], "attributes": found}


def kept(store: StoreClient, table: str, ids: list[str]) -> list[dict[str, Any]]:
    """Return the rows a table has of some records, ordered, without the record's own id."""
    return store.query(
        "SELECT * EXCEPT (record_id, message, attributes), "
        f"mapFilter((k, v) -> k != '{RECORD_ID}', attributes) AS others "
        f"FROM otel.{table} WHERE has(splitByChar(',', {{ids:String}}), toString(record_id)) "
        "ORDER BY timestamp, ordinal",
        {"ids": ",".join(ids)},
    )


def test_nothing_is_written_where_the_server_happens_to_run(tmp_path: Path) -> None:
    """The engine keeps a copy of a description within a statement; a container's root may be read-only."""
    body = logs([entry(note="where")]).SerializeToString()
    assert rows_by_engine(body) is not None
    with serving(tmp_path) as server:
        assert httpx.post(f"{server.http}/v1/audit", content=body, headers=PROTOBUF).status_code == 200
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_both_ways_give_the_same_rows(client: tuple[httpx.Client, StoreClient]) -> None:
    """Changes, bulk rows, every kind of plain value, several resources, unset and repeated attributes."""
    otlp, store = client
    records = [
        record(
            "shop.order.update",
            "UPDATE",
            at=NOW,
            changes=[Change("a", "ü", None), Change("b", None, "1", "int")],
        ),
        record(
            "shop.order.update",
            "UPDATE",
            at=NOW + 1,
            target=Target("shop.Order"),
            bulk=Bulk(
                count=3,
                keys=["1", "2", "3"],
                columns=[Column("state", old=["a", None, "c"], new=["x", "y", "z"])],
            ),
        ),
    ]
    plain = audit(records)
    [scope] = plain.resource_logs[0].scope_logs
    values = {
        "zero": 0,
        "least": -(2**63),
        "false": False,
        "true": True,
        "empty": "",
        "": "no key",
        "unset": None,
    }
    scope.log_records[0].attributes.extend(key_values(values))
    scope.log_records[0].attributes.extend(key_values({"empty": "again"}))
    scope.log_records[0].body.CopyFrom(any_value(7))
    again = ExportLogsServiceRequest.FromString(plain.SerializeToString())
    again.resource_logs[0].resource.attributes[0].value.string_value = "billing"
    other = new_record_id()
    for number, log in enumerate(again.resource_logs[0].scope_logs[0].log_records):
        log.time_unix_nano, log.observed_time_unix_nano = 0, NOW + 10**9 + number
        for pair in log.attributes:
            if pair.key == RECORD_ID:
                pair.value.string_value = f"{other[:-2]}{number:02}"
    plain.resource_logs.extend(again.resource_logs)
    body = plain.SerializeToString()
    made = rows_by_engine(body)
    assert made is not None
    assert (made.table, made.size) == ("audit_events", 4)
    ids = [
        pair.value.string_value
        for resource in plain.resource_logs
        for log in resource.scope_logs[0].log_records
        for pair in log.attributes
        if pair.key == RECORD_ID
    ]
    assert otlp.post("/v1/logs", content=body, headers=PROTOBUF).status_code == 200
    found = kept(store, "audit_events", ids)
    assert len(found) == 2 * (1 + 4)

    # The same, under other ids, with one field the description does not have.
    fresh = {each: new_record_id() for each in ids}
    for resource in plain.resource_logs:
        for log in resource.scope_logs[0].log_records:
            for pair in log.attributes:
                if pair.key == RECORD_ID:
                    pair.value.string_value = fresh[pair.value.string_value]
    slow = plain.SerializeToString() + UNKNOWN_FIELD
    assert rows_by_engine(slow) is None
    assert otlp.post("/v1/logs", content=slow, headers=PROTOBUF).status_code == 200
    assert kept(store, "audit_events", list(fresh.values())) == found

    # The same, under other ids again, in a block such as the Collector sends.
    again_fresh = {each: new_record_id() for each in fresh.values()}
    for resource in plain.resource_logs:
        for log in resource.scope_logs[0].log_records:
            for pair in log.attributes:
                if pair.key == RECORD_ID:
                    pair.value.string_value = again_fresh[pair.value.string_value]
    [rows] = log_rows(plain.SerializeToString())
    assert block_by_engine(rows.table, rows.columns, rows.block, 0) is not None
    insert(store, rows)
    assert kept(store, "audit_events", list(again_fresh.values())) == found


def insert(store: StoreClient, rows: Rows) -> None:
    """Insert a block over the query port, as the Collector's exporter does."""
    statement = f"INSERT INTO otel.{rows.table} ({', '.join(rows.columns)}) FORMAT Native"
    answer = httpx.post(
        store.config.url, params={"query": statement}, content=rows.block, headers=DRIVER, timeout=30
    )
    assert answer.status_code == 200, answer.text


def test_a_block_with_strays_is_parted_by_the_views(client: tuple[httpx.Client, StoreClient]) -> None:
    """Records of another log and what is no record go where they belong, the others into their table."""
    _, store = client
    entries = [entry("audit"), entry("activity"), {**entry("audit"), "attributes": {RECORD_ID: "no id"}}]
    [*parts] = log_rows(logs([entries[0], entries[2]]).SerializeToString())
    [stray] = log_rows(logs([entries[1]]).SerializeToString())
    for rows in (*parts, stray._replace(table="audit_log")):
        assert block_by_engine(rows.table, rows.columns, rows.block, 0) is not None
        insert(store, rows)
    for table, each in (("audit_events", entries[0]), ("other_events", entries[1])):
        assert len(kept(store, table, [each["attributes"][RECORD_ID]])) == 1
    lost = store.query(
        "SELECT count() AS n FROM otel.otel_logs WHERE Body = {body:String}", {"body": entries[2]["body"]}
    )
    assert lost == [{"n": 1}]


def test_a_block_that_lacks_a_column_goes_through_the_views() -> None:
    """What a client leaves out has its default in the landing table; the engine would miss it."""
    [rows] = log_rows(logs([entry()]).SerializeToString())
    assert block_by_engine(rows.table, (), rows.block, 0) is None
    assert block_by_engine(rows.table, rows.columns[1:], rows.block, 0) is None
    assert block_by_engine("otel_logs", rows.columns, rows.block, 0) is None


@pytest.mark.parametrize("log", [each.name for each in LOGS])
def test_records_of_one_log_go_to_its_table(client: tuple[httpx.Client, StoreClient], log: str) -> None:
    """Through the engine, or row by row."""
    otlp, store = client
    for ending in (b"", UNKNOWN_FIELD):
        sent = [entry(log) for _ in range(3)]
        body = logs(sent).SerializeToString() + ending
        assert otlp.post("/v1/logs", content=body, headers=PROTOBUF).status_code == 200
        assert len(kept(store, events(log), [each["body"] for each in sent])) == 3


def test_a_request_of_several_logs_is_parted(client: tuple[httpx.Client, StoreClient]) -> None:
    """Each record in the table of its log, ordinary logs among them, all there when it is acknowledged."""
    otlp, store = client
    sent = {log: entry(log) for log in ("audit", "activity", "pageview", "billing")}
    unnamed, invalid = entry(), entry("activity")
    invalid["body"] = new_record_id()
    invalid["attributes"][RECORD_ID] = "x"
    ordinary = {"time": NOW, "body": new_record_id()}
    body = logs([*sent.values(), unnamed, invalid, ordinary]).SerializeToString()
    assert rows_by_engine(body) is None
    assert otlp.post("/v1/audit", content=body, headers=PROTOBUF).status_code == 200
    for log, each in sent.items():
        assert len(kept(store, events(log), [each["body"]])) == 1
    assert len(kept(store, "audit_events", [unnamed["body"]])) == 1
    for each in (invalid, ordinary):
        found = store.query("SELECT Body FROM otel.otel_logs WHERE Body = {b:String}", {"b": each["body"]})
        assert len(found) == 1


@pytest.mark.parametrize("value", [1.5, b"\0", ["a"], {"a": 1}], ids=["double", "bytes", "list", "map"])
def test_other_kinds_of_value_are_ours_to_write(value: Any) -> None:
    """The engine would drop them."""
    assert rows_by_engine(logs([entry("audit")]).SerializeToString()) is not None
    assert rows_by_engine(logs([entry("audit", odd=value)]).SerializeToString()) is None


def test_what_is_not_plain_is_ours_to_judge() -> None:
    """Texts that are not UTF-8, fields given twice, ids that are none, missing, or only mentioned."""
    usual = entry("audit")
    body = logs([usual]).SerializeToString()
    assert rows_by_engine(body) is not None
    assert rows_by_engine(body.replace(b"READ", b"R\xffAD")) is None
    assert rows_by_engine(body[:-1]) is None
    assert rows_by_engine(body.replace(usual["body"].encode(), b"x" * 36)) is None
    assert rows_by_engine(logs([usual, {"time": NOW, "body": "a"}]).SerializeToString()) is None
    assert rows_by_engine(logs([entry("audit"), entry("activity")]).SerializeToString()) is None
    assert rows_by_engine(logs([entry("audit", note="audit.record.id")]).SerializeToString()) is None
    resource = b"\x0a\x02\x0a\x00"  # a second resource for the same records
    fields = logs([usual]).resource_logs[0].SerializeToString() + resource
    twice = b"\x0a" + native.varint(len(fields)) + fields
    assert len(ExportLogsServiceRequest.FromString(twice).resource_logs) == 1
    assert rows_by_engine(twice) is None


def test_a_text_that_poses_as_the_id_of_a_record_loses_nothing(
    client: tuple[httpx.Client, StoreClient],
) -> None:
    """Judged by its bytes it is a record; the engine finds it is none, and it is kept as an ordinary log."""
    otlp, store = client
    poses = "\n\x0faudit.record.id\x12&\n$" + new_record_id()
    marker = new_record_id()
    honest = entry("audit")
    body = logs([{"time": NOW, "body": marker, "attributes": {"note": poses}}]).SerializeToString()
    assert rows_by_engine(body) is not None
    assert otlp.post("/v1/logs", content=body, headers=PROTOBUF).status_code == 200
    assert (
        otlp.post("/v1/logs", content=logs([honest]).SerializeToString(), headers=PROTOBUF).status_code == 200
    )
    assert len(store.query("SELECT * FROM otel.otel_logs WHERE Body = {b:String}", {"b": marker})) == 1
    assert len(kept(store, "audit_events", [honest["body"]])) == 1
