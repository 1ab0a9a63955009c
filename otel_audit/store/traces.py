"""One trace as a tree: spans below the spans that caused them, records below the span they were made in.

Records of one request, command, job or task are tied by its id as well, and those of what happened inside it
by its parent: so they are below the record of that work, also where no span is in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from otel_audit.store.entries import AuditEntry

SPAN_COLUMNS: Final = (
    "toUnixTimestamp64Nano(Timestamp) AS start, SpanId AS id, ParentSpanId AS parent_id, SpanName AS name, "
    "SpanKind AS kind, ServiceName AS service, toInt64(Duration) AS duration, StatusCode AS status, "
    "StatusMessage AS status_message, SpanAttributes AS attributes, Events.Name AS events"
)

TREE_PARTS: Final = ("span_id", "sequence", "request_id", "parent")
"""What :func:`tree` needs of an entry."""

_WORK: Final = (
    *("http.server.request", "command.run", "job.run", "task.run", "task.retry"),
    *("command.start", "job.start", "task.start"),
)
"""Events that stand for a piece of work, the better first: one id may have several, such as start and end."""


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
    """A span, or a request, command, job or task, with what happened in it, in the order of time.

    ``span`` is ``None`` for the record of such ``work``, and for records whose span is not in the store: not
    sampled, or not arrived yet.
    """

    span: Span | None
    work: AuditEntry | None = None
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
    found = sorted(entries, key=lambda each: (each.timestamp, each.sequence))
    roots += _with_entries(nodes, found)
    return Trace(id=trace_id, roots=roots, spans=len(nodes), entries=len(found))


def works(entries: Iterable[AuditEntry]) -> dict[str, AuditEntry]:
    """Return the records that stand for a request, command, job or task, by its id."""
    found: dict[str, AuditEntry] = {}
    for each in entries:
        if each.request_id and each.event_name in _WORK:
            other = found.get(each.request_id)
            if other is None or _WORK.index(each.event_name) <= _WORK.index(other.event_name):
                found[each.request_id] = each
    return found


def _with_entries(nodes: Mapping[str, SpanNode], entries: Sequence[AuditEntry]) -> list[SpanNode]:
    """Hang entries, in the order of time, below their spans and the work they were made in; return roots."""
    standing = works(entries)
    of_work = {each.id: SpanNode(span=None, work=each) for each in standing.values()}
    above: dict[str, AuditEntry] = {}
    for each in entries:
        own = standing.get(each.request_id)
        outer = standing.get(each.parent) if own is None or own is each else own
        # What has a span is where that is, and below the work only within the same one.
        if outer is not None and (each.span_id not in nodes or each.span_id == outer.span_id):
            above[each.id] = outer
    full = {outer.id for outer in above.values()}
    homeless = SpanNode(span=None)
    roots: list[SpanNode] = []
    for each in entries:
        node = of_work[each.id] if each.id in full else None
        outer = above.get(each.id)
        if outer is not None and not _is_inside(above, outer, each):
            place: SpanNode | None = of_work[outer.id]
        else:
            place = nodes.get(each.span_id)
        if node is None:
            (homeless if place is None else place).entries.append(each)
        elif place is None:
            roots.append(node)
        else:
            place.children.append(node)
    return [*roots, homeless] if homeless.entries else roots


def _is_inside(above: Mapping[str, AuditEntry], entry: AuditEntry, work: AuditEntry) -> bool:
    """Say whether a record is one of the work or lies below it: parents can be forged."""
    seen: set[str] = set()
    current: AuditEntry | None = entry
    while current is not None and current.id not in seen:
        if current is work:
            return True
        seen.add(current.id)
        current = above.get(current.id)
    return False


def _is_below(nodes: Mapping[str, SpanNode], node: SpanNode, ancestor: SpanNode) -> bool:
    seen: set[str] = set()
    current: SpanNode | None = node
    while current is not None and current.span is not None and current.span.id not in seen:
        if current is ancestor:
            return True
        seen.add(current.span.id)
        current = nodes.get(current.span.parent_id)
    return False
