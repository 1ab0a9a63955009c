"""A record as one line of text: ids, times and places replaced, everything else as it was captured.

An id becomes its kind and how many there were before it, so that what shared an id still shares one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.semconv import RECORD_ID, TARGET_TYPE

_IDS: Final = {
    "id": "record",
    "request.id": "request",
    "origin.request": "request",
    "source.session": "session",
    "database.transaction": "transaction",
    "database.namespace": "database",
    "database.address": "address",
    "database.port": "port",
    "bulk.id": "bulk",
    "trace_id": "trace",
    "span_id": "span",
}
_TIMES: Final = ("timestamp", "observed_timestamp")
_STREAM: Final = "audit.sequence.stream_id"
_OBSERVED: Final = "otel_audit.observed_timestamp"
_PORT: Final = "server.port"
_BULK: Final = "otel_audit.bulk"
_ATTRIBUTES: Final = "otel_audit.attributes"


class Canonical:
    """Writes records, and what is made of them, with the same replacements."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def record(self, record: AuditRecord) -> str:
        """Return the line of a captured record."""
        parts = json.loads(msgspec.json.encode(record))
        for path, kind in _IDS.items():
            *groups, name = path.split(".")
            holder: Any = parts
            for group in groups:
                holder = holder.get(group) or {}
            if holder.get(name):
                holder[name] = self._name(kind, holder[name])
        for name in _TIMES:
            parts[name] = 0
        return _line("record", parts)

    def sent(self, attributes: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
        """Return the line of a record as it was sent: its attributes in their order, and OTLP's own."""
        self._name("record", attributes[RECORD_ID])
        self._name("stream", attributes[_STREAM])
        named = {name: self._known(value) for name, value in attributes.items()}
        named[_OBSERVED] = 0
        if named.get(_PORT):
            named[_PORT] = self._name("port", named[_PORT])
        if named.get(_BULK):
            named[_BULK] = self._in_text(named[_BULK])
        if named.get(TARGET_TYPE) == "audit.stream":
            named[_ATTRIBUTES] = "the process"
        return _line(
            "sent", {"attributes": named, **{name: self._known(value) for name, value in fields.items()}}
        )

    def event(self, name: str, attributes: Mapping[str, Any]) -> str:
        """Return the line of an event on a span."""
        return _line(
            "event", {"name": name, **{key: self._known(value) for key, value in attributes.items()}}
        )

    def _known(self, value: Any) -> Any:
        return self._names.get(value, value) if isinstance(value, str) else value

    def _in_text(self, text: str) -> str:
        bulk = json.loads(text)
        return text.replace(bulk["id"], self._name("bulk", bulk["id"])) if bulk.get("id") else text

    def _name(self, kind: str, value: Any) -> str:
        known = self._names.get(str(value))
        if known is None:
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            known = self._names[str(value)] = f"{kind} {count}"
        return known


def _line(kind: str, content: Any) -> str:
    # Each lone surrogate has a line as well: in ASCII, everything has one.
    return f"{kind} {json.dumps(content, ensure_ascii=True)}"
