"""However much an application hands over for one record, it is cut before it is copied and encoded."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

import otel_audit
from otel_audit import Actor, Change, Target
from otel_audit.audit_record import AuditRecord
from otel_audit.pipeline.limits import MAX_BYTES
from otel_audit.testing import capture_audit

MEGABYTE: Final = 1024 * 1024
LENGTH: Final = 12 * MEGABYTE
MANY: Final = 150_000
TEXT: Final = "lorem ipsum " * (LENGTH // 12)
FOREIGN: Final = TEXT[:-1] + "é"


class Lazy:
    """Has a text only when it is asked for."""

    def __str__(self) -> str:
        return TEXT


def record(**parts: Any) -> None:
    otel_audit.record("doc.read", "READ", **parts)


def inside(**context: Any) -> None:
    with otel_audit.context(**context):
        record()


def inside_both() -> None:
    with otel_audit.context(**NAMES), otel_audit.context(**OTHERS):
        record()


ACTION: Final = TEXT.upper()
BINARY: Final = TEXT.encode()
DOCUMENT: Final = "{" + TEXT
# Few enough that Python's own copies of keyword arguments do not matter.
NAMES: Final[dict[str, Any]] = {f"name {number}": number for number in range(30_000)}
OTHERS: Final[dict[str, Any]] = {f"other name {number}": number for number in range(30_000)}
NUMBERED: Final[dict[Any, Any]] = dict.fromkeys(range(MANY), "value")
ATTRIBUTES: Final[dict[str, Any]] = {f"name {number}": number for number in range(MANY)}
CHANGES: Final = [Change(f"field {number}", number, number + 1) for number in range(MANY)]
TARGETS: Final = [Target("shop.Order", str(number)) for number in range(MANY)]

LARGE: Final[dict[str, Callable[[], object]]] = {
    "reason": lambda: inside(reason=TEXT),
    "reason, not in ASCII": lambda: inside(reason=FOREIGN),
    "tenant": lambda: inside(tenant=TEXT),
    "system": lambda: inside(system=TEXT),
    "actor": lambda: inside(actor=TEXT),
    "name of an actor": lambda: inside(actor=Actor("1", "user", name=TEXT)),
    "who it is done for": lambda: inside(on_behalf_of=TEXT),
    "value of the context": lambda: inside(note=TEXT),
    "value of the context, not in ASCII": lambda: inside(note=FOREIGN),
    "mapping in the context": lambda: inside(note=ATTRIBUTES),
    "names in the context": lambda: inside(**{TEXT: 1}),
    "names in the context, many": lambda: inside(**NAMES),
    "names in two contexts": inside_both,
    "actor of the record": lambda: record(actor=Actor(TEXT, "user")),
    "message": lambda: record(message=TEXT),
    "message, not in ASCII": lambda: record(message=FOREIGN),
    "message that looks like a document": lambda: record(message=DOCUMENT),
    "error": lambda: record(error=TEXT),
    "event_type": lambda: record(event_type=TEXT),
    "event_name": lambda: otel_audit.record(TEXT, "READ"),
    "action": lambda: otel_audit.record("doc.read", ACTION),
    "log": lambda: record(log=TEXT),
    "id of the target": lambda: record(target=Target("shop.Order", TEXT)),
    "type of the target": lambda: record(target=Target(TEXT, "1")),
    "id of a related object": lambda: record(related=[Target("shop.Order", TEXT)]),
    "related objects": lambda: record(related=TARGETS),
    "fields": lambda: record(fields=list(ATTRIBUTES)),
    "name of a field": lambda: record(fields=[TEXT]),
    "attributes": lambda: record(attributes=ATTRIBUTES),
    "attributes, numbered": lambda: record(attributes=NUMBERED),
    "name of an attribute": lambda: record(attributes={TEXT: 1}),
    "name of an attribute, not in ASCII": lambda: record(attributes={FOREIGN: 1}),
    "name of a part": lambda: record(attributes={"a": {FOREIGN: 1}}),
    "text": lambda: record(attributes={"a": TEXT}),
    "text, not in ASCII": lambda: record(attributes={"a": FOREIGN}),
    "binary": lambda: record(attributes={"a": BINARY}),
    "changes": lambda: record(changes=CHANGES),
    "name of a change": lambda: record(changes=[Change(TEXT, 1, 2)]),
    "old and new": lambda: record(changes=[Change("a", TEXT, FOREIGN)]),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_record_costs_little_more_memory_than_it_may_be_large(what: str) -> None:
    with capture_audit() as audit:
        record()  # what is made once for a process
        audit.clear()
        tracemalloc.start()
        try:
            LARGE[what]()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        made = audit.one()
    assert peak < 8 * MEGABYTE
    assert made.truncated
    assert size(made) <= MAX_BYTES


def size(made: AuditRecord) -> int:
    return len(msgspec.msgpack.encode(made))


@pytest.mark.parametrize("what", ["reason", "tenant", "message", "error"])
def test_what_is_cut_begins_as_it_did_and_says_how_long_it_was(what: str) -> None:
    with capture_audit() as audit:
        LARGE[what]()
    text = getattr(audit.one(), what)
    assert text.startswith("lorem ipsum lorem")
    assert text.endswith(f"… ({LENGTH} characters)")


def test_of_too_many_attributes_the_first_are_kept_and_the_number_of_all_is_said() -> None:
    with capture_audit() as audit:
        record(attributes=ATTRIBUTES)
        with otel_audit.context(**NAMES):
            record(attributes={"own": True})
    for made, number in zip(audit, (MANY, len(NAMES)), strict=True):
        assert made.attributes["name 0"] == 0
        assert made.attributes["name 1000"] == 1000
        assert made.attributes["…"] == f"… ({number} keys)"
    assert audit.records[1].attributes["own"] is True


def test_of_too_many_changes_the_first_are_kept() -> None:
    with capture_audit() as audit:
        record(changes=CHANGES)
    fields = [change.field for change in audit.one().changes]
    assert fields[:3] == ["field 0", "field 1", "field 2"]
    assert len(fields) >= 1000


def test_a_name_that_is_none_is_not_repeated_in_full(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), capture_audit() as audit:
        assert otel_audit.record("doc.read", TEXT) is None
        assert otel_audit.record("\0" + TEXT, "READ") is None
    assert not audit.records
    assert len(caplog.text) < 20_000


def test_names_used_once_are_not_held_for_the_life_of_the_process() -> None:
    with capture_audit():
        record()
        tracemalloc.start()
        try:
            for number in range(20):
                otel_audit.record(f"doc{number}." + "x" * MEGABYTE, "READ", outcome="failure")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held < 12 * MEGABYTE
