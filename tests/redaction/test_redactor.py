"""Records and values: by name, by strategy, nested, in bulk; and untouched where there is nothing to hide."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Database,
    Request,
    Source,
    Target,
)
from otel_audit.config.model import RedactionConfig
from otel_audit.errors import ConfigurationError
from otel_audit.redaction import Redactor

KEY = "a key of sixteen"
CARD = "4111111111111111"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionConfig(hmac_key=KEY))


def record(**parts: Any) -> AuditRecord:
    parts = {"event_name": "shop.x", "action": "UPDATE"} | parts
    return AuditRecord(id="r", timestamp=1, observed_timestamp=1, **parts)


def test_the_rules_decide_by_name_and_by_value(redactor: Redactor) -> None:
    assert redactor.field("password", "hunter2") == "[redacted]"
    assert redactor.field("cvv", 123) == "[redacted]"
    assert redactor.field("note", f"card {CARD}") == "card [redacted]"
    assert redactor.field("note", "plain") == "plain"


@pytest.mark.parametrize("value", [None, "", True, False])
def test_that_there_is_nothing_or_a_flag_is_no_secret(redactor: Redactor, value: Any) -> None:
    assert redactor.field("password", value) is value


def test_a_count_of_tokens_is_a_number_and_a_list_of_them_is_not(redactor: Redactor) -> None:
    assert redactor.field("tokens", 512) == 512
    assert redactor.field("tokens", ["a", "b"]) == "[redacted]"


def test_an_integer_that_is_a_card_number_is_one_unless_its_name_says_it_numbers_something(
    redactor: Redactor,
) -> None:
    assert redactor.field("payment", int(CARD)) == "[redacted]"
    assert redactor.field("order_id", int(CARD)) == int(CARD)
    assert redactor.field("created_ns", 1795450755443016983) == 1795450755443016983


def test_what_was_not_known_and_null_pass_every_strategy(redactor: Redactor) -> None:
    for strategy in (None, "mask", "drop", "hmac", "keep_last:2", "keep"):
        assert redactor.field("password", None, strategy) is None
        assert redactor.field("password", UNSET, strategy) is UNSET  # type: ignore[arg-type]


def test_each_strategy_leaves_what_it_promises(redactor: Redactor) -> None:
    assert redactor.field("note", "secret stuff", "mask") == "[redacted]"
    assert redactor.field("note", "secret stuff", "drop") is UNSET
    assert redactor.field("password", "hunter2", "keep") == "hunter2"
    assert redactor.field("iban", "DE00123412341234", "keep_last") == "[redacted]1234"
    assert redactor.field("iban", "DE00123412341234", "keep_last:2") == "[redacted]34"
    assert redactor.field("number", 1234567890, "keep_last:3") == "[redacted]890"


@pytest.mark.parametrize(
    ("value", "strategy"), [("1234567", "keep_last:4"), ("ab", "keep_last"), ("abc", "keep_last:0")]
)
def test_the_end_is_not_shown_where_it_is_most_of_the_value(
    redactor: Redactor, value: str, strategy: str
) -> None:
    assert redactor.field("x", value, strategy) == "[redacted]"


def test_hashes_of_equal_values_are_equal_and_depend_on_the_key(redactor: Redactor) -> None:
    first = redactor.field("ssn", "078-05-1120", "hmac")
    assert isinstance(first, str)
    assert first.startswith("hmac:")
    assert len(first) == 37
    assert redactor.field("other", "078-05-1120", "hmac") == first
    assert redactor.field("ssn", "078-05-1121", "hmac") != first
    assert redactor.field("j", {"a": 1, "b": 2}, "hmac") == redactor.field("j", {"b": 2, "a": 1}, "hmac")
    other = Redactor(RedactionConfig(hmac_key=KEY + "!"))
    assert other.field("ssn", "078-05-1120", "hmac") != first


def test_without_a_key_a_hash_becomes_a_mask_and_the_check_says_what_is_missing() -> None:
    redactor = Redactor(RedactionConfig())
    assert redactor.field("ssn", "078-05-1120", "hmac") == "[redacted]"
    with pytest.raises(ConfigurationError, match="OTEL_AUDIT_REDACTION_HMAC_KEY"):
        redactor.strategies.check("hmac", "django.model.x.fields.ssn")
    with pytest.raises(ConfigurationError, match="5 characters"):
        Redactor(RedactionConfig(hmac_key="short"))


def test_nested_values_are_walked_by_key(redactor: Redactor) -> None:
    value: Any = {"a": [{"password": "hunter2", "ok": 1}, "see https://u:hunter2@h/"], "b": {"c": "plain"}}
    assert redactor.field("data", value) == {
        "a": [{"password": "[redacted]", "ok": 1}, "see https://[redacted]@h/"],
        "b": {"c": "plain"},
    }
    assert value["a"][0]["password"] == "hunter2", "the original is untouched"


def test_what_is_nested_too_deep_to_look_at_is_removed(redactor: Redactor) -> None:
    value: Any = {"password": "hunter2"}
    for _ in range(500):
        value = [value]
    assert "hunter2" not in str(redactor.field("data", value))


def test_json_nested_beyond_any_parser_is_still_scanned_as_text(redactor: Redactor) -> None:
    assert "hunter2" not in redactor.text("[" * 5000 + '{"password": "hunter2"}' + "]" * 5000)


def test_command_lines_lose_the_value_after_the_option(redactor: Redactor) -> None:
    arguments: Any = ["mysql", "--password", "hunter2", "--token=hunter2", "--user", "bob"]
    assert redactor.field("process.command_args", arguments) == [
        "mysql",
        "--password",
        "[redacted]",
        "--token=[redacted]",
        "--user",
        "bob",
    ]


def test_a_mapping_without_secrets_comes_back_as_it_is(redactor: Redactor) -> None:
    clean = {"a": 1, "b": {"c": ["x", 2.5, None, True]}}
    assert redactor.mapping(clean) is clean
    assert redactor.mapping({"token": "hunter2", "a": 1}) == {"token": "[redacted]", "a": 1}


def test_a_record_without_secrets_is_the_same_object(redactor: Redactor) -> None:
    clean = record(
        actor=Actor("7", "user", "Ann"),
        target=Target("shop.Order", "7"),
        source=Source("127.0.0.1", "ipv4", "curl/8"),
        request=Request("q", "POST", "/orders/<int:pk>/", "/orders/7/"),
        changes=[Change("status", "new", "paid"), Change("total", "1.00", "2.00", "decimal")],
        image={"status": "paid", "password_changed_at": "2026-01-01"},
        attributes={"token_count": 3, "author": "Ann"},
        message="Order 7 paid",
    )
    assert redactor.record(clean) is clean


TEXT = "password=hunter2"


@pytest.mark.parametrize(
    "place",
    [
        {"message": TEXT},
        {"error": TEXT},
        {"reason": TEXT},
        {"source": Source(user_agent=TEXT)},
        {"request": Request(path=TEXT)},
        {"request": Request(route=TEXT)},
        {"request": Request(view=TEXT)},
        {"request": Request(id=TEXT)},
        {"actor": Actor(id=TEXT)},
        {"actor": Actor(name=TEXT)},
        {"actor": Actor(on_behalf_of=TEXT)},
        {"database": Database(query=TEXT)},
        {"target": Target("shop.Order", TEXT)},
        {"related": [Target("shop.Order", TEXT)]},
        {"changes": [Change("note", TEXT, "b")]},
        {"changes": [Change("note", "a", TEXT)]},
        {"changes": [Change("note", "a", ["b", TEXT])]},
        {"changes": [Change("password", "hunter2", "b")]},
        {"changes": [Change("number", 1, int(CARD))]},
        {"image": {"note": TEXT}},
        {"image": {"password": "hunter2"}},
        {"image": {"note": {"deep": TEXT}}},
        {"attributes": {"note": TEXT}},
        {"attributes": {"password": "hunter2"}},
        {"bulk": Bulk(1, columns=[Column("note", ["a"], [TEXT])])},
        {"bulk": Bulk(1, columns=[Column(TEXT, ["a"], ["b"])])},
        {"bulk": Bulk(1, keys=[TEXT])},
        {"tenant": TEXT},
        {"system": TEXT},
        {"event_type": TEXT},
        {"event_name": TEXT},
        {"code": TEXT},
        {"target": Target(TEXT, "7")},
        {"related": [Target(TEXT, "7")]},
        {"fields": ["a", TEXT]},
        {"changes": [Change(TEXT, "a", "b")]},
        {"attributes": {TEXT: 1}},
        {"attributes": {f"card {CARD}": True}},
    ],
    ids=str,
)
def test_one_secret_among_clean_values_is_found_wherever_it_is(
    redactor: Redactor, place: dict[str, Any]
) -> None:
    """A record is looked at as a whole first; no part of it may be left out of that look."""
    clean: dict[str, Any] = {
        "message": "order changed",
        "image": {"note": "a", "total": 7, "open": True},
        "attributes": {"branch": "Uji"},
    }
    assert redactor.record(record(**clean)).image == clean["image"]
    for _ in range(2):  # what was remembered the first time must not hide it the second
        redacted = msgspec.json.encode(redactor.record(record(**clean | place)))
        assert b"hunter2" not in redacted
        assert CARD.encode() not in redacted
        assert b"[redacted]" in redacted


def test_attributes_whose_names_become_equal_are_all_kept(redactor: Redactor) -> None:
    attributes = {f"of card {CARD}": 1, "of card 5555555555554444": 2, "plain": 3}
    redacted = redactor.record(record(attributes=attributes)).attributes
    assert redacted == {"of card [redacted]": 1, "of card [redacted] (2)": 2, "plain": 3}


HALF = "\ud83d"  # of a surrogate pair, as a client cut it


@pytest.mark.parametrize("strategy", [None, "mask", "hmac", "keep_last", "drop", "keep"])
@pytest.mark.parametrize(
    "value",
    [
        HALF,
        f"password=hunter2 {HALF}",
        [HALF, {"a": HALF}],
        {HALF: "x", "password": "hunter2"},
        f'{{"a": "{HALF}", "p\\u0061ssword": "hunter2"}}',
        '{"a": "\\ud83d", "p\\u0061ssword": "hunter2"}',
        '[{"p\\u0061ssword": "hunter2", "n": NaN}]',
    ],
)
def test_half_a_surrogate_pair_costs_no_record_its_values(
    redactor: Redactor, value: Any, strategy: str | None
) -> None:
    strategies = {} if strategy is None else {"note": strategy}
    given = record(changes=[Change("note", value, value), Change("status", "a", "b")], message=HALF)
    redacted = redactor.record(given, strategies)
    assert redacted.changes[1] == Change("status", "a", "b")
    if strategy != "keep":
        assert "hunter2" not in str(redacted)


def test_every_part_of_a_record_that_takes_free_values_is_redacted(redactor: Redactor) -> None:
    seeded = record(
        actor=Actor("password=hunter2", "user", "token=hunter2"),
        source=Source(user_agent="x token=hunter2"),
        request=Request(path="/reset?token=hunter2", view="v", route="r"),
        target=Target("shop.Order", "token=hunter2-and-more"),
        related=[
            Target("shop.Order", "token=hunter2"),
            Target("authtoken.Token", "hunter2hunter2hunter2hunter2hunt"),
        ],
        changes=[Change("password", "hunter2", "hunter2"), Change("note", "token=hunter2", "ok")],
        image={"secret": "hunter2", "note": {"api_key": "hunter2"}},
        attributes={"cookie": "hunter2", "list": ["password=hunter2"]},
        message="password=hunter2",
        error="ValueError: token=hunter2",
        reason="secret: hunter2",
        database=Database(query="UPDATE u SET password = 'hunter2'"),
    )
    assert b"hunter2" not in msgspec.json.encode(redactor.record(seeded))
    assert b"hunter2" in msgspec.json.encode(seeded)


@pytest.mark.parametrize("identifier", ["token=hunter2", "pw=hunter2", "token=hunter2-and-much-more"])
def test_the_id_of_a_target_is_looked_at_however_short(redactor: Redactor, identifier: str) -> None:
    seeded = record(target=Target("shop.Order", identifier), changes=[Change("status", "a", "b")])
    assert b"hunter2" not in msgspec.json.encode(redactor.record(seeded))


def test_strategies_of_fields_go_before_the_rules(redactor: Redactor) -> None:
    redacted = redactor.record(
        record(
            changes=[
                Change("password", "a", "b"),
                Change("iban", "DE00123412341234", None),
                Change("note", 1, 2),
            ],
            image={"password": "b", "note": 2},
        ),
        {"password": "keep", "iban": "keep_last:4", "note": "drop"},
    )
    assert redacted.changes == [
        Change("password", "a", "b"),
        Change("iban", "[redacted]1234", None),
        Change("note"),
    ]
    assert redacted.changed_fields == ["password", "iban", "note"], "that it changed is still told"
    assert redacted.image == {"password": "b"}


def test_a_redacted_change_no_longer_claims_a_type(redactor: Redactor) -> None:
    change = redactor.record(record(changes=[Change("cvv", "1.5", "2.5", "decimal")])).changes[0]
    assert change == Change("cvv", "[redacted]", "[redacted]", "")


def test_bulk_columns_are_redacted_cell_by_cell_and_keep_their_length(redactor: Redactor) -> None:
    bulk = Bulk(
        count=2,
        keys=["1", "2"],
        columns=[
            Column("password", old=["a", None], new=["hunter2", "hunter2"]),
            Column("note", new=["plain", f"card {CARD}"]),
            Column("iban", old=["DE00123412341234", "x"], new=["1", "2"]),
            Column("status", old=["a", "b"], new=["c", "d"]),
        ],
    )
    redacted = redactor.record(record(bulk=bulk), {"iban": "drop"}).bulk
    assert redacted is not None
    assert redacted.columns == [
        Column("password", old=["[redacted]", None], new=["[redacted]", "[redacted]"]),
        Column("note", new=["plain", "card [redacted]"]),
        Column("iban"),
        Column("status", old=["a", "b"], new=["c", "d"]),
    ]
    assert redacted.keys == ["1", "2"]


def test_the_primary_key_of_a_token_is_shown_by_its_end_only(redactor: Redactor) -> None:
    def identifier(type_: str, id_: str) -> str:
        target = redactor.record(record(target=Target(type_, id_))).target
        assert target is not None
        return target.id

    assert identifier("authtoken.Token", "9944b09199c62bcf9418ad846dd0e4bb") == "[redacted]e4bb"
    assert identifier("sessions.Session", "abcdefghijklmnopqrstuvwxyz012345") == "[redacted]2345"
    assert identifier("shop.ApiToken", "17") == "17"
    assert identifier("shop.ApiToken", str(2**63 - 1)) == str(2**63 - 1)
    uuid = "550e8400-e29b-41d4-a716-446655440000"
    assert identifier("shop.ApiToken", uuid) == "[redacted]0000"
    assert identifier("chat.Session", uuid) == uuid


def test_the_strategies_of_a_key_go_before_the_type_of_the_target(redactor: Redactor) -> None:
    def identifier(id_: str, *key: str) -> str:
        target = redactor.record(record(target=Target("shop.ApiToken", id_)), {}, key).target
        assert target is not None
        return target.id

    secret = "9944b09199c62bcf9418ad846dd0e4bb"
    assert identifier(secret, "keep") == secret
    assert identifier(secret, "") == secret
    assert identifier("token=hunter2", "") == "token=[redacted]"
    assert identifier(secret, "drop") == "[redacted]", "an id cannot be left out"
    assert identifier(secret, "hmac").startswith("hmac:")
    assert identifier(f'["{secret}",7]', "keep_last:4", "") == '["[redacted]e4bb",7]'
    assert identifier("no list", "keep_last:4", "") == "[redacted]"


def test_texts_with_secrets_are_not_kept_in_memory(redactor: Redactor) -> None:
    redactor.text("password=hunter2")
    redactor.statement("UPDATE u SET password = 'hunter2'")
    redactor.record(record(changes=[Change("password", "hunter2", "x")]))
    assert not any("hunter2" in text for text in redactor.clean_texts)


def test_the_memory_of_clean_texts_is_bounded(redactor: Redactor) -> None:
    for number in range(10_000):
        redactor.text(f"text number {number}")
    redactor.text("long " * 10_000)
    assert len(redactor.clean_texts) <= 4096
    assert max(map(len, redactor.clean_texts)) <= 512
