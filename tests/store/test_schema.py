"""What the store makes of a record: columns people ask for, a row a target, and the record itself again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Database,
    Request,
    Sequence,
    Source,
    Target,
    new_record_id,
)
from otel_audit.semconv import RECORD_ID, from_attributes, to_attributes
from otel_audit.store.client import StoreClient
from otel_audit.store.columns import TEXT_COLUMNS, attribute
from otel_audit.store.schema import LOGS
from tests.server import otlp_messages
from tests.trail import Serving, land, record, records, sent, serving

NOW = 1_790_000_000_123_456_789
HOSTILE = 'it\'s \\ "quoted" {x:String}\n\t\0 ü 日本 \U0001f600'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("schema")) as running:
        yield running


@pytest.fixture(scope="module")
def store(server: Serving) -> Iterator[StoreClient]:
    client = StoreClient(server.clickhouse)
    yield client
    client.close()


def send(server: Serving, *made: AuditRecord) -> None:
    """Send records as our sender does."""
    body = otlp_messages.audit(made).SerializeToString()
    answer = httpx.post(
        f"{server.http}/v1/audit",
        content=body,
        headers={"Content-Type": "application/x-protobuf"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


def rows(store: StoreClient, record_id: str) -> list[dict[str, Any]]:
    """Return the rows of a record in their order."""
    each = " UNION ALL ".join(f"SELECT * FROM otel.{log.name}_trail" for log in LOGS)
    return store.query(
        f"SELECT *, toUnixTimestamp64Nano(timestamp) AS time FROM ({each}) "
        "WHERE record_id = {id:UUID} ORDER BY ordinal",
        {"id": record_id},
    )


def rebuilt(row: dict[str, Any]) -> AuditRecord:
    """Make the record again from what the store kept, all of it text."""
    assert all(type(value) is str for value in row["attributes"].values())
    return from_attributes(
        row["attributes"],
        timestamp=row["time"],
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        message=row["message"],
    )


FULL = AuditRecord(
    id=new_record_id(NOW),
    timestamp=NOW,
    observed_timestamp=NOW + 5,
    event_name="shop.order.update",
    action="UPDATE",
    outcome="failure",
    log="activity",
    actor=Actor("7", "user", "ana", "9"),
    target=Target("shop.Order", "7/ü"),
    source=Source("2001:db8::1", "ipv6", "curl/8", "f00"),
    request=Request("r-1", "POST", "orders/<int:pk>/", "/orders/7/", "shop.views.edit"),
    database=Database("postgresql", "shop", "shop_order", "t-1"),
    changes=[
        Change("status", "draft", "paid"),
        Change("note", None, HOSTILE),
        Change("total", "1.00", "12.50", "decimal"),
        Change("rank", UNSET, 18446744073709551615),
        Change("ratio", 0.5, [1, {"a": True}]),
        Change("empty", "", None),
    ],
    old_values="exact",
    message=HOSTILE,
    reason="a ticket",
    tenant="acme",
    system="app",
    event_type="legal",
    error="IntegrityError",
    code="shop.views.edit",
    related=[Target("shop.Customer", "3"), Target("shop.Shop")],
    attributes={HOSTILE: HOSTILE, "n": 1.5},
    truncated=True,
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    span_id="00f067aa0ba902b7",
    sequence=Sequence("0191-stream", 42, "aa" * 32, new_record_id(NOW), end=True),
)


def bulk(bulk: Bulk | None, **values: Any) -> AuditRecord:
    """Make a record about many objects."""
    return record("shop.product.update", "UPDATE", at=NOW, target=Target("shop.Product"), bulk=bulk, **values)


def test_each_part_of_a_record_people_ask_for_has_its_column(server: Serving, store: StoreClient) -> None:
    """Every column that is one attribute holds that part of the record."""
    send(server, FULL)
    (row,) = rows(store, FULL.id)
    for column, path in TEXT_COLUMNS.items():
        group, _, member = path.partition(".")
        value = getattr(FULL, group)
        assert row[column] == (getattr(value, member) if member else value), column
    assert (row["service"], row["resource"]["host.name"]) == ("shop", "web-1")
    assert (row["target"], row["target_id"], row["ordinal"]) == ("shop.Order/7/ü", "7/ü", 0)
    assert (row["sequence"], row["truncated"], row["time"]) == (42, True, NOW)
    assert (row["trace_id"], row["span_id"], row["message"]) == (FULL.trace_id, FULL.span_id, HOSTILE)
    assert row["related"] == ["shop.Customer/3", "shop.Shop"]


def test_what_many_rows_are_related_to_stands_at_the_record_and_not_at_each_row(
    server: Serving, store: StoreClient
) -> None:
    """It would be the square of the rows else: a relation of a thousand rows has a thousand ends."""
    related = [Target("shop.Order", "7"), Target("shop.Tag", "1"), Target("shop.Tag", "2")]
    added = bulk(Bulk(2, ["5", "6"], [Column("tag", new=[1, 2])]), related=related)
    send(server, added)
    found = {row["ordinal"]: row["related"] for row in rows(store, added.id)}
    assert found == {0: ["shop.Order/7", "shop.Tag/1", "shop.Tag/2"], 1: [], 2: []}


def test_changes_are_text_that_says_what_was_known(server: Serving, store: StoreClient) -> None:
    """A NULL, a value not known and an empty text are three different things."""
    changed = msgspec.structs.replace(FULL, id=new_record_id(NOW))
    send(server, changed)
    (row,) = rows(store, changed.id)
    found = list(zip(*(row[f"changes.{part}"] for part in ("field", "old", "new", "known")), strict=True))
    assert found == [
        ("status", "draft", "paid", "vv"),
        ("note", "", HOSTILE, "nv"),
        ("total", "1.00", "12.50", "vv"),
        ("rank", "", "18446744073709551615", "-v"),
        ("ratio", "0.5", '[1,{"a":true}]', "vv"),
        ("empty", "", "", "vn"),
    ]
    assert row["changes.type"] == ["", "", "decimal", "", "", ""]


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],  # shrinking against a server takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(records, min_size=1, max_size=8))
def test_any_record_is_rebuilt_from_text(
    server: Serving, store: StoreClient, made: list[AuditRecord]
) -> None:
    """What the store keeps gives the very record that was sent, and the very attributes."""
    made = list(map(sent, made))
    send(server, *made)
    for one in made:
        row = rows(store, one.id)[0]
        assert rebuilt(row) == one
        assert to_attributes(rebuilt(row)) == to_attributes(one)


def test_a_bulk_record_becomes_a_row_a_target(server: Serving, store: StoreClient) -> None:
    """The record itself comes first and whole, then each object with its own old and new values."""
    many = bulk(
        Bulk(
            3,
            ["1", "ü/2", "3"],
            [
                Column("price", ["1.00", None, "3.00"], ["1.50", "2.50", None], "decimal"),
                Column("stock", new=[5, 0, -1]),
                Column("tags", old=[["a"], [], None]),
            ],
        ),
        message="prices up",
    )
    send(server, many)
    head, *each = rows(store, many.id)
    assert rebuilt(head) == many
    assert (head["target"], head["row_count"]) == ("shop.Product", 3)
    assert head["changes.field"] == ["price", "stock", "tags"]
    assert head["changes.known"] == ["--", "--", "--"]
    assert [(row["ordinal"], row["target"]) for row in each] == [
        (1, "shop.Product/1"),
        (2, "shop.Product/ü/2"),
        (3, "shop.Product/3"),
    ]
    assert [row["changes.old"] for row in each] == [
        ["1.00", "", '["a"]'],
        ["", "", "[]"],
        ["3.00", "", ""],
    ]
    assert [row["changes.new"] for row in each] == [["1.50", "5", ""], ["2.50", "0", ""], ["", "-1", ""]]
    assert [row["changes.known"] for row in each] == [
        ["vv", "-v", "v-"],
        ["nv", "-v", "v-"],
        ["vn", "-v", "n-"],
    ]
    for row in each:
        assert (row["attributes"], row["resource"]) == ({}, {})
        assert (row["message"], row["action"], row["time"]) == ("prices up", "UPDATE", NOW)


def test_a_thousand_rows_of_one_statement_are_a_thousand_objects(server: Serving, store: StoreClient) -> None:
    """The largest record there is: each object keeps its own values."""
    keys = [str(number) for number in range(1000)]
    columns = [
        Column(f"f{place}", [f"{key}-old-{place}" for key in keys], [f"{key}-new-{place}" for key in keys])
        for place in range(5)
    ]
    many = bulk(Bulk(1000, keys, columns, id="b-1", part=2, parts=3))
    send(server, many)
    (counted,) = store.query(
        "SELECT count() AS n, "
        "countIf(changes.old = arrayMap(i -> concat(target_id, '-old-', toString(i)), range(5)) "
        "AND changes.new = arrayMap(i -> concat(target_id, '-new-', toString(i)), range(5))) AS right "
        "FROM otel.audit_trail WHERE record_id = {id:UUID} AND ordinal > 0",
        {"id": many.id},
    )
    assert counted == {"n": 1000, "right": 1000}


@pytest.mark.parametrize(
    ("one", "fields", "targets"),
    [
        (
            bulk(Bulk(2, ["1", "2"]), fields=["card", "iban"], completeness="ids"),
            ["card", "iban"],
            ["shop.Product", "shop.Product/1", "shop.Product/2"],
        ),
        (bulk(Bulk(5000), completeness="count"), [], ["shop.Product"]),
        (bulk(None, fields=["price"], completeness="statement"), ["price"], ["shop.Product"]),
        (bulk(Bulk(0)), [], ["shop.Product"]),
    ],
    ids=["ids", "count", "statement", "none"],
)
def test_what_is_not_known_of_many_objects_is_not_made_up(
    server: Serving, store: StoreClient, one: AuditRecord, fields: list[str], targets: list[str]
) -> None:
    """Without keys there is the record alone; without values there are the objects and the fields."""
    send(server, one)
    found = rows(store, one.id)
    assert [row["target"] for row in found] == targets
    for row in found:
        assert row["changes.field"] == fields
        assert row["changes.known"] == ["--"] * len(fields)
        assert row["completeness"] == one.completeness
        assert row["row_count"] == (one.bulk.count if one.bulk else 0)


def test_arrays_that_do_not_fit_each_other_are_kept_as_far_as_they_go(
    server: Serving, store: StoreClient
) -> None:
    """A broken producer gets its record stored and its rows numbered, and nobody else's values."""
    broken = bulk(Bulk(2, ["1", "2"], [Column("a", ["x"], ["p", "q", "r"]), Column("b", new=["s", "t"])]))
    send(server, broken)
    head, *each = rows(store, broken.id)
    assert rebuilt(head) == broken
    assert [row["changes.old"] for row in each] == [["x", ""], ["", ""]]
    assert [row["changes.new"] for row in each] == [["p", "s"], ["q", "t"]]
    assert each[1]["changes.known"] == ["-v", "-v"]


