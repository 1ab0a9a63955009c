"""Values longer than a record: cut before they are copied, compared whole, and no cut shows a secret."""

from __future__ import annotations

import copy
import hashlib
import json
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_audit
from otel_audit.audit_record import AuditRecord, Change
from otel_audit.config.model import AuditConfig, RedactionConfig
from otel_audit.large_values import LONGEST, Cut, fits, json_pieces
from otel_audit.testing import capture_audit
from otel_audit.values import Conversion, freeze, freeze_known, portable, same
from tests.redaction.test_long_texts import FRAGMENT, HIDDEN, SECRETS

MEGABYTE = 1024 * 1024
KEY = "0123456789abcdef"


def recorded(value: Any, *, key: str = "") -> tuple[Any, AuditRecord]:
    """Record a value as an attribute, as an old and a new one; return the last as it stands on record."""
    with capture_audit(AuditConfig(redaction=RedactionConfig(hmac_key=key))) as audit:
        otel_audit.record(
            "doc.read", "READ", changes=[Change("doc", value, value)], attributes={"doc": value}
        )
    record = audit.one()
    return record.changes[0].new, record


def peak(run: Callable[[], Any]) -> int:
    """Return the bytes that were allocated at once while running."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def deep(levels: int, end: Any = "end") -> Any:
    for _ in range(levels):
        end = [end]
    return end


def recursive() -> Any:
    inner: dict[str, Any] = {"a": 1}
    inner["inner"] = [inner]
    return inner


LARGE: dict[str, Callable[[], Any]] = {
    "many items": lambda: list(range(300_000)),
    "many keys": lambda: {f"key {number}": number for number in range(60_000)},
    "long keys": lambda: {f"{number}" * 200: number for number in range(3_000)},
    "a long text": lambda: ["lorem ipsum " * 4_000_000],
    "long texts": lambda: {"a": ["lorem ipsum " * 90_000 for _ in range(5)]},
    "rows": lambda: [{"id": number, "name": "lorem ipsum", "tags": ["a"]} for number in range(20_000)],
    "binary": lambda: [b"x" * 20_000_000],
    "odd keys": lambda: {number: {None: number} for number in range(20_000)},
    "large numbers": lambda: [2**70] * 40_000,
    "tuples": lambda: ((1, 2),) * 40_000,
    "a set": lambda: set(range(40_000)),
    "a mapping": lambda: OrderedDict((f"{number}", number) for number in range(40_000)),
    "deep": lambda: deep(100_000),
    "deep and wide": lambda: deep(500, list(range(40_000))),
    "recursive": recursive,
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_structure_is_frozen_in_little_memory_and_equal_to_its_copy(kind: str) -> None:
    value = LARGE[kind]()
    room = 8 * MEGABYTE if kind in ("many keys", "a set", "a mapping", "odd keys", "deep") else MEGABYTE
    frozen: list[Any] = []
    assert peak(lambda: frozen.append(freeze(value))) < room
    assert type(frozen[0]) is Cut
    assert same(frozen[0], freeze(LARGE[kind]()))
    assert not same(frozen[0], freeze({"a": value}))
    assert same(freeze_known(value), frozen[0])


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_structure_has_a_useful_beginning_and_its_length_on_record(kind: str) -> None:
    shown, record = recorded(LARGE[kind]())
    text = json.dumps(shown, ensure_ascii=False)
    assert len(text) < 2 * LONGEST
    assert record.truncated
    assert "…" in text or "[redacted]" in text  # what is nested deeper than redaction looks
    assert len(msgspec.json.encode(record)) < 512 * 1024


def test_a_change_in_the_tail_makes_another_value() -> None:
    rows = LARGE["rows"]()
    other = copy.deepcopy(rows)
    other[-1]["tags"] = ["b"]
    assert not same(freeze(rows), freeze(other))
    longer: list[Any] = ["lorem ipsum " * 400_000, 1]
    assert not same(freeze(longer), freeze([longer[0] + ".", 1]))
    assert not same(freeze(longer), freeze([longer[0], True]))
    assert not same(freeze(longer), freeze([longer[0], 1.0]))


def test_the_order_of_keys_makes_none() -> None:
    rows = [{"b": {"y": number, "x": [number]}, "a": "é" * 10} for number in range(20_000)]
    turned = [{key: row[key] for key in sorted(row)} for row in rows]
    assert same(freeze(rows), freeze(turned))
    keys = LARGE["many keys"]()
    assert same(freeze(keys), freeze(dict(reversed(keys.items()))))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


@settings(deadline=None)
@given(json_values, st.integers(1, 3000))
def test_pieces_together_are_the_json_of_the_whole(value: Any, times: int) -> None:
    whole = [value] * times
    text = b"".join(json_pieces(whole, portable))
    assert (
        hashlib.sha256(text).digest() == hashlib.sha256(msgspec.json.encode(whole, order="sorted")).digest()
    )


@settings(deadline=None, max_examples=50)
@given(json_values)
def test_what_is_small_is_held_whole(value: Any) -> None:
    frozen = freeze([value])
    if type(frozen) is Cut:
        assert len(json.dumps([value])) > 64
    else:
        assert msgspec.json.decode(frozen) == [value]
        convert = Conversion()
        convert.portable([value])
        assert convert.complete


def test_a_value_at_the_limit_is_the_same_whether_it_is_cut_or_not() -> None:
    value = ["x" * 1000] * (LONGEST // 1008 - 1)
    whole = freeze(value)
    assert type(whole) is not Cut
    cut = Cut(b"[]", 1, hashlib.sha256(whole).digest(), unit="bytes")
    assert same(whole, cut)
    assert same(cut, whole)
    assert not same(cut, freeze([1]))


class Counting(list[Any]):
    """Counts the items that are looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            Counting.looked_at += 1
            yield item


