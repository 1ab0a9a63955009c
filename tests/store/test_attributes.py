"""What has a column is not stored again, and every attribute is there again as it was sent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

import httpx
import msgspec
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

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
from otel_audit.semconv import CURRENT_SCHEMA, RECORD_ID, SCHEMAS, to_attributes
from otel_audit.server.otlp.values import value_text
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from otel_audit.store.schema import LOGS
from tests.attack.chance import Chance
from tests.attack.effort import effort
from tests.server import otlp_messages
from tests.trail import Serving, land, record, sent, serving

NOW: Final = 1_790_000_000_123_456_789
DAY: Final = 86_400 * 10**9
BATCHES: Final = (60, 250, 900)
"""Records of a request: few, whose rows are made without SQL, and many."""
OTHERS: Final = (
    *(
        "",
        "0",
        "007",
        "-1",
        "+5",
        "1.0",
        "1e3",
        "true",
        "True",
        "FALSE",
        " true",
        "null",
        "[]",
        "{}",
        "[null]",
    ),
    *(
        '["a"]',
        '["a","b"]',
        '[ "a"]',
        '["a\\"b"]',
        "[1]",
        "[",
        '[{"field":"a"}]',
        '[{"field":"a","old":"1"}]',
    ),
    *('[{"field":"a","old":1}]', '[{"old":1,"field":"a"}]', '[{"field":"a","new":"true"}]', '[{"field":1}]'),
    *('[{"field":"a","new":-0}]', '[{"field":"a","new":1.50}]', '[{"field":"a","new":12345678901234567890}]'),
    *(
        '[{"field":"a","new":"1"},{"field":"b","new":2}]',
        '[{"field":"a","new":"x","type":""}]',
        '[{"field":"a"},]',
    ),
    *(
        '[{"field":"a","field":"b"}]',
        '[{"field":"a","old":null,"new":false}]',
        '[{"field":"é","new":"\\u00e9"}]',
    ),
    *(
        '[{"field":"a","new":{"old":1}}]',
        '[{"field":"a","new":"x"}] ',
        '[{"field":"a","x":1}]',
        "[{}]",
        "[1,2]",
    ),
)
"""Texts that look like those of our records, or nearly."""

Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("attributes")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[StoreClient]:
    client = StoreClient(server.clickhouse)
    yield client
    client.close()


def ordinary(chance: Chance) -> AuditRecord:
    """Make a record as applications do: short texts, numbers, dates and decimals."""
    at = NOW + chance.randrange(DAY)

    def value() -> tuple[object, str]:
        return chance.choice(
            (
                (chance.choice(("new", "paid", "", "true", "12", "7a", "-", "it's", "ü", "total")), ""),
                (chance.choice((0, 1, -7, 2**40, 10**18, True, False, None, 0.5)), ""),
                (f"{chance.randrange(10**6) / 100:.2f}", "decimal"),
                ("2026-11-23T12:00:00+00:00", "datetime"),
                (chance.text(), ""),
            )
        )

    changes = []
    for field in chance.sample(("status", "price", "owner_id", "is_active", "née"), chance.randrange(4)):
        (old, kind), (new, _) = value(), value()
        changes.append(chance.choice((Change(field, old, new, kind), Change(field, new=new, type=kind))))
    return record(
        "shop.order.update",
        chance.choice(("UPDATE", "READ")),
        at=at,
        log=chance.choice(("audit", "audit", "activity", "pageview", "billing")),
        outcome=chance.choice(("success", "failure", "unknown")),
        actor=chance.choice((Actor("7", "user", "ana"), Actor("", "system"), Actor("9", "user", "", "7"))),
        target=chance.choice((None, Target("shop.Order", str(chance.randrange(99))))),
        source=Source("203.0.113.7", "ipv4", "curl/8", "f00"),
        request=Request(
            str(uuid.UUID(int=chance.getrandbits(128))), "POST", "orders/<int:pk>/", "/orders/7/"
        ),
        database=Database("postgresql", "shop", "shop_order", "t-1"),
        changes=changes,
        fields=[] if changes else chance.some(lambda: chance.choice(("card", "iban", 'a"b', ""))),
        sequence=chance.choice((None, Sequence("s-1", chance.randrange(1, 9), "aa" * 32, new_record_id(at)))),
        truncated=chance.random() < 0.1,
        attributes=chance.choice(({}, {"n": 1.5})),
    )


def any_record(chance: Chance) -> AuditRecord:
    """Make an ordinary record, or one with anything in any part."""
    if chance.random() < 0.7:
        return ordinary(chance) if chance.random() < 0.9 else bulk(chance)
    made = sent(chance.of(AuditRecord))
    return msgspec.structs.replace(made, timestamp=NOW + chance.randrange(DAY))


def distorted(chance: Chance, pairs: list[KeyValue]) -> list[KeyValue]:
    """Change attributes as no sender of ours would: left out, there twice, spelt in another way."""
    pairs = [KeyValue.FromString(each.SerializeToString()) for each in pairs]
    for _ in range(chance.choice((0, 0, 1, 1, 3))):
        place = chance.randrange(len(pairs))
        key = pairs[place].key
        if key == RECORD_ID:
            value = pairs[place].value.string_value
            other = chance.choice((value, value.upper(), value.replace("-", "")))
            pairs[place].value.string_value = other
            continue
        match chance.randrange(4):
            case 0:
                del pairs[place]
            case 1:
                pairs.append(KeyValue(key=key, value=pairs[chance.randrange(len(pairs))].value))
            case 2:
                pairs.insert(0, KeyValue(key=key, value=AnyValue(string_value=chance.choice(OTHERS))))
            case _:
                pairs[place].value.string_value = chance.choice(OTHERS)
    return pairs


def bulk(chance: Chance) -> AuditRecord:
    """Make a record about several objects."""
    keys = [str(number) for number in range(chance.randrange(4))]
    column = Column("status", ["new"] * len(keys), ["paid"] * len(keys))
    return record(
        "shop.order.update",
        "UPDATE",
        at=NOW + chance.randrange(DAY),
        target=Target("shop.Order"),
        bulk=Bulk(len(keys), keys, chance.choice(([], [column]))),
        fields=chance.choice(([], ["status"])),
    )


def request(records: list[AuditRecord], pairs: list[list[KeyValue]]) -> ExportLogsServiceRequest:
    """Return the request of these records with other attributes."""
    made = otlp_messages.audit(records)
    for log, each in zip(made.resource_logs[0].scope_logs[0].log_records, pairs, strict=True):
        del log.attributes[:]
        log.attributes.extend(each)
    return made


def as_text(pairs: list[KeyValue]) -> Pairs:
    """Return attributes as the store has them."""
    return [(each.key, value_text(each.value)) for each in pairs]


def post(server: Serving, body: bytes) -> None:
    answer = httpx.post(
        f"{server.http}/v1/audit",
        content=body,
        headers={"Content-Type": "application/x-protobuf"},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text


def stored(client: StoreClient, ids: list[str]) -> dict[str, Pairs]:
    """Return the attributes of records as the public views show them."""
    each = " UNION ALL ".join(
        "SELECT toString(record_id) AS id, CAST(attributes, 'Array(Tuple(String, String))') AS pairs "
        f"FROM otel.{log.name}_trail WHERE ordinal = 0 AND record_id IN {{ids:Array(UUID)}}"
        for log in LOGS
    )
    parts = [ids[at : at + 400] for at in range(0, len(ids), 400)]  # as many as an address has room for
    rows = [row for part in parts for row in client.query(each, {"ids": part})]
    return {row["id"]: [(name, value) for name, value in row["pairs"]] for row in rows}


_KINDS: Final = SCHEMAS[CURRENT_SCHEMA].kinds()


def typed(pairs: Pairs) -> list[KeyValue]:
    """Return stored attributes of a record of ours as they were sent, with their types, sorted."""
    values = {
        "int": lambda text: AnyValue(int_value=int(text)),
        "bool": lambda text: AnyValue(bool_value=text == "true"),
    }
    return [
        KeyValue(
            key=name, value=values.get(_KINDS.get(name, ""), lambda text: AnyValue(string_value=text))(text)
        )
        for name, text in sorted(pairs)
    ]


def order_within_names(pairs: Pairs) -> Pairs:
    """Return pairs sorted by their names; those of one name stay in their order."""
    return sorted(pairs, key=lambda pair: pair[0])


@effort(short=10_000, long=100_000)
def test_every_attribute_comes_back_as_it_was_sent(server: Serving, client: StoreClient, rounds: int) -> None:
    """Names, texts, types of ours, the order of those that are there twice; sent to us and by a Collector."""
    chance = Chance(20261129)
    left, number = rounds, 0
    while left > 0:
        records = [any_record(chance) for _ in range(min(chance.choice(BATCHES), left))]
        left, number = left - len(records), number + 1
        pairs = [otlp_messages.key_values(to_attributes(each)) for each in records]
        way = number % 3
        if way:
            pairs = [distorted(chance, each) for each in pairs]
        if way == 2:  # as the Collector's exporter does; its rows are maps, without a name twice
            texts = [dict(as_text(each)) for each in pairs]
            land(client, records, attributes=texts)
            expected = [list(each.items()) for each in texts]
        else:
            post(server, request(records, pairs).SerializeToString())
            expected = [as_text(each) for each in pairs]
        found = stored(client, [each.id for each in records])
        assert len(found) == len(records)
        for each, wanted in zip(records, expected, strict=True):
            assert order_within_names(found[each.id]) == order_within_names(wanted), f"{number=} {way=}"
        if not way:  # as our sender sent them: the very bytes, but for the order
            for each, made in zip(records, pairs, strict=True):
                assert typed(found[each.id]) == sorted(made, key=lambda pair: pair.key)


def test_what_has_a_column_is_stored_once(server: Serving, client: StoreClient) -> None:
    """Of an ordinary record only the rest stands in the column of attributes, whichever way it came."""
    changes = [
        Change("status", "new", "paid"),
        Change("price", "1.00", "2.50", "decimal"),
        Change("note", None, "x"),
    ]
    numbers = [
        Change("owner_id", 7, 8),
        Change("is_active", True, False),
        Change("name", "ana", "née"),
        Change("n", 0),
    ]
    made = [
        record(
            "shop.order.update",
            "UPDATE",
            at=NOW,
            actor=Actor("7", "user", "ana"),
            target=Target("shop.Order", "7"),
            source=Source("203.0.113.7", "ipv4", "curl/8", "f00"),
            request=Request("r-1", "POST", "orders/<int:pk>/", "/orders/7/"),
            sequence=Sequence("s-1", 4, "aa" * 32),
            fields=["card", "iban"] if each == [] else [],
            changes=each,
        )
        for each in (changes, numbers, [])
    ]
    others = [msgspec.structs.replace(each, id=new_record_id(NOW)) for each in made]
    post(server, otlp_messages.audit(made).SerializeToString())
    land(client, others)
    rest = {"audit.source.type", "user_agent.original", "audit.sequence.previous_hash"}
    for each in (*made, *others):
        rows = client.query(
            "SELECT attributes FROM otel.audit_events WHERE record_id = {id:UUID}", {"id": each.id}
        )
        assert [row["attributes"].keys() for row in rows] == [rest]


def test_the_views_answer_questions_about_attributes_as_before(server: Serving, client: StoreClient) -> None:
    """By name, by key, as a whole and in conditions, whether the attribute has a column or not."""
    marker = str(uuid.uuid4())
    made = record("x.y", "UPDATE", at=NOW, reason=marker, source=Source("203.0.113.7", "ipv4"), tenant="acme")
    post(server, otlp_messages.audit([made]).SerializeToString())
    [row] = client.query(
        "SELECT attributes['otel_audit.tenant'] AS tenant, attributes['audit.source.type'] AS type, "
        "attributes['nothing'] AS nothing, mapContains(attributes, 'audit.action') AS contains, "
        "has(attributes, 'audit.outcome') AS has, mapKeys(attributes) AS keys, "
        "mapValues(attributes) AS texts, "
        "length(attributes) AS n, attributes, toTypeName(attributes) AS kind, "
        "mapFilter((k, v) -> k LIKE 'audit.actor.%', attributes) AS actor, attributes.keys AS more "
        "FROM otel.audit_trail WHERE attributes['otel_audit.reason'] = {marker:String} "
        "AND has(mapValues(attributes), 'acme') "
        "AND arrayStringConcat(mapValues(attributes), ' ') LIKE '%ipv4%'",
        {"marker": marker},
    )
    expected = dict(as_text(otlp_messages.key_values(to_attributes(made))))
    assert row["attributes"] == expected
    assert (row["tenant"], row["type"], row["nothing"]) == ("acme", "ipv4", "")
    assert (row["contains"], row["has"], row["n"]) == (True, True, len(expected))
    assert sorted(row["keys"]) == sorted(row["more"]) == sorted(expected)
    assert sorted(row["texts"]) == sorted(expected.values())
    assert row["kind"] == "Map(LowCardinality(String), String)"
    assert row["actor"] == {"audit.actor.id": "anonymous", "audit.actor.type": "unknown"}


def test_the_columns_of_the_views_are_those_of_before(client: StoreClient) -> None:
    """Who selects everything gets what he got, in the same order, and behind it what came later."""
    names = [row[0] for row in client.rows("DESCRIBE TABLE otel.audit_trail")]
    assert names[-8:] == ["attributes", "resource", "target", "slug", "parent", "path", "view", "work"]
    assert not {"attributes_form", "observed_after"} & set(names)


def test_a_record_is_rebuilt_with_its_types(server: Serving, client: StoreClient) -> None:
    """Texts, numbers and booleans as they were sent: what a signature is made of."""
    chance = Chance(7)
    made = [ordinary(chance) for _ in range(200)]
    post(server, otlp_messages.audit(made).SerializeToString())
    with AuditStore(client.config) as store:
        for each in made[:20]:
            found = store.get(each.id)
            assert found == each
            assert found is not None
            assert to_attributes(found) == to_attributes(each)
