"""Values: whatever a caller or a database hands out becomes portable, frozen and text, and nothing raises."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import uuid
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import sampling

from otel_audit.large_values import LEFT_OUT
from otel_audit.values import (
    MAX_DEPTH,
    MAX_PARTS,
    Conversion,
    freeze,
    freeze_json,
    instant_text,
    is_written,
    key_text,
    key_texts,
    portable,
    portable_type,
    record_value,
    record_values,
    same,
    text,
)
from tests.hostile_values import Broken, Markup, Mute, Number, Plain, Ratio, anything, recursive_list


class Colour(enum.Enum):
    """An enumeration whose values need converting themselves."""

    RED = decimal.Decimal("1.50")


class Size(enum.StrEnum):
    SMALL = "s"


class Level(enum.IntEnum):
    HIGH = 3


class Moment(datetime.datetime):
    """As of pendulum, pandas or freezegun."""


class Identifier(uuid.UUID):
    """As of asyncpg."""


TOKYO = datetime.timezone(datetime.timedelta(hours=9))


@pytest.mark.parametrize(
    ("value", "expected", "kind"),
    [
        (None, None, ""),
        (True, True, ""),
        (7, 7, ""),
        (2**64, str(2**64), ""),
        (1.5, 1.5, ""),
        (math.nan, "nan", ""),
        (-math.inf, "-inf", ""),
        ("é", "é", ""),
        ("a\ud800b", "a?b", ""),
        (decimal.Decimal("19.90"), "19.90", "decimal"),
        (datetime.date(2026, 11, 23), "2026-11-23", "date"),
        (datetime.time(8, 30), "08:30:00", "time"),
        (datetime.datetime(2026, 11, 23, 8, tzinfo=datetime.UTC), "2026-11-23T08:00:00+00:00", "datetime"),
        (datetime.datetime(2026, 11, 23, 8, tzinfo=TOKYO), "2026-11-22T23:00:00+00:00", "datetime"),
        (datetime.datetime(1, 1, 1, tzinfo=TOKYO), "0001-01-01T00:00:00+09:00", "datetime"),
        (datetime.timedelta(seconds=90), "PT90S", "duration"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007", "uuid"),
        (b"\x00\xff", "AP8=", "bytes"),
        (bytearray(b"\x00\xff"), "AP8=", "bytes"),
        ({"a": (1, decimal.Decimal(2))}, {"a": [1, "2"]}, ""),
        ({None: 1, True: 2, 3: 4, Size.SMALL: 5}, {"null": 1, "true": 2, "3": 4, "s": 5}, ""),
        (OrderedDict(a=1), {"a": 1}, ""),
        (MappingProxyType({"a": 1}), {"a": 1}, ""),
        ({3, 1, 2}, [1, 2, 3], ""),
        (Colour.RED, "1.50", "decimal"),
        (Size.SMALL, "s", ""),
        (Level.HIGH, 3, ""),
        (Markup("<b>"), "<b>", ""),
        (Number(7), 7, ""),
        (Ratio(0.5), 0.5, ""),
        (Moment(2026, 11, 23, 8, tzinfo=TOKYO), "2026-11-22T23:00:00+00:00", "datetime"),
        (Identifier(int=7), "00000000-0000-0000-0000-000000000007", "uuid"),
        (Mute(), "<Mute>", "text"),
        (Plain(), "<Plain>", "text"),
        (sampling, f"<module '{sampling.__name__}' from '{sampling.__file__}'>", "text"),
        (len.__call__, "<method-wrapper '__call__' of builtin_function_or_method object>", "text"),  # type: ignore[operator]
    ],
)
def test_a_value_becomes_portable_and_its_type_is_named(value: Any, expected: Any, kind: str) -> None:
    made = portable(value)
    assert made == expected
    assert type(made) is type(expected)
    assert portable_type(value) == kind


@settings(deadline=None)
@given(anything)
def test_whatever_it_is_it_becomes_strict_json_and_a_text_and_can_be_frozen_and_compared(value: Any) -> None:
    json.dumps(portable(value), allow_nan=False).encode()
    assert isinstance(portable_type(value), str)
    assert type(text(value)) is str
    frozen = freeze(value)
    assert freeze(frozen) is frozen
    assert same(frozen, frozen)
    recorded, kind = record_value(frozen)
    json.dumps(portable(recorded), allow_nan=False).encode()
    assert isinstance(kind, str)
    assert type(key_text(value)) is str
    assert type(key_text((value, 1))) is str


def test_an_integer_too_long_for_decimal_digits_is_hexadecimal() -> None:
    assert portable(10**5000) == hex(10**5000)
    assert key_text(10**5000) == key_texts([1, 10**5000])[1]
    assert key_text(10**5000).startswith(hex(10**5000)[:1000])


def test_what_could_not_be_converted_is_known() -> None:
    for value in (Mute(), Plain(), Broken(), {"a": [Mute()]}, recursive_list(), [0] * (MAX_PARTS + 1)):
        convert = Conversion()
        convert.portable(value)
        assert not convert.complete
    convert = Conversion()
    convert.portable({"a": [1, Markup("x"), Colour.RED, 10**5000]})
    assert convert.complete


def test_a_structure_is_followed_to_a_bounded_depth_and_number_of_parts() -> None:
    deep: Any = "end"
    for _ in range(MAX_DEPTH * 2):
        deep = [deep]
    assert LEFT_OUT in json.dumps(portable(deep), ensure_ascii=False)
    wide: Any = "end"
    for _ in range(50):
        wide = [wide, wide]
    assert len(json.dumps(portable(wide))) < 100 * MAX_PARTS


def test_an_object_without_a_text_has_no_address_in_memory_and_equals_only_itself() -> None:
    one, other = Plain(), Plain()
    assert "0x" not in str(record_value(freeze(one)))
    assert "0x" not in str(portable(lambda: 1))
    assert same(freeze(one), freeze(one))
    assert not same(freeze(one), freeze(other))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        (7, "7"),
        (True, "true"),
        (None, ""),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
        (Size.SMALL, "s"),
        (Markup("x"), "x"),
        (["a", 1], '["a",1]'),
        (Mute(), ""),
    ],
)
def test_a_text_is_a_text_and_nothing_where_there_is_none(value: Any, expected: str) -> None:
    assert text(value) == expected
    assert type(text(value)) is str


def test_a_moment_has_one_text_whichever_way_it_comes() -> None:
    in_tokyo = datetime.datetime(2026, 1, 1, 9, tzinfo=TOKYO)
    in_utc = in_tokyo.astimezone(datetime.UTC)
    expected = "2026-01-01T00:00:00+00:00"
    for moment in (in_tokyo, in_utc):
        assert portable(moment) == text(moment) == key_text(moment) == expected
        assert record_value(freeze(moment)) == (expected, "datetime")
        assert key_text((1, moment)) == f'[1,"{expected}"]'


@given(
    st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.binary(), st.decimals(allow_nan=False))
)
def test_a_subclass_freezes_to_the_plain_value(value: Any) -> None:
    class_ = type(value)
    subclass = type("Sub", (class_,), {"__str__": lambda self: "no", "__repr__": lambda self: "no"})
    frozen = freeze(subclass(value))
    assert type(frozen) is class_
    assert frozen == value
    assert portable(subclass(value)) == portable(value)


def test_a_mock_is_converted() -> None:
    from unittest.mock import MagicMock

    assert type(text(MagicMock())) is str
    freeze(MagicMock())


def test_a_mapping_with_keys_of_any_kind_keeps_its_items() -> None:
    found = portable({Mute(): 1, (1, 2): 2, b"x": 3})
    assert found == {"<Mute>": 1, "[1,2]": 2, "eA==": 3}


def test_what_is_frozen_does_not_follow_later_changes() -> None:
    value = {"a": [1]}
    frozen = freeze(value)
    value["a"].append(2)
    assert record_value(frozen) == ({"a": [1]}, "")
    assert freeze(msgspec.UNSET) is not None


structures = st.one_of(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    ),
    st.sampled_from(
        [{"a": "b" * 200_000}, {"a": "b" * 5000}, [[]] * 9000, {"[": "{" * 80}, {"b": 1, "a": 2}]
    ),
    st.integers(1, 90).map(lambda depth: msgspec.json.decode("[" * depth + "]" * depth)),
)


@given(structures)
def test_what_was_written_as_json_is_frozen_as_what_it_says(value: Any) -> None:
    document = msgspec.json.encode(value)
    expected = freeze(msgspec.json.decode(document))
    found = freeze_json(document)
    assert type(found) is type(expected)
    assert same(found, expected)
    assert record_value(found) == record_value(expected)


@given(structures, st.one_of(structures, anything))
def test_a_structure_known_for_what_was_frozen_is_the_same_frozen(value: Any, other: Any) -> None:
    assert not is_written(freeze(value), other) or same(freeze(value), freeze(other))
    assert is_written(freeze({"b": [1, None]}), {"b": [1, None]})


columns = st.one_of(
    *(
        st.lists(st.one_of(st.none(), cell), min_size=1, max_size=8)
        for cell in (
            st.integers(),
            st.floats(),
            st.text(),
            st.one_of(st.text(), st.just("\ud800"), st.booleans(), st.integers()),
            st.decimals(allow_nan=False),
            st.datetimes(timezones=st.sampled_from([None, datetime.UTC, TOKYO])),
            st.dates(),
            st.times(),
            st.timedeltas(),
            st.uuids(),
            st.binary(),
            st.recursive(
                st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.just("\ud800"), st.decimals()),
                lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
            ).map(lambda value: value if isinstance(value, dict | list) else [value]),
            st.sampled_from(
                [
                    {"a": "b" * 200_000},
                    {"a": "b" * 40_000},
                    [[]] * 9000,
                    recursive_list(),
                    {1: 2},
                    {None: {3}},
                    {"a": 2**64},
                    [-(2**63) - 1],
                ]
            ),
            anything,
        )
    )
)


@settings(max_examples=400, deadline=None)
@given(columns)
def test_many_values_are_recorded_as_each_of_them_is(values: list[Any]) -> None:
    frozen = [freeze(value) for value in values]
    expected = [portable(record_value(value)[0]) for value in frozen]
    held = [old if type(old) in (dict, list) else new for old, new in zip(values, frozen, strict=True)]
    for column in (frozen, held):
        recorded, certain = record_values(column)
        assert repr([portable(value) for value in recorded]) == repr(expected)
        assert not certain or repr(recorded) == repr(expected)


@given(
    st.datetimes(timezones=st.one_of(st.none(), st.timezones(), st.just(datetime.UTC), st.just(TOKYO))),
    st.booleans(),
)
def test_a_moment_is_written_as_iso_8601_has_it(value: datetime.datetime, whole: bool) -> None:
    """In UTC if it is aware; with microseconds only where it has some; in every year of the calendar."""
    if whole:
        value = value.replace(microsecond=0)
    try:
        expected = (value if value.tzinfo is None else value.astimezone(datetime.UTC)).isoformat()
    except OverflowError:  # the first and last hours of the calendar
        expected = value.isoformat()
    assert instant_text(value) == expected
