"""What makes a record fit to be kept: portable values, and parts of the types a reader will expect.

Most records hold plain values only; that is seen in one look at all of them together.
"""

from __future__ import annotations

import datetime
import decimal
import math
import operator
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from otel_audit.errors import InvalidRecord
from otel_audit.record import (
    ActorType,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Completeness,
    OldValues,
    Outcome,
    portable,
    portable_type,
)

UNWEIGHED: Final = 1 << 62
"""Weight of values that were not weighed: above every limit."""

_ATOMS: Final = frozenset({type(None), bool, msgspec.UnsetType})
_PLAIN: Final = _ATOMS | {int, str, float}
_SCALARS: Final[dict[type, Callable[[Any], str]]] = {
    decimal.Decimal: str,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    uuid.UUID: str,
}
"""What :func:`portable` does to the types most rows have, without a call for each value."""
_PLAIN_OR_SCALAR: Final = _PLAIN | _SCALARS.keys()
_TEXTS: Final = frozenset({str})
_OUTCOMES: Final = frozenset(get_args(Outcome))
_ACTOR_TYPES: Final = frozenset(get_args(ActorType))
_COMPLETENESS: Final = frozenset(get_args(Completeness))
_OLD_VALUES: Final = frozenset((None, *get_args(OldValues)))
_astuple = msgspec.structs.astuple


def portable_parts(
    changes: Sequence[Change], image: Mapping[str, Any] | None, attributes: Mapping[str, Any] | None
) -> tuple[list[Change], dict[str, Any], dict[str, Any], int]:
    """Give changes, image and attributes with portable values, and about how many bytes they are.

    The weight is ``UNWEIGHED`` if a value had to be converted.
    """
    image, attributes = dict(image or ()), dict(attributes or ())
    changes = list(changes)
    if not attributes or _TEXTS.issuperset(map(type, attributes)):
        values = _values(changes, image, attributes)
        kinds = set(map(type, values))
        if kinds <= _PLAIN_OR_SCALAR:
            if not kinds <= _PLAIN:
                changes = [_scalar_change(change) for change in changes]
                image, attributes = _scalars(image), _scalars(attributes)
                values = _values(changes, image, attributes)
            weight = _weigh_plain(values, kinds)
            if weight >= 0:
                return changes, image, attributes, weight
    return (
        [_portable_change(change) for change in changes],
        {name: _portable_value(value) for name, value in image.items()},
        {str(portable(str(name))): _portable_value(value) for name, value in attributes.items()},
        UNWEIGHED,
    )


def _values(changes: list[Change], image: dict[str, Any], attributes: dict[str, Any]) -> list[Any]:
    values = [*image.values(), *attributes.values()]
    for change in changes:
        values += (change.old, change.new)
    return values


def _scalars(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _SCALARS[kind](value) if (kind := type(value)) in _SCALARS else value
        for name, value in values.items()
    }


def _scalar_change(change: Change) -> Change:
    old, new = change.old, change.new
    if type(new) not in _SCALARS and type(old) not in _SCALARS:
        return change
    return Change(
        change.field,
        _SCALARS[type(old)](old) if type(old) in _SCALARS else old,
        _SCALARS[type(new)](new) if type(new) in _SCALARS else new,
        change.type or _kind(new) or _kind(old),
    )


def _weigh_plain(values: list[Any], kinds: set[type]) -> int:
    """Give about how many bytes plain values are; -1 if one of them is not portable as it stands."""
    if int in kinds:
        numbers = [value for value in values if type(value) is int]
        if max(numbers) >= 2**64 or min(numbers) < -(2**63):
            return -1
    if float in kinds and not all(math.isfinite(value) for value in values if type(value) is float):
        return -1
    text = "".join([value for value in values if type(value) is str])
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return -1
    return len(text) + 8 * len(values)


def _portable_value(value: Any) -> Any:
    return value if type(value) in _ATOMS else portable(value)


def _portable_change(change: Change) -> Change:
    old, new = change.old, change.new
    kind = change.type or _kind(new) or _kind(old)
    return Change(change.field, _portable_value(old), _portable_value(new), kind)


