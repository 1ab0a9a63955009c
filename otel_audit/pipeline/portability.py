"""What makes a record fit to be kept: portable values, and parts of the types a reader will expect.

Most records hold plain values only; that is seen in one look at all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from otel_audit.errors import InvalidRecord
from otel_audit.record import AuditRecord, Bulk, Change, Column, portable, portable_type

UNWEIGHED: Final = 1 << 62
"""Weight of values that were not weighed: above every limit."""

_ATOMS: Final = frozenset({type(None), bool, msgspec.UnsetType})
_PLAIN: Final = _ATOMS | {int, str, float}
_TEXTS: Final = frozenset({str})
_OUTCOMES: Final = frozenset({"success", "failure", "unknown"})


def portable_parts(
    changes: Sequence[Change], image: Mapping[str, Any] | None, attributes: Mapping[str, Any] | None
) -> tuple[list[Change], dict[str, Any], dict[str, Any], int]:
    """Give changes, image and attributes with portable values, and about how many bytes they are.

    The weight is ``UNWEIGHED`` if a value had to be converted.
    """
    image = image or {}
    attributes = attributes or {}
    values = [change.new for change in changes]
    values += [change.old for change in changes]
    values += image.values()
    values += attributes.values()
    weight = _weigh_plain(values)
    if weight >= 0 and _TEXTS.issuperset(map(type, attributes)):
        return list(changes), dict(image), dict(attributes), weight
    return (
        [_portable_change(change) for change in changes],
        {name: _portable_value(value) for name, value in image.items()},
        {str(portable(str(name))): _portable_value(value) for name, value in attributes.items()},
        UNWEIGHED,
    )


def _weigh_plain(values: list[Any]) -> int:
    """Give about how many bytes values are that are portable as they stand, -1 if one of them is not."""
    kinds = set(map(type, values))
    if not kinds <= _PLAIN:
        return -1
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
    return value if value.__class__ in _ATOMS else portable(value)


def _portable_change(change: Change) -> Change:
    old, new = change.old, change.new
    kind = change.type or _kind(new) or _kind(old)
    return Change(change.field, _portable_value(old), _portable_value(new), kind)


def _kind(value: Any) -> str:
    # A value that is not known (UNSET) has no type.
    return "" if value.__class__ in _ATOMS else portable_type(value)


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
    actor, target = record.actor, record.target
    texts = [change.field for change in record.changes]
    texts += (
        record.id,
        record.log,
        record.message,
        record.error,
        record.event_type,
        record.reason,
        record.tenant,
        record.system,
        record.code,
        actor.id,
        actor.name,
        actor.on_behalf_of,
    )
    texts += record.fields
    if target is not None:
        texts += (target.id, target.type)
    complete = actor.id and record.log and (target is None or target.type)
    if not complete or not _TEXTS.issuperset(map(type, texts)) or "" in texts[: len(record.changes)]:
        raise _wrong(record)
    if record.outcome not in _OUTCOMES:
        raise InvalidRecord(f"outcome is {record.outcome!r}; write 'success', 'failure' or 'unknown'")


def _wrong(record: AuditRecord) -> InvalidRecord:
    parts: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("id", "log", "message", "error", "event_type", "reason", "tenant", "system", "code")
    }
    parts |= {f"actor.{name}": getattr(record.actor, name) for name in ("id", "name", "on_behalf_of")}
    if record.target is not None:
        parts |= {"target.type": record.target.type, "target.id": record.target.id}
    for name, value in parts.items():
        if type(value) is not str or (not value and name in ("actor.id", "log", "target.type")):
            return InvalidRecord(f"{record.event_name}: {name} is {value!r}; write text, not empty")
    for change in record.changes:
        if type(change.field) is not str or not change.field:
            return InvalidRecord(f"{record.event_name}: a change's field is {change.field!r}; write its name")
    return InvalidRecord(f"{record.event_name}: fields are {record.fields!r}; write a list of names")
