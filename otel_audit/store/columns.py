"""Which attributes of a record have a column, and what is stored beside: all the others.

The column ``attributes`` of the tables keeps what no column says, and ``attributes_form`` which columns stand
for attributes; :func:`whole` puts them together again, each name and text as it was sent. That this is so is
checked for each record as it is written: one whose columns do not give exactly its attributes (a name that is
there twice, a number written with zeros) keeps them all.
"""

from __future__ import annotations

import re
from typing import Final

from otel_audit.named_tuples import NamedTuple
from otel_audit.semconv import RECORD_ID, SCHEMA_VERSION, SCHEMAS


def attribute_names(path: str) -> list[str]:
    """Return the names of the attribute that holds ``path`` of a record, under every schema version."""
    names = dict.fromkeys(
        field.name for schema in SCHEMAS.values() for field in schema.fields if field.path == path
    )
    if not names:
        raise KeyError(f"{path!r} is not a part of a record")
    return list(names)


def attribute(path: str) -> str:
    """Return the SQL of the attribute that holds ``path`` of a record, as text, for every schema."""
    found = [f"LogAttributes['{name}']" for name in attribute_names(path)]
    if len(found) == 1:
        return found[0]
    return f"coalesce({', '.join(f'nullIf({name}, {chr(39) * 2})' for name in found)}, '')"


TEXT_COLUMNS: Final = {
    "log": "log",
    "event_name": "event_name",
    "actor_id": "actor.id",
    "actor_type": "actor.type",
    "actor_name": "actor.name",
    "on_behalf_of": "actor.on_behalf_of",
    "action": "action",
    "outcome": "outcome",
    "target_type": "target.type",
    "source_ip": "source.id",
    "session": "source.session",
    "request_id": "request.id",
    "method": "request.method",
    "route": "request.route",
    "tenant": "tenant",
    "system": "system",
    "event_type": "event_type",
    "reason": "reason",
    "error": "error",
    "transaction": "database.transaction",
    "completeness": "completeness",
    "old_values": "old_values",
    "stream": "sequence.stream",
    "slug": "slug",
    "parent": "request.parent",
    "path": "request.path",
    "view": "request.view",
}
"""Columns that are one text attribute, and the part of the record it holds."""

LATER: Final = ("slug", "parent", "path", "view")
"""Columns of these that came last: rows of before keep them among their attributes."""

RECORD_COLUMNS: Final = (
    *("timestamp", "record_id", "ordinal", *TEXT_COLUMNS, "service", "target_id", "truncated", "row_count"),
    *("sequence", "schema_version", "trace_id", "span_id", "message", "related"),
    *(f"changes.{part}" for part in ("field", "old", "new", "type", "known")),
    *("attributes", "resource", "attributes_form", "observed_after"),
)
"""The columns a row is written with, in their order."""


class _Bits(NamedTuple):
    """The bits of ``attributes_form``: what is left out of ``attributes``.

    0: written before there was this column; all attributes are there. Released numbers never change.
    """

    seen: int = 0
    """Set in every row that is written: what is not left out cannot be."""
    columns: int = 1
    """What has a column of its own."""
    fields: int = 2
    changes: int = 3
    bare: int = 4
    """Whole numbers and booleans of the changes stand without quotes."""
    later: int = 5
    """What has one of the columns that came last."""


_BIT: Final = _Bits()
WHOLE: Final = 1 << _BIT.seen
"""The form of a row that keeps all attributes it has."""

_TEXTS: Final = {
    **{attribute_names(path)[0]: name for name, path in TEXT_COLUMNS.items() if name not in LATER},
    attribute_names("target.id")[0]: "target_id",
    SCHEMA_VERSION: "schema_version",
}
"""Attributes that are their column, and its name."""
_LATER_TEXTS: Final = {attribute_names(TEXT_COLUMNS[name])[0]: name for name in LATER}
_OBSERVED: Final = attribute_names("observed_timestamp")[0]
_SEQUENCE: Final = attribute_names("sequence.number")[0]
_FORMER: Final = (*_TEXTS, RECORD_ID, _SEQUENCE, _OBSERVED)
"""Attributes that were told by a column from the first; the last ones not as text."""
OF_COLUMNS: Final = (*_FORMER, *_LATER_TEXTS)
"""Attributes that are told by a column."""