def test_a_record_from_a_collector_is_the_same_as_one_from_our_sender(
    server: Serving, store: StoreClient
) -> None:
    """The exporter's INSERT into the landing table and OTLP give the same rows."""
    ours = [
        msgspec.structs.replace(FULL, id=new_record_id(NOW)),
        bulk(Bulk(1, ["1"], [Column("a", [1], [2])])),
    ]
    theirs = [msgspec.structs.replace(one, id=new_record_id(NOW)) for one in ours]
    send(server, *ours)
    land(store, theirs)
    for mine, other in zip(ours, theirs, strict=True):
        expected = rows(store, mine.id)
        found = rows(store, other.id)
        assert len(expected) == len(found)
        for left, right in zip(expected, found, strict=True):
            for name in left.keys() - {"record_id", "attributes", "resource"}:
                assert left[name] == right[name], name
            assert left["attributes"].keys() == right["attributes"].keys()


def test_a_record_sent_again_is_seen_once(server: Serving, store: StoreClient) -> None:
    """Alone, in another batch and through the Collector: each row is there once, at once and for good."""
    again = msgspec.structs.replace(FULL, id=new_record_id(NOW), log="audit")
    many = bulk(Bulk(2, ["1", "2"], [Column("a", [1, 2], [3, 4])]))
    send(server, again, many)
    send(server, again)
    send(server, many, again, record("x.y.read", "READ", at=NOW))
    land(store, [again, many])
    assert [row["ordinal"] for row in rows(store, again.id)] == [0]
    assert [row["ordinal"] for row in rows(store, many.id)] == [0, 1, 2]
    once = store.query(
        "SELECT record_id FROM otel.audit_events WHERE record_id IN ({a:UUID}, {b:UUID}) "
        "LIMIT 1 BY record_id",
        {"a": again.id, "b": many.id},
    )
    assert {row["record_id"] for row in once} == {again.id, many.id}


