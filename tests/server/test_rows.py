"""Rows by the fast way over bytes and by the slow way over messages are the same rows."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from otel_audit.server.engine import native
from otel_audit.server.otlp.limits import Budget
from otel_audit.server.otlp.rows import Maps, log_rows, span_rows
from otel_audit.server.otlp.values import value_text
from tests.server.otlp_messages import any_value, logs, traces

short = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
lengths = st.sampled_from([0, 1, 100, 121, 122, 123, 124, 125, 126, 127, 128, 129, 16_380, 16_384, 70_000])
long = st.builds(lambda length, letter: letter * length, lengths, st.sampled_from(["x", "é"]))
scalars = short | long | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.binary(max_size=5)
values = st.recursive(
    scalars | st.none(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(short, inner, max_size=2)
)


@given(st.lists(st.tuples(short | long, values), max_size=6))
@example([("k" * length, "v" * length) for length in (125, 126, 127, 128, 129, 16_383, 16_384)])
def test_attributes_are_the_same_by_both_ways(pairs: list[tuple[str, Any]]) -> None:
    """Whatever their lengths and kinds."""
    maps = Maps(Budget())
    maps.add(KeyValue(key=key, value=any_value(value)).SerializeToString() for key, value in pairs)
    assert maps.keys == [native.text(key) for key, _ in pairs]
    assert maps.values == [native.text(value_text(any_value(value))) for _, value in pairs]
    assert maps.offsets == [len(pairs)]


@given(st.binary(max_size=12))
def test_unusual_encodings_of_an_attribute_are_read_as_protobuf_reads_them(tail: bytes) -> None:
    """Fields twice, unknown fields, the value before the key: what the official decoder makes of it."""
    usual = KeyValue(key="k", value=any_value("v")).SerializeToString()
    for encoded in (usual + tail, tail + usual, usual[3:] + usual[:3], usual[:3], usual[3:], b""):
        message = KeyValue()
        try:
            message.ParseFromString(encoded)
        except Exception:  # noqa: BLE001 - refused before rows are made of it
            continue
        maps = Maps(Budget())
        maps.add([encoded])
        assert maps.keys == [native.text(message.key)]
        assert maps.values == [native.text(value_text(message.value))]


def test_a_block_names_its_columns_and_counts_its_rows() -> None:
    """As the engine reads it; no rows, no block."""
    [made] = log_rows(logs([{"time": 1, "body": "a"}, {"time": 2}]).SerializeToString())
    assert (made.table, made.size, made.notices) == ("audit_log", 2, ())
    assert made.block.startswith(native.varint(len(made.columns)) + native.varint(2))
    for name in made.columns:
        assert native.text(name) in made.block
    assert log_rows(b"") == []
    assert [made.size for made in span_rows(traces([]).SerializeToString())] == [0]


def test_notices_tell_each_invalid_id() -> None:
    """A text that is no UUID, an id of another type; a valid one is none."""
    valid = "01a2091d-b343-7f43-89f8-fff4a1fed36c"
    entries = [
        {"time": 1, "attributes": {"audit.record.id": value}} for value in (valid, "x", 7, "", valid[:-1])
    ]
    [made] = log_rows(logs(entries).SerializeToString())
    notices = made.notices
    assert [notice.split("'")[1] for notice in notices] == ["x", "7", "", valid[:-1]]


def test_doubles_are_written_as_the_exporter_writes_them() -> None:
    """Whole ones without a point, others shortest, what is no number by name."""
    cases = {
        3.0: "3",
        -0.5: "-0.5",
        1e20: "100000000000000000000",
        float("inf"): "+Inf",
        float("-inf"): "-Inf",
        float("nan"): "NaN",
    }
    assert [value_text(any_value(value)) for value in cases] == list(cases.values())
    assert value_text(any_value([float("nan"), 1.5])) == '["NaN",1.5]'


def test_times_after_2262_are_the_last_there_is() -> None:
    """Signed nanoseconds end there."""
    last = datetime.datetime(2262, 4, 11, 23, 47, 16, tzinfo=datetime.UTC)
    assert last.timestamp() == (2**63 - 1) // 10**9
    [made] = log_rows(logs([{"time": 2**64 - 1}]).SerializeToString())
    assert native.int64s([2**63 - 1]) in made.block
