"""Texts longer than a record carries: cut early, never within a secret, and said how long they were."""

from __future__ import annotations

import pytest

from otel_audit.audit_record import Actor, AuditRecord, Bulk, Change, Column, Request, Source, new_record_id
from otel_audit.config.model import RedactionConfig
from otel_audit.redaction.redactor import Redactor

LIMIT = 8192
CUT = LIMIT - 4096 - 128
SECRETS = {
    "token": "ghp_" + "A1b2C3d4E5" * 4,
    "JWT": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 3 + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r",
    "endless token": "sk-" + "A1b2C3d4E5" * 1000,
    "credential": "Bearer " + "A1b2C3d4E5" * 4,
    "password hash": "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b7dWRWJTmaaJObG",
    "address": "postgres://ana:Xq7Zk93(Lm,2)!Pw8@db.example/shop",
    "endless address": "postgres://ana:" + "Xq7Zk93Lm2" * 1000 + "@db.example/shop",
    "card": "4111 1111 1111 1111",
    "key": "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBg\n" * 30 + "-----END PRIVATE KEY-----",
    "pair": "password=Xq7Zk93Lm2Pw8Rt5",
    "quoted pair": 'password = "Xq7Zk93Lm2 Pw8Rt5 Gh4Jk6 Wq2"',
    "pair in JSON": '"password":"Xq7Zk93Lm2Pw8Rt5Gh4Jk6",',
}
HIDDEN = {
    "address": "Xq7Zk93(Lm,2)!Pw8",
    "endless address": "Xq7Zk93Lm2" * 1000,
    "key": "MIIEvQIBADANBg",
    "pair": "Xq7Zk93Lm2Pw8Rt5",
    "quoted pair": "Xq7Zk93Lm2 Pw8Rt5 Gh4Jk6 Wq2",
    "pair in JSON": "Xq7Zk93Lm2Pw8Rt5Gh4Jk6",
    "credential": "A1b2C3d4E5" * 4,
}
"""What of them must not be seen, where it is not all."""
FRAGMENT = 7
"""Characters of it that must not stand together on record."""


def record(**parts: object) -> AuditRecord:
    whole = {
        "id": new_record_id(1),
        "timestamp": 1,
        "observed_timestamp": 1,
        "event_name": "shop.order.update",
        "action": "UPDATE",
        "outcome": "success",
        "actor": Actor("1"),
        "source": Source(),
        "request": Request(),
    }
    return AuditRecord(**(whole | parts))  # type: ignore[arg-type]


def shown(text: str, redactor: Redactor) -> str:
    short = redactor.shortened(record(changes=[Change("body", None, text)]), None, LIMIT)
    assert short.truncated
    return str(redactor.record(short).changes[0].new)


@pytest.mark.parametrize("kind", SECRETS)
def test_no_cut_shows_a_part_of_a_secret(kind: str) -> None:
    secret = SECRETS[kind]
    redactor = Redactor(RedactionConfig())
    hidden = HIDDEN.get(kind, secret)
    parts = {hidden[i : i + FRAGMENT] for i in range(len(hidden) - FRAGMENT + 1)}
    assert redactor.text(f"lorem {secret} ipsum") != f"lorem {secret} ipsum"
    positions = {
        CUT + shift
        for middle in (0, 4096, -len(secret), 4096 - len(secret), -len(secret) // 2)
        for shift in range(middle - 12, middle + 12)
    }
    for position in positions:
        if position < 0:
            continue
        filler = ("lorem ipsum " * (position // 12 + 1))[: position - 1] + " "
        text = filler + secret + " dolor sit amet" * 1000
        on_record = shown(text, redactor)
        assert len(on_record) <= LIMIT
        leaked = [part for part in parts if part in on_record.replace(filler, "")]
        assert not leaked, (position - CUT, leaked)


def test_a_cut_text_says_how_long_it_was_and_has_a_keyed_hash_only_with_a_key() -> None:
    one, other = "lorem ipsum " * 1000, "lorem ipsum " * 999 + "lorem IPSUM "
    plain = Redactor(RedactionConfig())
    assert shown(one, plain) == shown(other, plain)
    assert shown(one, plain).endswith("… (12000 characters)")
    keyed = Redactor(RedactionConfig(hmac_key="0123456789abcdef"))
    assert ", hmac:" in shown(one, keyed)
    assert shown(one, keyed) != shown(other, keyed)


@pytest.mark.parametrize("text", ["a" * 20_000, "漢" * 20_000, "a\n" * 10_000, '{"a": "' + "b" * 9000 + '"}'])
def test_any_long_text_is_within_the_limit(text: str) -> None:
    redactor = Redactor(RedactionConfig())
    short = redactor.shortened(
        record(
            changes=[Change("body", text, text)],
            image={"body": text},
            bulk=Bulk(2, ["1", "2"], [Column("body", [text, "b"], [text, None])]),
        ),
        None,
        LIMIT,
    )
    assert short.bulk is not None
    (column,) = short.bulk.columns
    values = [short.changes[0].old, short.image["body"], column.old[0], column.new[0]]  # type: ignore[index]
    if text.startswith("{"):
        assert values == [text] * 4
    else:
        assert all(len(value) <= LIMIT and value.endswith("characters)") for value in values)


def test_what_a_strategy_or_a_name_decides_is_decided_by_the_whole_value() -> None:
    redactor = Redactor(RedactionConfig(hmac_key="0123456789abcdef"))
    text = "lorem ipsum " * 1000
    changes = [Change("password", None, text), Change("body", None, text), Change("note", None, text)]
    whole = record(changes=changes)
    short = redactor.shortened(whole, {"body": "hmac", "note": "keep"}, LIMIT)
    assert [len(str(change.new)) > LIMIT for change in short.changes] == [True, True, False]
    told = redactor.record(short, {"body": "hmac", "note": "keep"})
    assert told.changes[0].new == "[redacted]"
    assert told.changes[1].new == redactor.record(whole, {"body": "hmac"}).changes[1].new
    assert "hmac" in told.changes[2].new
