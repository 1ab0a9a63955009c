"""What happened in the shop on 23 November 2026, from 14:00 UTC on."""

from __future__ import annotations

import datetime
from typing import Any

from otel_audit.audit_record import Actor, Bulk, Change, Column, Database, Request, Sequence, Source, Target
from tests.trail import record

_BEGIN = int(datetime.datetime(2026, 11, 23, 14, tzinfo=datetime.UTC).timestamp()) * 10**9
ANA = Actor("2", "user", "ana")
BEN = Actor("3", "user", "ben")
FROM = Source("203.0.113.7", "ipv4", "Mozilla/5.0", "9f2c")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ATTACK = "\x1b[31m[bold]\x1b]0;pwned\x07\r\x9b2J\u202egnp.exe\u200b :smile: \ud83d\ude00"
ATTACK = ATTACK.encode("utf-16", "surrogatepass").decode("utf-16")


def at(seconds: int) -> int:
    return _BEGIN + seconds * 10**9


REFUSED_LOGIN = record(
    "user.login.failure",
    "LOGIN",
    at=at(1),
    outcome="failure",
    source=FROM,
    target=Target("auth.User"),
    message="ana",
)
CREATED = record(
    "shop.order.create",
    "CREATE",
    at=at(5),
    actor=ANA,
    source=FROM,
    target=Target("shop.Order", "7"),
    changes=[Change("status", new="new"), Change("total", new="19.80", type="decimal")],
    request=Request("r-1", "POST", "/orders/", "/orders/", "shop.views.create"),
    database=Database("sqlite", "shop", "shop_order", "tx-1"),
    image={"status": "new", "total": "19.80"},
    attributes={"ticket": 42},
    trace_id=TRACE,
    span_id="00f067aa0ba902b7",
    sequence=Sequence("stream-1", 3),
    reason="customer phoned",
)
PAID = record(
    "shop.order.update",
    "UPDATE",
    at=at(9),
    actor=ANA,
    source=FROM,
    target=Target("shop.Order", "7"),
    changes=[Change("status", "new", "paid")],
    trace_id=TRACE,
    span_id="ffffffffffffffff",
)
PRICED = record(
    "shop.product.update",
    "UPDATE",
    at=at(15),
    actor=BEN,
    source=FROM,
    target=Target("shop.Product"),
    bulk=Bulk(2, ["1", "2"], [Column("price", ["1.00", "2.00"], ["1.50", "2.50"], "decimal")]),
)
READ = record(
    "shop.card.read",
    "READ",
    at=at(20),
    actor=BEN,
    source=FROM,
    target=Target("shop.Card", "9"),
    fields=["number"],
)
ATTACKED = record(
    "shop.note.update",
    "UPDATE",
    at=at(30),
    actor=Actor(ATTACK, "user"),
    source=Source(ATTACK, "hostname", ATTACK),
    target=Target("shop.Note", ATTACK),
    changes=[Change(ATTACK, ATTACK, ATTACK)],
    outcome="failure",
    error=ATTACK,
    message=ATTACK,
    reason=ATTACK,
    request=Request(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK),
    image={ATTACK: ATTACK},
    attributes={ATTACK: [ATTACK]},
    related=[Target(ATTACK, ATTACK)],
    trace_id="a" * 32,
    span_id="b" * 16,
    tenant=ATTACK,
)
RECORDS = [REFUSED_LOGIN, CREATED, PAID, PRICED, READ, ATTACKED]


def _span(number: str, parent: str, name: str, start: int, **values: Any) -> dict[str, Any]:
    return {
        "Timestamp": f"{start // 10**9}.{start % 10**9:09d}",
        "TraceId": TRACE,
        "SpanId": number,
        "ParentSpanId": parent,
        "SpanName": name,
        "SpanKind": "Internal",
        "ServiceName": "shop",
        "Duration": 300_000_000,
        "StatusCode": "Unset",
        **values,
    }


SPANS = [
    _span("1" * 16, "", "POST /orders/", at(4), SpanKind="Server"),
    _span("00f067aa0ba902b7", "1" * 16, "INSERT shop_order", at(5)),
    _span("2" * 16, "1" * 16, "charge", at(6), StatusCode="Error", StatusMessage="declined"),
    _span(
        "b" * 16,
        "",
        ATTACK,
        at(30),
        TraceId="a" * 32,
        ServiceName=ATTACK,
        StatusCode="Error",
        StatusMessage=ATTACK,
    ),
]
