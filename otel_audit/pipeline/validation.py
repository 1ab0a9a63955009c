"""What makes a record fit to be kept: portable values, and parts of the types a reader will expect.

Most records hold plain values and exact texts only; that is seen in one look at all of them together.
Whatever else a caller handed over is converted here, and what cannot be is left out with ``truncated`` set.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, get_args

import msgspec

from otel_audit.audit_context import actor_of
from otel_audit.audit_record import (
    UNKNOWN,
    ActorType,
    AuditRecord,
    Bulk,
    Change,
    Completeness,
    Database,
    OldValues,
    Outcome,
    Target,
)
from otel_audit.errors import InvalidRecord
from otel_audit.interruptions import faults
from otel_audit.large_values import BEGINNING, PART
from otel_audit.pipeline import limits
from otel_audit.values import (
    MAX_PARTS,
    RECORDED,
    Conversion,
    Encoded,
    portable,
    portable_type,
    text,
    weigh_plain,
)

UNWEIGHED: Final = 1 << 62
"""Weight of values that were not weighed: above every limit."""

_ATOMS: Final = frozenset({type(None), bool, msgspec.UnsetType})
_PLAIN: Final = _ATOMS | {int, str, float}
_SCALARS: Final[dict[type, Callable[[Any], str]]] = {
    kind: convert for kind, (convert, _) in RECORDED.items() if kind is not Encoded
}
"""What :func:`portable` does to the types most rows have, without a call for each value."""
_KNOWN: Final = _PLAIN | _SCALARS.keys() | {dict, list}
"""Of these only structures need a closer look."""
_TEXTS: Final = frozenset({str})
OUTCOMES: Final = frozenset(get_args(Outcome))
ACTOR_TYPES: Final = frozenset(get_args(ActorType))
_COMPLETENESS: Final = frozenset(get_args(Completeness))
_OLD_VALUES: Final = frozenset((None, *get_args(OldValues)))
_astuple = msgspec.structs.astuple
_encode = msgspec.msgpack.Encoder().encode


def portable_parts(
    changes: Sequence[Change],
    image: Mapping[str, Any] | None,
    attributes: Mapping[str, Any] | None,
    keyed: Callable[[bytes], str] | None = None,
) -> tuple[list[Change], dict[str, Any], dict[str, Any], int, bool]:
    """Return changes, image and attributes with portable values, about how many bytes, and if all is there.

    The weight is ``UNWEIGHED`` if a value had to be converted. ``keyed`` returns the keyed hash of the digest
    of a value that was cut.
    """
    changes, image = list(islice(changes, MAX_PARTS + 1)), dict(image or ())
    attributes = attributes or {}
    if len(changes) <= MAX_PARTS and (not attributes or _are_plain_names(attributes)):
        attributes = dict(attributes)
        values = _values(changes, image, attributes)
        kinds = set(map(type, values))
        if kinds <= _PLAIN:
            weight = weigh_plain(values, kinds)
            if weight >= 0:
                return changes, image, attributes, weight, True
        elif kinds <= _KNOWN:
            convert = Conversion(keyed=keyed)
            made = [_known_change(change, convert) for change in changes]
            shown, added = _known_values(image, convert), _known_values(attributes, convert)
            weight = _weigh(_values(made, shown, added))
            if weight >= 0:
                return made, shown, added, weight, convert.complete
    convert = Conversion(keyed=keyed)
    if len(changes) > MAX_PARTS:
        changes, convert.complete = changes[:MAX_PARTS], False
    changes = [_portable_change(change, convert) for change in changes]
    image = {name: _portable_value(value, convert) for name, value in image.items()}
    return changes, image, convert.named(attributes), UNWEIGHED, convert.complete


def _are_plain_names(names: Mapping[str, Any]) -> bool:
    """Say whether all names are texts, and no more of them than a record carries."""
    return (
        len(names) <= MAX_PARTS
        and _TEXTS.issuperset(map(type, names))
        and sum(map(len, names)) + PART * len(names) <= limits.SMALL
    )


def _values(changes: list[Change], image: dict[str, Any], attributes: dict[str, Any]) -> list[Any]:
    values = [*image.values(), *attributes.values()]
    for change in changes:
        values += (change.old, change.new)
    return values


def _known_value(value: Any, convert: Conversion) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    scalar = _SCALARS.get(kind)
    return convert.portable(value) if scalar is None else scalar(value)


def _known_values(values: dict[str, Any], convert: Conversion) -> dict[str, Any]:
    return {
        name: value if type(value) in _PLAIN else _known_value(value, convert)
        for name, value in values.items()
    }


def _known_change(change: Change, convert: Conversion) -> Change:
    old, new = change.old, change.new
    if type(new) in _PLAIN and type(old) in _PLAIN:
        return change
    kind = change.type or _kind(new) or _kind(old)
    return Change(change.field, _known_value(old, convert), _known_value(new, convert), kind)


def _weigh(values: list[Any]) -> int:
    """Return about how many bytes values are; -1 if one of the plain ones is not portable as it stands."""
    structures = [value for value in values if type(value) is dict or type(value) is list]
    if not structures:
        return weigh_plain(values, set(map(type, values)))
    plain = [value for value in values if type(value) in _PLAIN]
    weight = weigh_plain(plain, set(map(type, plain)))
    return weight if weight < 0 else weight + sum(len(_encode(structure)) for structure in structures)


def _portable_value(value: Any, convert: Conversion) -> Any:
    return value if type(value) in _ATOMS else convert.portable(value)


def _portable_change(change: Change, convert: Conversion) -> Change:
    old, new = change.old, change.new
    kind = change.type or _kind(new) or _kind(old)
    return Change(change.field, _portable_value(old, convert), _portable_value(new, convert), kind)


def _kind(value: Any) -> str:
    # A value that is not known (UNSET) has no type.
    return "" if type(value) in _ATOMS else portable_type(value)


def portable_bulk(bulk: Bulk, keyed: Callable[[bytes], str] | None = None) -> tuple[Bulk, bool]:
    """Return a bulk with portable values, and whether all of them could be converted."""
    convert = Conversion(keyed=keyed)
    columns = [
        msgspec.structs.replace(
            column, old=_portable_array(column.old, convert), new=_portable_array(column.new, convert)
        )
        for column in bulk.columns
    ]
    return Bulk(bulk.count, bulk.keys, columns, bulk.id, bulk.part, bulk.parts), convert.complete


def _portable_array(values: Any, convert: Conversion) -> Any:
    return values if values is msgspec.UNSET else [_portable_value(value, convert) for value in values]


def repaired(record: AuditRecord) -> AuditRecord:
    """Rebuild a record from portable values only.

    Raises:
        InvalidRecord: a part is of a type the record cannot have.
    """
    try:
        plain = portable(msgspec.to_builtins(record, enc_hook=portable, str_keys=True))
        return msgspec.convert(plain, AuditRecord, strict=False)
    except faults() as error:
        raise InvalidRecord(f"record {record.id}: {error}") from error


def checked(record: AuditRecord) -> tuple[AuditRecord, int]:
    """Return a record whose parts all have the types a reader checks, and the length of its texts.

    Ids, names and texts of another type become text; an actor nobody can make out becomes ``unknown``.

    Raises:
        InvalidRecord: what happened, or to what, is not said: a part is empty, or none of the valid choices.
    """
    if len(record.fields) > MAX_PARTS or len(record.related) > MAX_PARTS or len(record.changes) > MAX_PARTS:
        record = _fewer(record)
    texts = _texts(record)
    if not _TEXTS.issuperset(map(type, texts)) or not record.actor.id or record.actor.type not in ACTOR_TYPES:
        record = _coerced(record)
        texts = _texts(record)
    length = sum(map(len, texts))
    if length > BEGINNING and max(map(len, texts)) > BEGINNING:
        record = _coerced(record)
        texts = _texts(record)
        length = sum(map(len, texts))
    target = record.target
    if not record.log or (target is not None and not target.type) or "" in texts[: len(record.changes)]:
        raise _empty(record)
    if (
        record.outcome not in OUTCOMES
        or record.completeness not in _COMPLETENESS
        or record.old_values not in _OLD_VALUES
    ):
        raise _wrong_choice(record)
    return record, length


def _fewer(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(
        record,
        changes=record.changes[:MAX_PARTS],
        fields=record.fields[:MAX_PARTS],
        related=record.related[:MAX_PARTS],
        truncated=True,
    )


_TEXT_FIELDS: Final = (
    "id",
    "event_name",
    "action",
    "outcome",
    "log",
    "message",
    "error",
    "event_type",
    "event_code",
    "slug",
    "reason",
    "tenant",
    "system",
    "code",
)
_TEXTS_OF: Final = operator.attrgetter(*_TEXT_FIELDS)
_DATABASE_TEXTS: Final = ("system", "namespace", "table", "transaction", "query", "address")
_DATABASE_TEXTS_OF: Final = operator.attrgetter(*_DATABASE_TEXTS)
_FIELD: Final = operator.attrgetter("field")
_TYPE: Final = operator.attrgetter("type")


def _texts(record: AuditRecord) -> list[Any]:
    """List everything that must be text, the fields of changes first.

    The types of changes are not among them: :func:`with_texts` sees to those the application hands over.
    """
    target, bulk = record.target, record.bulk
    texts: list[Any] = []
    try:
        texts += map(_FIELD, record.changes)
        texts += _TEXTS_OF(record)
        texts += _astuple(record.actor)
        texts += _astuple(record.source)
        texts += _astuple(record.request)
        texts += _DATABASE_TEXTS_OF(record.database)
        if record.origin is not None:
            texts += _astuple(record.origin)
        texts += record.fields
        for named in record.related if target is None else [target, *record.related]:
            texts += _astuple(named)
        if bulk is not None:
            texts += bulk.keys
            texts += map(_FIELD, bulk.columns)
            texts += map(_TYPE, bulk.columns)
    except (AttributeError, TypeError):
        texts.append(None)
    return texts


def _coerced(record: AuditRecord) -> AuditRecord:
    convert = Conversion()
    try:
        actor = actor_of(record.actor, convert)
        if not actor.id or actor.type not in ACTOR_TYPES:
            kind = actor.type if actor.type in ACTOR_TYPES else "unknown"
            actor = msgspec.structs.replace(actor, id=actor.id or UNKNOWN, type=kind)
            convert.complete = False
        texts = {name: convert.text(getattr(record, name)) for name in _TEXT_FIELDS}
        made = msgspec.structs.replace(
            record,
            **texts,
            actor=actor,
            target=None if record.target is None else _target(record.target, convert),
            source=convert.texts(record.source),
            request=convert.texts(record.request),
            database=_database(record.database, convert),
            origin=None if record.origin is None else convert.texts(record.origin),
            changes=[
                Change(convert.text(change.field), change.old, change.new, convert.text(change.type))
                for change in record.changes
            ],
            bulk=None if record.bulk is None else _bulk(record.bulk, convert),
            fields=_all_texts(record.fields, convert),
            related=[_target(named, convert) for named in record.related],
        )
    except (AttributeError, TypeError) as error:
        raise InvalidRecord(f"{text(record.event_name)}: a part has the wrong type: {error}") from error
    return made if convert.complete else msgspec.structs.replace(made, truncated=True)


def _target(target: Target, convert: Conversion) -> Target:
    if not isinstance(target, Target):
        raise TypeError(f"{type(target).__qualname__} is not a Target; write Target('shop.Order', '7')")
    return convert.texts(target)


def _database(database: Database, convert: Conversion) -> Database:
    texts = {name: convert.text(getattr(database, name)) for name in _DATABASE_TEXTS}
    return Database(**texts, port=database.port if type(database.port) is int else 0)


def _bulk(bulk: Bulk, convert: Conversion) -> Bulk:
    columns = [
        msgspec.structs.replace(column, field=convert.text(column.field), type=convert.text(column.type))
        for column in bulk.columns
    ]
    return msgspec.structs.replace(bulk, keys=_all_texts(bulk.keys, convert), columns=columns)


def _all_texts(values: Iterable[Any], convert: Conversion) -> list[str]:
    return list(map(convert.text, [values] if isinstance(values, str) else values))


def _empty(record: AuditRecord) -> InvalidRecord:
    if not record.log:
        return InvalidRecord(f"{record.event_name}: log is empty; write 'audit' or the name of another log")
    if record.target is not None and not record.target.type:
        return InvalidRecord(f"{record.event_name}: target.type is empty; write one such as 'shop.Order'")
    return InvalidRecord(f"{record.event_name}: the field of a change is empty; write its name")


def _wrong_choice(record: AuditRecord) -> InvalidRecord:
    for name, value, valid in (
        ("outcome", record.outcome, OUTCOMES),
        ("completeness", record.completeness, _COMPLETENESS),
    ):
        if value not in valid:
            choices = ", ".join(map(repr, sorted(valid)))
            return InvalidRecord(f"{record.event_name}: {name} is {value!r}; write one of {choices}")
    return InvalidRecord(
        f"{record.event_name}: old_values is {record.old_values!r}; write 'as_loaded', 'exact' or None"
    )


def with_texts(changes: Sequence[Change]) -> list[Change]:
    """Return changes whose types are text, of the application's own records."""
    return [
        change if type(change.type) is str else msgspec.structs.replace(change, type=text(change.type))
        for change in changes
    ]


def name_of(value: Any) -> Any:
    """Return an event name or action as text where it is one in another guise: an enum, a lazy text."""
    plain = portable(value)
    return plain if type(plain) is str and portable_type(value) in ("", "text") else value
