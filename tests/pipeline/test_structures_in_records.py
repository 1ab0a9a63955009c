"""Records with structures, or fields that are kept: the plain values beside them are looked at together."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.audit_record import AuditRecord, Change
from otel_audit.config.model import RedactionConfig
from otel_audit.pipeline import validation
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.redaction.records import RecordRedactor
from otel_audit.redaction.redactor import Redactor
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import Conversion
from tests.pipeline.spooling import make_record

KEY = "k" * 32
ROW = {
    "name": "Ada",
    "price": decimal.Decimal("12.50"),
    "born": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "size": 7,
    "note": "a text that is longer than any shape of a secret",
}
SECRETS = (
    "hunter2",
    "password",
    "ghp_" + "a" * 36,
    "password=hunter2",
    "4111 1111 1111 1111",
    "\ud800",
    "--password",
)
TEXTS = st.one_of(st.sampled_from(SECRETS), st.text(max_size=12))
NAMES = st.one_of(
    st.sampled_from(["password", "token_count", "card", "name", "value", "a", "é", "\ud800", ""]), TEXTS
)
PLAIN = st.one_of(
    st.none(), st.booleans(), TEXTS, st.floats(), st.integers(), st.just(4111111111111111), st.decimals()
)
STRUCTURES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize("part", ["changes", "image", "attributes", "kept"])
def test_one_value_does_not_send_the_values_beside_it_the_long_way(
    pipeline: AuditPipeline, part: str
) -> None:
    """A structure, or a field that is always kept as foreign keys are: no other is looked at by itself."""
    structure = {"tags": ["new", "blue"], "deep": {"x": 1.5, "ok": True}}
    parts: dict[str, Any] = {"changes": [], "image": ROW, "attributes": {}}
    if part == "changes":
        parts["changes"] = [Change("data", structure, [*structure]), Change("name", "Bob", "Ada")]
    elif part == "kept":
        parts["strategies"] = {"size": "keep", "other": "mask"}
    else:
        parts[part] = {**parts[part], "data": structure}
    looked: list[object] = []

    def spy(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: object, *args: Any) -> Any:
            looked.extend(args)
            return method(self, *args)

        return call

    make_record(pipeline, **parts)  # the names of its fields have been judged
    with (
        patch.object(Conversion, "portable", spy(Conversion.portable)),
        patch.object(ValueRedactor, "field", spy(ValueRedactor.field)),
        patch.object(ValueRedactor, "_text", spy(ValueRedactor._text)),
    ):
        make_record(pipeline, **parts)
    assert not [value for value in looked if any(value is plain for plain in ROW.values())]


@given(
    values=st.dictionaries(NAMES, STRUCTURES, max_size=5),
    changed=st.lists(STRUCTURES, max_size=4),
    strategies=st.dictionaries(NAMES, st.sampled_from(["keep", "keep", "mask", "drop", "hmac"]), max_size=3),
)
@pytest.mark.parametrize("own", [(), ("^note$",)])
def test_redaction_with_one_look_removes_what_redaction_part_by_part_does(
    own: tuple[str, ...], values: dict[str, Any], changed: list[Any], strategies: dict[str, str]
) -> None:
    """Whatever stands in structures, beside them or as a name in them."""
    plain = Conversion()
    record = AuditRecord(
        id="1",
        timestamp=1,
        observed_timestamp=1,
        event_name="shop.order.update",
        action="UPDATE",
        changes=[Change("data", plain.portable(value), plain.portable(value)) for value in changed],
        image={plain.text(name): plain.portable(value) for name, value in values.items()},
    )
    redactor = Redactor(RedactionConfig(hmac_key=KEY, names=list(own)))
    with patch.object(RecordRedactor, "_is_clean", lambda *_: False):
        expected = Redactor(RedactionConfig(hmac_key=KEY, names=list(own))).record(record, strategies)
    for _ in range(2):  # what it has remembered by then changes nothing
        found = redactor.record(record, strategies)
        assert msgspec.msgpack.encode(found) == msgspec.msgpack.encode(expected)


@given(image=st.dictionaries(st.sampled_from("abcdef"), STRUCTURES), changed=st.lists(STRUCTURES, max_size=4))
def test_values_become_portable_together_as_they_do_one_by_one(
    image: dict[str, Any], changed: list[Any]
) -> None:
    """Values, names of types, and whether all is there."""
    changes = [Change("data", value, value) for value in changed]
    made, shown, _, weight, complete = validation.portable_parts(changes, image, None)
    convert = Conversion()
    assert repr(shown) == repr({name: convert.portable(value) for name, value in image.items()})
    with patch.object(validation, "_PLAIN", frozenset()), patch.object(validation, "_KNOWN", frozenset()):
        expected, same_image, _, _, whole = validation.portable_parts(changes, image, None)
    assert (repr(made), repr(shown), complete) == (repr(expected), repr(same_image), whole)
    assert weight == validation.UNWEIGHED or weight >= sum(map(len, map(str, shown.values()))) // 8


@pytest.mark.parametrize("levels", [30, 31, 32, 33, 63, 64, 65])
def test_a_structure_too_deep_to_look_into_is_masked_where_it_was(
    pipeline: AuditPipeline, levels: int
) -> None:
    """However deep, the same levels of it are recorded as when every value was looked at singly."""
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    record = make_record(pipeline, image={**ROW, "data": value})
    with patch.object(RecordRedactor, "_is_clean", lambda *_: False):
        expected = make_record(pipeline, image={**ROW, "data": value})
    assert record.image == expected.image
    assert ("end" in str(record.image)) == (levels <= 32)
