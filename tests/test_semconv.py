"""A record survives its attributes, typed or all text, byte for byte."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit import semconv
from otel_audit.errors import InvalidRecord
from otel_audit.record import (
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
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
named = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
numbers = st.integers(0, 2**63 - 1)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
known_or_not = values | st.just(msgspec.UNSET)
arrays = st.lists(values, max_size=4) | st.just(msgspec.UNSET)
records = st.builds(
    AuditRecord,
    id=named,
    timestamp=numbers,
    observed_timestamp=numbers,
    event_name=named,
    action=named,
    outcome=st.sampled_from(["success", "failure", "unknown"]),
    log=named,
    actor=st.builds(
        Actor,
        id=named,
        type=st.sampled_from(["user", "service", "system", "unknown"]),
        name=text,
        on_behalf_of=text,
    ),
    target=st.none() | st.builds(Target, type=named, id=text),
    source=st.builds(Source, id=text, type=text, user_agent=text, session=text),
    request=st.builds(Request, id=text, method=text, route=text, path=text, view=text),
    database=st.builds(Database, system=text, namespace=text, table=text, transaction=text),
    changes=st.lists(
        st.builds(Change, field=named, old=known_or_not, new=known_or_not, type=text), max_size=3
    ),
    image=st.dictionaries(text, values, max_size=3),
    bulk=st.none()
    | st.builds(
        Bulk,
        count=numbers,
        keys=st.lists(text, max_size=3),
        columns=st.lists(st.builds(Column, field=named, old=arrays, new=arrays, type=text), max_size=2),
        id=text,
        part=st.integers(1, 9),
        parts=st.integers(1, 9),
    ),
    fields=st.lists(text, max_size=3),
    completeness=st.sampled_from(["full", "ids", "count", "statement"]),
    old_values=st.sampled_from([None, "as_loaded", "exact"]),
    message=text,
    reason=text,
    tenant=text,
    system=text,
    event_type=text,
    error=text,
    code=text,
    related=st.lists(st.builds(Target, type=named, id=text), max_size=2),
    attributes=st.dictionaries(text, values, max_size=3),
    truncated=st.booleans(),
    trace_id=text,
    span_id=text,
    sequence=st.none()
    | st.builds(
        Sequence,
        stream=named,
        number=st.integers(1, 2**63 - 1),
        previous_hash=text,
        previous_record=text,
        end=st.booleans(),
    ),
)


def rebuilt(record: AuditRecord, attributes: dict[str, Any]) -> AuditRecord:
    """Read a record back the way a store does."""
    return semconv.from_attributes(
        attributes,
        timestamp=record.timestamp,
        trace_id=record.trace_id,
        span_id=record.span_id,
        message=record.message,
    )


def as_text(value: Any) -> str:
    """Write an attribute the way the Collector's ClickHouse exporter does."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(records)
@settings(max_examples=200)
def test_a_record_survives_its_attributes(record: AuditRecord) -> None:
    assert rebuilt(record, semconv.to_attributes(record)) == record


@given(records)
@settings(max_examples=200)
def test_a_record_survives_a_store_that_keeps_only_strings(record: AuditRecord) -> None:
    attributes = semconv.to_attributes(record)
    strings = {name: as_text(value) for name, value in attributes.items()}
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
