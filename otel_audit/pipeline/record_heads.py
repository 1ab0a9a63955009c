"""Heads: what the records of one transaction share is encoded once.

Such records differ in id, times, key, changes and image. All else (actor, request, table, outcome, …) is cut,
as it was encoded, from one that was made in the general way: validated, redacted and held to its limits. The
next ones are their own parts between those bytes, and the same bytes on disk as a record made alone.

A head is found by the values in it, and kept no longer than the records of one transaction are made. Only
what is certain to need nothing else goes this way: the values of a record are looked at for secrets before it
is encoded, and one that holds anything unusual is made in the general way.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from otel_audit.audit_context import AuditContext, ContextFields, Moment
from otel_audit.audit_record import AuditRecord, Bulk, Change, Database, Outcome, Target, new_record_id
from otel_audit.otel_api import trace_ids
from otel_audit.pipeline.limits import SMALL
from otel_audit.pipeline.spool.frames import decode_record, encode_record

_encode = msgspec.msgpack.Encoder().encode
_NOTHING: Final = object()
NO_DATABASE: Final = Database()
"""Of a record that is not about a table; it is not the default, which an encoder leaves out."""


class EncodedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that was made as the bytes to keep; says of itself what the event on a span needs.

    ``changed_fields`` are the names of the fields it changed, or read.
    """

    id: str
    timestamp: int
    event_name: str
    action: str
    outcome: Outcome
    target: Target
    changed_fields: list[str]
    payload: bytes
    bulk: Bulk | None = None

    def decoded(self) -> AuditRecord:
        """Return the record."""
        return decode_record(self.payload)


Made: TypeAlias = AuditRecord | EncodedRecord
"""A record ready to be kept."""


def whole(made: Made) -> AuditRecord:
    """Return a record with all its parts."""
    return made.decoded() if type(made) is EncodedRecord else made  # type: ignore[return-value]


# The parts of a record, in the order in which a record is encoded.
class _Identity(msgspec.Struct):
    id: str
    timestamp: int
    observed_timestamp: int


class _Values(msgspec.Struct, omit_defaults=True):
    changes: list[Change] = []
    image: dict[str, Any] = {}


@cache
def _fields() -> dict[str, msgspec.structs.FieldInfo]:
    """Return the fields of a record by name; msgspec evaluates their annotations each time it is asked."""
    return {field.name: field for field in msgspec.structs.fields(AuditRecord)}


