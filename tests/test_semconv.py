"""A record survives its attributes, typed or all text, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from otel_audit import semconv
from otel_audit.audit_record import AuditRecord
from otel_audit.errors import InvalidRecord
from tests.trail import exported, records


def rebuilt(record: AuditRecord, attributes: dict[str, Any]) -> AuditRecord:
    """Read a record back the way a store does."""
    return semconv.from_attributes(
        attributes,
        timestamp=record.timestamp,
        trace_id=record.trace_id,
        span_id=record.span_id,
        message=record.message,
    )


@given(records)
@settings(max_examples=200)
def test_a_record_survives_its_attributes(record: AuditRecord) -> None:
    assert rebuilt(record, semconv.to_attributes(record)) == record


@given(records)
@settings(max_examples=200)
def test_a_record_survives_a_store_that_keeps_only_strings(record: AuditRecord) -> None:
    attributes = semconv.to_attributes(record)
    strings = exported(record)
    again = rebuilt(record, strings)
    assert again == record
    assert semconv.to_attributes(again) == attributes


@given(records)
def test_attributes_are_text_integers_and_booleans_of_the_type_the_schema_fixes(record: AuditRecord) -> None:
    kinds = semconv.SCHEMAS[semconv.CURRENT_SCHEMA].kinds()
    types = {"text": str, "json": str, "int": int, "bool": bool}
    for name, value in semconv.to_attributes(record).items():
        assert type(value) is types[kinds.get(name, "text")], name


def test_who_and_what_are_present_even_when_nothing_is_known() -> None:
    record = AuditRecord(id="1", timestamp=1, observed_timestamp=1, event_name="a.b", action="READ")
    attributes = semconv.to_attributes(record)
    assert attributes["audit.actor.id"] == "anonymous"
    assert attributes["audit.actor.type"] == "unknown"
    assert attributes["audit.outcome"] == "success"


def test_attribute_names_are_unique_in_every_schema_version() -> None:
    for schema in semconv.SCHEMAS.values():
        names = [field.name for field in schema.fields]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audit.schema.version", "99"),
        ("otel_audit.changes", "not json"),
        ("otel_audit.changes", '{"field": 1}'),
        ("otel_audit.observed_timestamp", "soon"),
        ("audit.outcome", "perhaps"),
    ],
)
def test_attributes_that_do_not_fit_their_schema_are_refused(name: str, value: str) -> None:
    record = AuditRecord(id="r-1", timestamp=1, observed_timestamp=1, event_name="a.b", action="READ")
    with pytest.raises(InvalidRecord):
        rebuilt(record, {**semconv.to_attributes(record), name: value})