def _others(observed_after: str = "observed_after") -> dict[str, str]:
    """Return the SQL of the attributes that are in a column as something else than text."""
    return {
        RECORD_ID: "toString(record_id)",
        _SEQUENCE: "if(sequence = 0, '', toString(sequence))",
        _OBSERVED: f"toString(toUnixTimestamp64Nano(timestamp) + {observed_after})",
    }


def observed_after(source: str = "LogAttributes", time: str = "Timestamp") -> str:
    """Return the SQL of the nanoseconds from the time of a record to when it was observed."""
    return f"toInt64OrZero({source}['{_OBSERVED}']) - toUnixTimestamp64Nano({time})"


_FIELDS: Final = attribute_names("fields")[0]
_CHANGES: Final = attribute_names("changes")[0]
_MAP: Final = "Map(LowCardinality(String), String)"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_LETTER: Final = r'[^"\\\x00-\x1f]'
"""What stands in JSON as it is."""
_TEXT: Final = f'"{_LETTER}*"'
_NUMBER: Final = "0|-?[1-9][0-9]{0,17}"
_BARE: Final = f"^({_NUMBER}|true|false)$"
_NOT_BARE: Final = rf'""|"(-?[0-9]+[^"\\\x00-\x1f0-9]|[^"\\\x00-\x1f0-9tf-]){_LETTER}*"'
_SOME_VALUE_BARE: Final = '"(old|new)":[-0-9tf]'


def _grammar(value: str) -> str:
    """Return the pattern of changes that their columns tell to the byte, by that of a value."""
    sides = "".join(f'(,"{side}":(null|{value}))?' for side in ("old", "new"))
    one = rf'\{{"field":{_TEXT}{sides}(,"type":"{_LETTER}+")?\}}'
    return rf"^\[{one}(,{one})*\]$"


_ALL_QUOTED: Final = _grammar(_TEXT)
_SOME_BARE: Final = _grammar(f"{_NUMBER}|true|false|{_NOT_BARE}")


def _fields(fields: str) -> str:
    return f"concat('[\"', arrayStringConcat({fields}, '\",\"'), '\"]')"


def _changes(bare: str) -> str:
    """Return the SQL of the attribute with the changes of a stored row."""
    sides = []
    for side, value, known in (("old", "o", "substring(k, 1, 1)"), ("new", "n", "substring(k, 2, 1)")):
        shown = (
            f"multiIf({known} = 'n', 'null', {bare} AND match({value}, {_literal(_BARE)}), {value}, "
            f"concat('\"', {value}, '\"'))"
        )
        sides.append(f"if({known} = '-', '', concat(',\"{side}\":', {shown}))")
    kind = "if(t = '', '', concat(',\"type\":\"', t, '\"'))"
    one = f"concat('{{\"field\":\"', f, '\"', {', '.join(sides)}, {kind}, '}}')"
    parts = ", ".join(f"changes.{part}" for part in ("field", "old", "new", "type", "known"))
    return f"concat('[', arrayStringConcat(arrayMap((f, o, n, t, k) -> {one}, {parts}), ','), ']')"


def whole() -> str:
    """Return the SQL of all attributes of a stored row, as they were sent."""

    def only(bit: int, value: str) -> str:
        return f"if(bitTest(attributes_form, {bit}), {value}, '')"

    fields = only(_BIT.fields, _fields("changes.field"))
    changes = only(_BIT.changes, _changes(f"bitTest(attributes_form, {_BIT.bare})"))
    later = (only(_BIT.later, column) for column in _LATER_TEXTS.values())
    values = ", ".join((*_TEXTS.values(), *_others().values(), *later, fields, changes))
    names = [*OF_COLUMNS, _FIELDS, _CHANGES]
    left_out = f"mapFilter((k, v) -> v != '', mapFromArrays({names}, [{values}]))"
    together = f"mapConcat({left_out}, attributes)"
    return f"CAST(if(bitTest(attributes_form, {_BIT.columns}), {together}, attributes), '{_MAP}')"