def test_a_structure_is_looked_at_no_further_than_a_record_goes() -> None:
    Counting.looked_at = 0
    wide = Counting(range(1_000_000))
    assert not fits(wide)
    assert not fits([wide, 1])
    recorded(wide)
    with otel_audit.context(doc=wide):
        pass
    assert Counting.looked_at < 8 * LONGEST
    shared: Any = "end"
    for _ in range(60):
        shared = Counting([shared, shared])
    Counting.looked_at = 0
    recorded(shared)
    assert Counting.looked_at < 8 * LONGEST


def test_a_keyed_hash_stands_on_record_where_there_is_a_key_and_the_field_is_not_sensitive() -> None:
    rows = LARGE["rows"]()
    shown, _ = recorded(rows)
    assert shown[-1] == "… (20000 items)"
    shown, _ = recorded(freeze(rows))
    assert shown[-1] == f"… ({len(msgspec.json.encode(rows))} bytes)"
    with capture_audit(AuditConfig(redaction=RedactionConfig(hmac_key=KEY))) as audit:
        for changed in (rows, [*rows[:-1], 1]):
            frozen = {name: freeze(value) for name, value in _kinds(changed).items()}
            otel_audit.record(
                "doc.read",
                "READ",
                changes=[Change(name, None, value) for name, value in frozen.items()],
                attributes={"password": changed},
            )
    one, other = ({change.field: str(change.new) for change in record.changes} for record in audit.records)
    for name in ("rows", "text", "binary", "keys"):
        assert "hmac:" in one[name], name
        assert one[name] != other[name], name
    assert "hmac" not in str([record.attributes for record in audit.records])
    assert "hmac" not in one["password"]


def _kinds(rows: Any) -> dict[str, Any]:
    text = json.dumps(rows)
    return {
        "rows": rows,
        "text": text,
        "binary": bytearray(text.encode()),
        "keys": {str(number): row for number, row in enumerate(rows)},
        "password": rows,
    }


# --- no cut shows a secret -------------------------------------------------------------------------


def _leaked(kind: str, shown: Any, filler: str) -> list[str]:
    hidden = HIDDEN.get(kind, SECRETS[kind])
    text = json.dumps(shown, ensure_ascii=False).replace(json.dumps(filler)[1:-1], "")
    text = text.replace("lorem ipsum", "")
    parts = [hidden[i : i + FRAGMENT] for i in range(len(hidden) - FRAGMENT + 1)]
    return [part for part in parts if json.dumps(part)[1:-1] in text]


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("frozen", [False, True])
def test_no_cut_within_a_structure_shows_a_part_of_a_secret(kind: str, frozen: bool) -> None:
    secret = SECRETS[kind]
    limit = LONGEST // 2 if frozen else LONGEST
    for back in (0, 7, len(secret) // 2, len(secret), 4096, 4096 + len(secret) // 2, 4300):
        position = limit - back
        filler = ("lorem ipsum " * (position // 12 + 1))[:position] + " "
        value: Any = {"a": [filler + secret + " lorem ipsum" * 20_000]}
        shown, _ = recorded(freeze(value) if frozen else value)
        assert not _leaked(kind, shown, filler), back
    for rows in range(1590, 1600):  # the cut goes through the pairs of one of them
        value = [
            {"name": "lorem ipsum " * 3, "password": "Xq7Zk93Lm2", "token": [1]} for _ in range(rows * 3)
        ]
        shown, _ = recorded(freeze(value) if frozen else value)
        assert "Xq7Zk" not in str(shown)


@pytest.mark.parametrize("kind", ["token", "JWT", "password hash", "card", "pair"])
def test_no_cut_of_binary_data_shows_a_part_of_a_secret(kind: str) -> None:
    import base64

    secret = SECRETS[kind]
    hidden = HIDDEN.get(kind, secret)
    for back in (0, 100, 4096, 4096 + len(secret) // 2, 4224, 4224 + len(secret) // 2):
        data = ("lorem ipsum " * 10_000)[: 48 * 1024 - back - 1] + " " + secret + " lorem ipsum" * 20_000
        shown, record = recorded(data.encode())
        assert record.truncated
        head, _, rest = shown.partition("…")
        assert f"({len(data)} bytes" in rest
        text = base64.b64decode(head).decode().replace("lorem ipsum", "")
        assert not [i for i in range(len(hidden) - FRAGMENT + 1) if hidden[i : i + FRAGMENT] in text]
