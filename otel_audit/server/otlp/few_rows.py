"""Requests of few records, as rows of their table, complete, so that the engine has only to write them.

To turn log records into rows in SQL takes the engine some 30 ms of analysing the statement, however few they
are; to write them takes 9 ms. So of a request of few records the rows are made here, by the rules of
:func:`otel_audit.store.schema.record_rows`, some 50 µs each. This is for what our own senders send; it tells
what is unusual apart, and leaves it to the SQL:

- a record with rows of its own (bulk), and one with the same attribute twice;
- JSON that is not exactly as we write it: what its reader makes of other types or of names that are there
  twice, only the engine knows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from otel_audit.semconv import RECORD_ID, SCHEMA_VERSION
from otel_audit.server.engine import native
from otel_audit.server.engine.native import text
from otel_audit.server.otlp import wire
from otel_audit.server.otlp.limits import Budget
from otel_audit.server.otlp.rows import (
    UUID,
    Maps,
    Origin,
    Origins,
    body_text,
    landed_time,
    resource_origin,
)
from otel_audit.store import schema
from otel_audit.store.columns import (
    OF_COLUMNS,
    RECORD_COLUMNS,
    TEXT_COLUMNS,
    WHOLE,
    attribute_names,
    split_form,
)

MOST: Final = 256
"""Records of a group up to which its rows are made here. From some hundred on the engine is faster."""


class _Unusual(Exception):
    """A record whose rows only the engine can make."""


_EMPTY: Final = b"\0"


def _keys(path: str) -> tuple[bytes, ...]:
    return tuple(text(name) for name in attribute_names(path))


_RECORD_ID: Final = text(RECORD_ID)
_SCHEMA_VERSION: Final = text(SCHEMA_VERSION)
_TEXTS: Final = {name: _keys(path) for name, path in TEXT_COLUMNS.items()}
_FIRST_KEYS: Final = [keys[0] for keys in _TEXTS.values()]
_OTHER_KEYS: Final = [(at, keys[1:]) for at, keys in enumerate(_TEXTS.values()) if keys[1:]]
_LOG_AT: Final = list(_TEXTS).index("log")
_DEFAULT_LOG: Final = text(schema.DEFAULT_LOG)
_TARGET_ID, _SEQUENCE, _TRUNCATED = map(_keys, ("target.id", "sequence.number", "truncated"))
_CHANGES, _RELATED, _FIELDS = map(_keys, ("changes", "related", "fields"))
_OBSERVED: Final = _keys("observed_timestamp")[0]
_OF_COLUMNS: Final = frozenset(map(text, OF_COLUMNS))
_LEFT_OUT: Final = {
    (fields, changes): _OF_COLUMNS.union(_FIELDS[:1] if fields else (), _CHANGES[:1] if changes else ())
    for fields in (False, True)
    for changes in (False, True)
}
"""By whether the columns tell the fields that were read, and the changes."""
_PLAIN_UUID: Final = re.compile(rb"\x24[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIGNED: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_TWO_63: Final = 2**63
_TRUE: Final = text("true")
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
_BULK: Final = frozenset(_keys("bulk"))
_LOGS: Final = {schema.events(log.name): log.name for log in schema.LOGS}


class _Columns:
    """The columns of the table of records, being built."""

    def __init__(self, log: str) -> None:
        self.budget = budget = Budget()  # without a limit: the rows were counted when they came
        self.size = 0
        self._log = None if log == schema.OTHER_LOG else text(log)
        self._times: list[int] = []
        self._ids: list[bytes] = []
        self._texts: list[list[bytes]] = []
        self._services: list[bytes] = []
        self._target_ids: list[bytes] = []
        self._truncated: list[int] = []
        self._sequences: list[int] = []
        self._versions: list[bytes] = []
        self._trace_ids: list[bytes] = []
        self._span_ids: list[bytes] = []
        self._messages: list[bytes] = []
        self._related = _Arrays()
        self._changes = _Changes()
        self._forms: list[int] = []
        self._observed_after: list[int] = []
        self._attributes = Maps(budget)
        self._resources = Origins()

    def add(self, record: Any) -> None:
        """Append one record.

        Raises:
            _Unusual: it is not for us; what was appended so far is of no use.
        """
        attributes = self._attributes
        begin = len(attributes.keys)
        attributes.add(record.attributes)
        keys = attributes.keys[begin:]
        found = dict(zip(keys, attributes.values[begin:], strict=True))
        if len(found) != len(keys) or not _BULK.isdisjoint(keys):
            raise _Unusual
        get = found.get
        texts = [get(key, _EMPTY) for key in _FIRST_KEYS]
        for at, others in _OTHER_KEYS:
            if texts[at] == _EMPTY:
                texts[at] = _first(found, others)
        if texts[_LOG_AT] == _EMPTY:
            texts[_LOG_AT] = _DEFAULT_LOG
        if self._log not in (None, texts[_LOG_AT]):
            raise _Unusual
        self.size += 1
        time = landed_time(record.time or record.observed_time)
        self._times.append(time)
        self._ids.append(_uuid(get(_RECORD_ID, _EMPTY)))
        self._texts.append(texts)
        self._target_ids.append(_first(found, _TARGET_ID))
        self._truncated.append(_first(found, _TRUNCATED) == _TRUE)
        self._sequences.append(_whole(_first(found, _SEQUENCE)))
        self._versions.append(get(_SCHEMA_VERSION, _EMPTY))
        self._trace_ids.append(text(record.trace_id.hex()))
        self._span_ids.append(text(record.span_id.hex()))
        self._messages.append(body_text(record.body, self.budget))
        self._related.add(_related(_first(found, _RELATED)))
        names = self._changes.add(_first(found, _CHANGES), _first(found, _FIELDS))
        observed = _moment(get(_OBSERVED, _EMPTY))
        self._observed_after.append((observed - time + _TWO_63) % (2 * _TWO_63) - _TWO_63)
        form, left_out = _form(found, names)
        self._forms.append(form)
        attributes.leave_out(begin, left_out)

    def resource(self, resource: Origin, count: int) -> None:
        """Append what sent the last ``count`` records."""
        self._services += [resource.name] * count
        self._resources.repeat(resource, count)

    def block(self) -> bytes:
        """Return the block of the Native format."""
        size = self.size
        data = {
            "timestamp": native.int64s(self._times),
            "record_id": b"".join(self._ids),
            "ordinal": bytes(4 * size),
            "service": b"".join(self._services),
            "target_id": b"".join(self._target_ids),
            "truncated": native.uint8s(self._truncated),
            "row_count": bytes(8 * size),
            "sequence": native.uint64s(self._sequences),
            "schema_version": b"".join(self._versions),
            "trace_id": b"".join(self._trace_ids),
            "span_id": b"".join(self._span_ids),
            "message": b"".join(self._messages),
            "related": self._related.data(),
            "attributes": self._attributes.data(),
            "resource": self._resources.data(),
            "attributes_form": native.uint16s(self._forms),
            "observed_after": native.int64s(self._observed_after),
            **dict(zip(_TEXTS, map(b"".join, zip(*self._texts, strict=True)), strict=True)),
            **self._changes.data(),
        }
        parts = [_COUNT, native.varint(size)]
        for name, head in _HEADS:
            parts += (head, data[name])
        return b"".join(parts)


class _Arrays:
    """A column of arrays of texts, being built."""

    __slots__ = ("_offsets", "_values")

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._values: list[bytes] = []

    def add(self, values: Sequence[str]) -> None:
        self._values += map(text, values)
        self._offsets.append(len(self._values))

    def data(self) -> bytes:
        return native.uint64s(self._offsets) + b"".join(self._values)


class _Changes:
    """The columns of what was changed or read, being built."""

    PARTS: Final = ("field", "old", "new", "type", "known")

    def __init__(self) -> None:
        self._parts = {part: _Arrays() for part in self.PARTS}

    def add(self, changes: bytes, fields: bytes) -> list[str]:
        """Append those of one record, its changes or else the fields that were read; return their names."""
        listed = _decoded(changes, _changes_decoder) if changes != _EMPTY else []
        names = [each.get("field") or "" for each in listed]
        if not listed and fields != _EMPTY:
            names = _decoded(fields, _names_decoder)
        nothing = [""] * (len(names) - len(listed))
        self._parts["field"].add(names)
        for side in ("old", "new", "type"):
            self._parts[side].add([each.get(side) or "" for each in listed] + nothing)
        known = [_known(each, "old") + _known(each, "new") for each in listed]
        self._parts["known"].add(known + ["--"] * len(nothing))
        return names

    def data(self) -> dict[str, bytes]:
        return {f"changes.{part}": arrays.data() for part, arrays in self._parts.items()}


def _known(change: dict[str, str | None], side: str) -> str:
    if side not in change:
        return "-"
    return "n" if change[side] is None else "v"


_changes_decoder: Final = msgspec.json.Decoder(list[dict[str, str | None]])
_names_decoder: Final = msgspec.json.Decoder(list[str])
_objects_decoder: Final = msgspec.json.Decoder(list[dict[str, str]])
_OBJECT: Final = {"type", "id"}


def _decoded(encoded: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Return the value of a text that is JSON exactly as we write it."""
    raw = _content(encoded)
    try:
        value = decoder.decode(raw)
    except msgspec.DecodeError:
        raise _Unusual from None
    if msgspec.json.encode(value) != raw:
        raise _Unusual
    return value