def split_form(changes: str, *, fields: bool) -> tuple[int, bool]:
    """Return the form of a record whose columns tell its attributes, and whether they tell its changes.

    Args:
        changes: the attribute with the changes, empty if there is none.
        fields: whether they tell the names of fields that were read.
    """
    bare = bool(_some_value_bare(changes))
    told = bool((_some_bare if bare else _all_quoted)(changes))
    bits = {
        _BIT.columns: True,
        _BIT.later: True,
        _BIT.fields: fields,
        _BIT.changes: told,
        _BIT.bare: bare,
    }
    return WHOLE + sum(1 << bit for bit, is_set in bits.items() if is_set), told


_some_value_bare: Final = re.compile(_SOME_VALUE_BARE).search
_all_quoted: Final = re.compile(_ALL_QUOTED[1:-1]).fullmatch
_some_bare: Final = re.compile(_SOME_BARE[1:-1]).fullmatch


class Split(NamedTuple):
    """How a row keeps its attributes: SQL by name, and of these what it keeps, and the form that says so."""

    named: dict[str, str]
    rest: str
    form: str


def split() -> Split:
    """Return how a record that lands is split; its columns are there by their names.

    To make the attributes from the columns again and compare them would need more to analyse than all the
    rest of the view. What :func:`_changes` writes is a small language; that the text is in it does as well.
    """
    several = {
        name for path in TEXT_COLUMNS.values() if len(names := attribute_names(path)) > 1 for name in names
    }
    compared = {name: column for name, column in _TEXTS.items() if column == "log" or name in several}
    return _split(
        "LogAttributes",
        OF_COLUMNS,
        compared | _others(),
        fields=_fields("fields"),
        changes="isValidUTF8(changes_) AND "
        f"if(is_bare, match(changes_, {_literal(_SOME_BARE)}), match(changes_, {_literal(_ALL_QUOTED)}))",
    )


def split_stored() -> Split:
    """Return how a row that was stored with all its attributes is split; all is made again to compare.

    What has one of the columns that came last stays: the engine fills these columns from it.
    """
    return _split(
        "attributes",
        _FORMER,
        _TEXTS | _others(observed_after("attributes", "timestamp")),
        fields=_fields("changes.field"),
        changes=f"changes_ = {_changes('is_bare')}",
    )


def _split(
    source: str, told: tuple[str, ...], compared: dict[str, str], *, fields: str, changes: str
) -> Split:
    names = ", ".join(f"'{name}'" for name in told)
    same = " AND ".join(f"{source}['{name}'] = {column}" for name, column in compared.items())
    named = {
        "changes_": f"{source}['{_CHANGES}']",
        "fields_": f"{source}['{_FIELDS}']",
        "has_fields": f"fields_ != '' AND fields_ = {fields}",
        "is_bare": f"match(changes_, {_literal(_SOME_VALUE_BARE)})",
        "has_changes": f"changes_ != '' AND {changes}",
        # A name that is there twice has a column for one of them.
        "is_split": f"length(arrayDistinct(mapKeys({source}))) = length({source}) AND {same}",
        "rest_": f"mapFilter((k, v) -> v = '' OR NOT (k IN ({names}) OR k = '{_FIELDS}' AND has_fields "
        f"OR k = '{_CHANGES}' AND has_changes), {source})",
    }
    bits = {"has_fields": _BIT.fields, "has_changes": _BIT.changes, "is_bare": _BIT.bare}
    left_out = 1 << _BIT.seen | 1 << _BIT.columns | (1 << _BIT.later if told == OF_COLUMNS else 0)
    total = " + ".join((str(left_out), *(f"{1 << bit} * {name}" for name, bit in bits.items())))
    form = f"if(is_split, toUInt16({total}), toUInt16({WHOLE}))"
    return Split(named, f"if(is_split, rest_, {source})", form)