def fields_of_record(names: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Return fields of a record as :func:`msgspec.defstruct` takes them, to be encoded as they are there."""
    fields = _fields()
    return [(name, fields[name].type, _default(fields[name])) for name in names]


def _part_of_record(name: str, after: str, before: str | None) -> type[msgspec.Struct]:
    """Make a class of the fields of a record between two others."""
    names = AuditRecord.__struct_fields__
    chosen = names[names.index(after) + 1 : len(names) if before is None else names.index(before)]
    return msgspec.defstruct(name, fields_of_record(chosen), omit_defaults=True)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field(default=field.default) if field.default is not msgspec.NODEFAULT else msgspec.field()


_Before: Final = _part_of_record("_Before", "observed_timestamp", "target")
_Between: Final = _part_of_record("_Between", "target", "changes")
_Behind: Final = _part_of_record("_Behind", "image", None)


class Head:
    """The encoded parts that records have in common."""

    __slots__ = ("_before", "_behind", "_between", "_sizes", "action", "event_name", "outcome", "target_type")

    def __init__(self, record: AuditRecord, target: Target) -> None:
        self.event_name = record.event_name
        self.action = record.action
        self.outcome: Outcome = record.outcome
        self.target_type = target.type
        before, self._before = _body(_common(_Before, record))
        between, self._between = _body(_common(_Between, record))
        behind, self._behind = _body(_common(_Behind, record))
        self._before += b"\xa6target\x82\xa4type" + _encode(target.type) + b"\xa2id"
        # id, two times and the target; none, one or both of changes and image.
        count = before + between + behind + 4
        self._sizes = [_size_of_map(count), _size_of_map(count + 1), _size_of_map(count + 2)]

    @classmethod
    def of(cls, record: AuditRecord) -> Head | None:
        """Cut the head off a record; None if it is not one others can have as well."""
        target = record.target
        if target is None or not target.id or record.truncated:
            return None
        head = cls(record, target)
        again = head.payload(
            _Identity(record.id, record.timestamp, record.observed_timestamp),
            target.id,
            _Values(record.changes, record.image),
        )
        return head if again == encode_record(record) else None

    def payload(self, identity: _Identity, key: str, values: _Values) -> bytes:
        """Encode a record."""
        own = _encode(values)
        return b"".join(
            (
                self._sizes[own[0] & 0x0F],
                _encode(identity)[1:],
                self._before,
                _encode(key),
                self._between,
                own[1:],
                self._behind,
            )
        )


def _common(part: type[msgspec.Struct], record: AuditRecord) -> msgspec.Struct:
    return part(**{name: getattr(record, name) for name in part.__struct_fields__})


def _body(part: msgspec.Struct) -> tuple[int, bytes]:
    """Return how many members an encoded part has, and these without the size of their map."""
    encoded = _encode(part)
    if encoded[0] == 0xDE:
        return int.from_bytes(encoded[1:3], "big"), encoded[3:]
    return encoded[0] & 0x0F, encoded[1:]


def _size_of_map(count: int) -> bytes:
    # Two bytes for any count: an encoder that leaves out defaults makes room for all fields of a record.
    return b"\xde" + count.to_bytes(2, "big")


class _Resolved:
    """A scope that says what was known when it was asked."""

    __slots__ = ("_fields",)

    def __init__(self, fields: ContextFields) -> None:
        self._fields = fields

    def fields(self) -> ContextFields:
        """Return what was known."""
        return self._fields


class Looks(Protocol):
    """What heads need of a redactor."""

    def are_clean(
        self, names: list[str], values: list[Any], texts: list[str], strategies: Mapping[str, str]
    ) -> bool:
        """Tell in one go that nothing in named values and in texts is sensitive; False is only a doubt."""
        ...


class RecordHeads:
    """The heads of the records that are made in one go, by one thread.

    A kind of record is whatever the caller says its records have in common; who, where and how is found out
    here, for each record that was not made at the same place of the same work as the one before it.

    Args:
        redactor: looks at the values of each record.
    """

    def __init__(self, redactor: Looks) -> None:
        self._are_clean = redactor.are_clean
        self._heads: dict[tuple[Hashable, bytes], AuditRecord | Head | None] = {}
        self._context: object = _NOTHING
        self._noticed: object = None
        self._span: object = None
        self._tenant: str | None = None
        self._code = ""
        self._work = b""
        self._scope: AuditContext | None = None
        self._trace = ("", "")

    def find(self, kind: Hashable, at: Moment) -> Head | None:
        """Return the head of records of this kind that were made in the context of this moment."""
        if (
            at.context is not self._context
            or at.noticed is not self._noticed
            or at.span is not self._span
            or at.tenant != self._tenant
            or at.code != self._code
        ):
            self._resolve(at)
        found = self._heads.get((kind, self._work))
        if type(found) is AuditRecord:
            self._heads[kind, self._work] = None  # should it not be possible
            found = self._heads[kind, self._work] = Head.of(found)
        return found  # type: ignore[return-value]

    def _resolve(self, at: Moment) -> None:
        """Find out who works; what was said of it before counts again if it is the same to the byte."""
        self._context = _NOTHING
        fields, trace = at.fields(), trace_ids(at.span)
        self._work = _encode((fields, trace, at.tenant, at.code))
        self._trace = trace
        self._scope = AuditContext(_Resolved(fields))
        self._noticed, self._span, self._tenant, self._code = at.noticed, at.span, at.tenant, at.code
        self._context = at.context

    def moment(self, at: Moment) -> Moment:
        """Return the moment that was asked for last, in the context that was found then."""
        return Moment(at.time, self._scope, at.span, None, at.code, at.tenant)

    def learn(self, kind: Hashable, record: AuditRecord) -> None:
        """Take a record that was made of :meth:`moment`; the next of its kind may have its head."""
        if (record.trace_id, record.span_id) == self._trace:
            self._heads.setdefault((kind, self._work), record)

    def record(
        self,
        head: Head,
        at: Moment,
        key: str,
        changes: list[Change],
        image: dict[str, Any],
        looked: list[Any],
        strategies: Mapping[str, str],
    ) -> EncodedRecord | None:
        """Make a record of values that are portable; None if it must be made in the general way.

        Args:
            head: of records made at the same place of the same work.
            at: when.
            key: the id of its target, whose parts have no strategy.
            changes: what has changed.
            image: all that was written.
            looked: the values among them to look at for secrets.
            strategies: as for :meth:`otel_audit.pipeline.logger.AuditLogger.record`.
        """
        changed = [change.field for change in changes]
        if not self._are_clean([*image, *changed], looked, [key], strategies):
            return None
        timestamp, observed = at.time, time.time_ns()
        id_ = new_record_id(timestamp)
        identity = _Identity(id_, timestamp, observed if observed >= timestamp else timestamp)
        payload = head.payload(identity, key, _Values(changes, image))
        if len(payload) >= SMALL:
            return None
        target = Target(head.target_type, key)
        return EncodedRecord(
            id_, timestamp, head.event_name, head.action, head.outcome, target, changed, payload
        )
