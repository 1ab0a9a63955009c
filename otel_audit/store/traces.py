"""One trace as a tree: spans below the spans that caused them, records below the span they were made in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from otel_audit.store.entries import AuditEntry

SPAN_COLUMNS: Final = (
    "toUnixTimestamp64Nano(Timestamp) AS start, SpanId AS id, ParentSpanId AS parent_id, SpanName AS name, "
    "SpanKind AS kind, ServiceName AS service, toInt64(Duration) AS duration, StatusCode AS status, "
    "StatusMessage AS status_message, SpanAttributes AS attributes, Events.Name AS events"
)

TREE_PARTS: Final = ("span_id", "sequence")
"""What :func:`tree` needs of an entry."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span; ``start`` in nanoseconds since the epoch, ``duration`` in nanoseconds."""

    id: str
    parent_id: str
    name: str
    kind: str
    service: str
    start: int
    duration: int
    status: str
    status_message: str
    attributes: dict[str, str]
    events: list[str]


class SpanNode(msgspec.Struct, kw_only=True):
    """A span with what happened in it, in the order of time.

    ``span`` is ``None`` for records whose span is not in the store: not sampled, or not arrived yet.
    """

    span: Span | None
    children: list[SpanNode] = []
    entries: list[AuditEntry] = []


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace: its root spans in the store, and what is below them."""

    id: str
    roots: list[SpanNode]
    spans: int
    entries: int

    def __bool__(self) -> bool:
        return bool(self.roots)


def span(row: Mapping[str, Any]) -> Span:
    """Decode a row selected by :data:`SPAN_COLUMNS`; kind and status in lower case, without prefix."""
    values = dict(row)
    values["kind"] = values["kind"].removeprefix("SPAN_KIND_").lower()
    values["status"] = values["status"].removeprefix("STATUS_CODE_").lower()
    return msgspec.convert(values, Span)


def tree(trace_id: str, spans: Iterable[Span], entries: Iterable[AuditEntry]) -> Trace:
    """Hang spans below their parents and entries below their spans; what has none becomes a root."""
    nodes = {each.id: SpanNode(span=each) for each in sorted(spans, key=lambda each: each.start)}
    roots: list[SpanNode] = []
    for node in nodes.values():
        assert node.span is not None
        parent = nodes.get(node.span.parent_id)
        # A trace can be forged or damaged: a span that is its own ancestor is a root, or it would be lost.
        if parent is None or _is_below(nodes, parent, node):
            roots.append(node)
        else:
            parent.children.append(node)
    homeless = SpanNode(span=None)
    count = 0
    for each in sorted(entries, key=lambda each: (each.timestamp, each.sequence)):
        count += 1
        nodes.get(each.span_id, homeless).entries.append(each)
    if homeless.entries:
        roots.append(homeless)
    return Trace(id=trace_id, roots=roots, spans=len(nodes), entries=count)


def _is_below(nodes: Mapping[str, SpanNode], node: SpanNode, ancestor: SpanNode) -> bool:
    seen: set[str] = set()
    current: SpanNode | None = node
    while current is not None and current.span is not None and current.span.id not in seen:
        if current is ancestor:
            return True
        seen.add(current.span.id)
        current = nodes.get(current.span.parent_id)
    return False