def _kind(value: Any) -> str:
    # A value that is not known (UNSET) has no type.
    return "" if type(value) in _ATOMS else portable_type(value)


def portable_bulk(bulk: Bulk) -> Bulk:
    """Give a bulk with portable values."""
    columns = [_portable_column(column) for column in bulk.columns]
    return Bulk(bulk.count, bulk.keys, columns, bulk.id, bulk.part, bulk.parts)


def _portable_column(column: Column) -> Column:
    return Column(column.field, _portable_array(column.old), _portable_array(column.new), column.type)


def _portable_array(values: Any) -> Any:
    return values if values is msgspec.UNSET else [_portable_value(value) for value in values]


def repaired(record: AuditRecord) -> AuditRecord:
    """Rebuild a record from portable values only.

    Raises:
        InvalidRecord: a part is of a type the record cannot have.
    """
    try:
        plain = portable(msgspec.to_builtins(record, enc_hook=portable, str_keys=True))
        return msgspec.convert(plain, AuditRecord, strict=False)
    except Exception as error:
        raise InvalidRecord(f"record {record.id}: {error}") from error


def check_types(record: AuditRecord) -> None:
    """Refuse what could be written but not read again: a reader checks the types of every part.

    Raises:
        InvalidRecord: a part is of the wrong type, or empty where it may not be.
    """
    actor, target, bulk = record.actor, record.target, record.bulk
    texts = [change.field for change in record.changes]
    names = len(texts)
    texts += _TEXTS_OF(record)
    texts += _astuple(actor)
    texts += _astuple(record.source)
    texts += _astuple(record.request)
    texts += _astuple(record.database)
    texts += record.fields
    for named in record.related if target is None else [target, *record.related]:
        texts += _astuple(named)
    if bulk is not None:
        texts += bulk.keys
        texts += [column.field for column in bulk.columns]
    complete = actor.id and record.log and (target is None or target.type) and "" not in texts[:names]
    if not complete or not _TEXTS.issuperset(map(type, texts)):
        raise _wrong(record)
    if (
        record.outcome not in _OUTCOMES
        or actor.type not in _ACTOR_TYPES
        or record.completeness not in _COMPLETENESS
        or record.old_values not in _OLD_VALUES
    ):
        raise _wrong_choice(record)


_TEXT_FIELDS: Final = ("id", "log", "message", "error", "event_type", "reason", "tenant", "system", "code")
_TEXTS_OF: Final = operator.attrgetter(*_TEXT_FIELDS)


def _wrong(record: AuditRecord) -> InvalidRecord:
    parts: dict[str, Any] = {name: getattr(record, name) for name in _TEXT_FIELDS}
    for group in ("actor", "target", "source", "request", "database"):
        part = getattr(record, group)
        if part is not None:
            parts |= {f"{group}.{name}": value for name, value in msgspec.structs.asdict(part).items()}
    for name, value in parts.items():
        if type(value) is not str or (not value and name in ("actor.id", "log", "target.type")):
            return InvalidRecord(f"{record.event_name}: {name} is {value!r}; write text, not empty")
    for change in record.changes:
        if type(change.field) is not str or not change.field:
            return InvalidRecord(f"{record.event_name}: a change's field is {change.field!r}; write its name")
    return InvalidRecord(
        f"{record.event_name}: fields are {record.fields!r}, related are {record.related!r}, bulk keys are "
        f"{record.bulk.keys[:10] if record.bulk else []!r}; write lists of text"
    )


def _wrong_choice(record: AuditRecord) -> InvalidRecord:
    for name, value, valid in (
        ("outcome", record.outcome, _OUTCOMES),
        ("actor.type", record.actor.type, _ACTOR_TYPES),
        ("completeness", record.completeness, _COMPLETENESS),
    ):
        if value not in valid:
            choices = ", ".join(map(repr, sorted(valid)))
            return InvalidRecord(f"{record.event_name}: {name} is {value!r}; write one of {choices}")
    return InvalidRecord(
        f"{record.event_name}: old_values is {record.old_values!r}; write 'as_loaded', 'exact' or None"
    )