def _related(encoded: bytes) -> list[str]:
    if encoded == _EMPTY:
        return []
    objects = _decoded(encoded, _objects_decoder)
    if any("type" not in each or not each.keys() <= _OBJECT for each in objects):
        raise _Unusual
    return [f"{each['type']}/{each['id']}" if each.get("id") else each["type"] for each in objects]


def _form(found: dict[bytes, bytes], names: list[str]) -> tuple[int, frozenset[bytes]]:
    """Return the form of a record, and the attributes that its columns tell; as ``columns.split`` does."""
    get = found.get
    if (
        get(_FIRST_KEYS[_LOG_AT], _EMPTY) == _EMPTY
        or not _PLAIN_UUID.fullmatch(get(_RECORD_ID, _EMPTY))
        or _content(get(_SEQUENCE[0], _EMPTY))[:1] == b"0"
        or _OBSERVED not in found
    ):
        return WHOLE, frozenset()
    fields = _content(get(_FIELDS[0], _EMPTY)).decode()
    told = fields != "" and fields == '["' + '","'.join(names) + '"]'
    form, changes_told = split_form(_content(get(_CHANGES[0], _EMPTY)).decode(), fields=told)
    return form, _LEFT_OUT[told, changes_told]


def _first(found: dict[bytes, bytes], keys: Sequence[bytes]) -> bytes:
    """Return the value of the first of these attributes that is not empty."""
    return next((value for key in keys if (value := found.get(key, _EMPTY)) != _EMPTY), _EMPTY)