@pytest.mark.parametrize("identifier", ["", "nonsense", "01a2091d-b343-7f43-89f8", "é" * 18])
def test_a_record_without_a_valid_id_is_kept_as_an_ordinary_log(
    server: Serving, store: StoreClient, identifier: str
) -> None:
    """It is no audit record, but not lost either, whichever way it comes."""
    marker = str(uuid.uuid4())
    wrong = record("x.y.z", "READ", at=NOW, id=identifier, reason=marker)
    send(server, wrong)
    land(store, [wrong])
    kept = store.query(
        "SELECT LogAttributes AS attributes FROM otel.otel_logs "
        "WHERE has(mapValues(LogAttributes), {marker:String})",
        {"marker": marker},
    )
    assert [row["attributes"][RECORD_ID] for row in kept] == [identifier, identifier]
    assert not store.query(
        "SELECT 1 FROM otel.audit_events WHERE reason = {marker:String}", {"marker": marker}
    )


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("target = 'shop.Order/7'", "ix_target"),
        ("actor_id = '7'", "ix_actor"),
        ("trace_id = '4bf9'", "ix_trace"),
        ("request_id = 'r-1'", "ix_request"),
        ("has(related, 'shop.Customer/3')", "ix_related"),
        ("has(changes.field, 'status')", "ix_field"),
        ("has(change_items, 'status=paid')", "ix_items"),
        ("hasAllTokens(search_text, ['ticket'])", "ix_text"),
        ("record_id = '01a2091d-b343-7f43-89f8-fff4a1fed36c'", "ix_record"),
    ],
)
def test_questions_by_exact_value_use_an_index(
    server: Serving, store: StoreClient, condition: str, index: str
) -> None:
    """Each question of the query code narrows by its index before rows are read."""
    send(server, FULL)
    plan = store.rows(f"EXPLAIN indexes = 1 SELECT record_id FROM otel.audit_events WHERE {condition}")
    assert any(f"Name: {index}" in str(line) for line in plan), plan


def test_an_attribute_no_schema_version_knows_has_no_expression() -> None:
    """A typo in a column's path fails at import of the schema, not in the store."""
    with pytest.raises(KeyError, match=r"actor\.nme"):
        attribute("actor.nme")
