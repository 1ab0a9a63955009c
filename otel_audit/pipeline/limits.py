"""How large a record may be, and what goes first when it is larger.

A signer or Collector refuses records beyond a size, and one refused record can block a queue for ever; so
records are cut here, at birth, openly: ``truncated`` is set and ``completeness`` says what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from otel_audit.audit_record import AuditRecord, Bulk, Change, Target
from otel_audit.long_texts import cut_again
from otel_audit.values import shorter

MAX_BYTES: Final = 512 * 1024
"""Of an encoded record."""
MAX_BULK_BYTES: Final = 1024 * 1024
"""Of an encoded bulk record."""
MAX_CELL: Final = MAX_BULK_BYTES // 2
"""Characters of one text value of a bulk record: an old and a new one fit together."""
MAX_TEXT: Final = 64 * 1024
"""Characters of one text value; longer ones are cut first."""
_CUT: Final = 4 * 1024
SMALL: Final = 32 * 1024
"""Records whose values weigh less need no closer look."""
_LONGEST_NUMBER: Final = 19  # of 64 bits

_encode = msgspec.msgpack.Encoder().encode


def fit(record: AuditRecord) -> AuditRecord:
    """Return the record, or one cut to size with ``truncated`` set."""
    if record.bulk is None and _weight(record) < SMALL:
        return record
    limit = MAX_BYTES if record.bulk is None else MAX_BULK_BYTES
    if record.bulk is not None:
        return record if len(_encode(record)) <= limit else _cut_bulk(record, limit)
    cut = _cut_values(record, MAX_TEXT, _cut_text)
    for step in (
        _cut_values_too,
        _cut_values_more,
        _cut_names,
        _without_image,
        _fewer_attributes,
        _without_values,
        _without_lists,
        _least,
    ):
        if len(_encode(cut)) <= limit:
            return cut
        cut = step(cut)
    return cut


def _weight(record: AuditRecord) -> int:
    """Estimate the size of the parts that can be large, without encoding them all."""
    weight = len(record.message) + 16 * (len(record.fields) + len(record.related))
    weight += sum(len(_encode(part)) for part in _named_parts(record)) + sum(map(len, record.fields))
    weight += sum(len(change.field) for change in record.changes)
    weight += sum(len(target.type) + len(target.id) for target in record.related)
    for change in record.changes:
        weight += _value_weight(change.old) + _value_weight(change.new)
    weight += sum(map(len, record.image)) + sum(map(len, record.attributes))
    return weight + _values_weight(record.image.values()) + _values_weight(record.attributes.values())


def _values_weight(values: Iterable[Any]) -> int:
    return sum(map(_value_weight, values))


def _value_weight(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return len(value)
    return len(_encode(value)) if kind is list or kind is dict else 8


def _cut_text(value: Any, limit: int) -> Any:
    if type(value) is str and len(value) > limit:
        return cut_again(value, limit)
    return value


def _cut_value(value: Any, limit: int) -> Any:
    return shorter(value, limit) if type(value) in (list, dict) else _cut_text(value, limit)


def _cut_values(record: AuditRecord, limit: int, cut: Callable[[Any, int], Any]) -> AuditRecord:
    shortened = msgspec.structs.replace(
        record,
        message=_cut_text(record.message, limit),
        changes=[
            Change(change.field, cut(change.old, limit), cut(change.new, limit), change.type)
            for change in record.changes
        ],
        image={name: cut(value, limit) for name, value in record.image.items()},
        attributes={name: cut(value, limit) for name, value in record.attributes.items()},
    )
    return record if shortened == record else msgspec.structs.replace(shortened, truncated=True)


def _cut_values_too(record: AuditRecord) -> AuditRecord:
    return _cut_values(record, MAX_TEXT, _cut_value)


def _cut_values_more(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(_cut_values(record, _CUT, _cut_value), truncated=True)


def _without_image(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(record, image={}, truncated=True)


def _fewer_attributes(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(record, attributes=shorter(record.attributes, MAX_TEXT), truncated=True)


def _without_values(record: AuditRecord) -> AuditRecord:
    changes = [Change(change.field, type=change.type) for change in record.changes]
    return msgspec.structs.replace(record, changes=changes, truncated=True)


def _without_lists(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(
        record,
        message=_cut_text(record.message, _CUT),
        changes=record.changes[:1000],
        fields=record.fields[:1000],
        related=record.related[:1000],
        truncated=True,
    )


_NAMES: Final = (
    *("event_name", "action", "log", "error", "event_type", "event_code", "slug"),
    *("reason", "tenant", "system", "code"),
)
_PARTS: Final = ("actor", "target", "source", "request", "origin", "database")


def _named_parts(record: AuditRecord) -> list[Any]:
    return [getattr(record, name) for name in (*_NAMES, *_PARTS)]


def _cut_names(record: AuditRecord) -> AuditRecord:
    """Cut ids, reasons and other texts that nobody expects to be long."""
    values: dict[str, Any] = {name: _cut_text(getattr(record, name), _CUT) for name in _NAMES}
    for name in _PARTS:
        part = getattr(record, name)
        if part is not None:
            values[name] = type(part)(*[_cut_text(text, _CUT) for text in msgspec.structs.astuple(part)])
    return msgspec.structs.replace(record, **values, truncated=True)


def _least(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(record, changes=[], fields=[], related=[], attributes={}, truncated=True)


def _cut_bulk(record: AuditRecord, limit: int) -> AuditRecord:
    """Degrade openly: without the values of the rows, then without their keys."""
    bulk = record.bulk
    assert bulk is not None
    ids = Bulk(bulk.count, bulk.keys, [], bulk.id, bulk.part, bulk.parts)
    fields = record.fields or [column.field for column in bulk.columns]
    cut = msgspec.structs.replace(record, bulk=ids, fields=fields, completeness="ids", truncated=True)
    if len(_encode(cut)) <= limit:
        return cut
    count = Bulk(bulk.count, [], [], bulk.id, bulk.part, bulk.parts)
    fewer = msgspec.structs.replace(
        cut,
        bulk=count,
        completeness="count",
        image={},
        attributes={},
        message=_cut_text(record.message, _CUT),
        fields=cut.fields[:1000],
    )
    return fewer if len(_encode(fewer)) <= limit else _least(_cut_names(fewer))


def without_any_values(record: AuditRecord) -> AuditRecord:
    """Take out everything that could be sensitive: what is left when redaction itself failed."""
    bulk, target = record.bulk, record.target
    if target is not None and not (target.id.isdecimal() and len(target.id) <= _LONGEST_NUMBER):
        target = Target(target.type)  # the key may be the secret
    return msgspec.structs.replace(
        record,
        target=target,
        changes=[Change(change.field, type=change.type) for change in record.changes],
        image={},
        bulk=None if bulk is None else Bulk(bulk.count, [], [], bulk.id, bulk.part, bulk.parts),
        fields=record.changed_fields,
        completeness=record.completeness if bulk is None else "count",
        message="",
        error="",
        reason="",
        attributes={},
        source=msgspec.structs.replace(record.source, user_agent=""),
        request=msgspec.structs.replace(record.request, path=""),
        database=msgspec.structs.replace(record.database, query=""),
        related=[],
        truncated=True,
    )