def _content(encoded: bytes) -> bytes:
    """Return a text without its length in front."""
    if encoded[0] < 128:
        return encoded[1:]
    return encoded[sum(1 for _ in itertools.takewhile(lambda byte: byte > 127, encoded)) + 1 :]


def _uuid(encoded: bytes) -> bytes:
    """Return a UUID as the engine has it: two numbers of 64 bits, the lowest byte first."""
    if not UUID.fullmatch(encoded):
        raise _Unusual
    data = bytes.fromhex(encoded[1:].replace(b"-", b"").decode())
    return data[7::-1] + data[:7:-1]


def _moment(encoded: bytes) -> int:
    if encoded == _EMPTY:
        return 0
    digits = _content(encoded)
    if not _SIGNED.fullmatch(digits) or not -_TWO_63 <= int(digits) < _TWO_63:
        raise _Unusual
    return int(digits)


def _whole(encoded: bytes) -> int:
    if encoded == _EMPTY:
        return 0
    digits = _content(encoded)
    if not _NUMBER.fullmatch(digits):
        raise _Unusual
    return int(digits)


_STRINGS: Final = "Array(String)"
_MAP: Final = "Map(String, String)"
_TYPES: Final = {
    "timestamp": "DateTime64(9, 'UTC')",
    "record_id": "UUID",
    "ordinal": "UInt32",
    "truncated": "Bool",
    "row_count": "UInt64",
    "sequence": "UInt64",
    "attributes_form": "UInt16",
    "observed_after": "Int64",
    "related": _STRINGS,
    "attributes": _MAP,
    "resource": _MAP,
    **{f"changes.{part}": _STRINGS for part in _Changes.PARTS},
}
"""Of columns that are not texts."""
_HEADS: Final = [(name, text(name) + text(_TYPES.get(name, "String"))) for name in RECORD_COLUMNS]
_COUNT: Final = native.varint(len(_HEADS))


def few_rows(table: str, body: bytes) -> bytes | None:
    """Return the rows of requests, one after the other, as one block of the Native format.

    None if there is anything unusual in one of them.

    Args:
        table: the table they are for; its columns are :data:`~otel_audit.store.columns.RECORD_COLUMNS`.
        body: what :func:`~otel_audit.server.otlp.engine_rows.rows_by_engine` found the engine could read.
    """
    columns = _Columns(_LOGS[table])
    resources: dict[bytes, Origin] = {}  # each of the requests has one, and most have the same
    try:
        for resource_logs in wire.Logs.FromString(body).resource_logs:
            encoded = resource_logs.resource
            resource = resources.get(encoded) or resource_origin(encoded, columns.budget)
            resources[encoded] = resource
            for scope_logs in resource_logs.scope_logs:
                for record in scope_logs.log_records:
                    columns.add(record)
                columns.resource(resource, len(scope_logs.log_records))
    except _Unusual:
        return None
    return columns.block()
