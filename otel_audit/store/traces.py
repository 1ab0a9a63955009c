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
    known = {each.id: each for each in sorted(spans, key=lambda each: each.start)}
    nodes = {each.id: SpanNode(span=each) for each in known.values()}
    above = {each.id: each.parent_id for each in known.values() if each.parent_id in nodes}
    roots: list[SpanNode] = []
    for number, node in nodes.items():
        parent = above.get(number)
        if parent is None or _is_below(above, parent, number):
            roots.append(node)
        else:
            nodes[parent].children.append(node)
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
    above: dict[str, str] = {}
    for each in entries:
        own = standing.get(each.request_id)
        outer = standing.get(each.parent) if own is None or own is each else own
        # What has a span is where that is, and below the work only within the same one.
        if outer is not None and (each.span_id not in nodes or each.span_id == outer.span_id):
            above[each.id] = outer.id
    full = set(above.values())
    homeless = SpanNode(span=None)
    roots: list[SpanNode] = []
    for each in entries:
        node = of_work[each.id] if each.id in full else None
        around = above.get(each.id)
        if around is not None and not _is_below(above, around, each.id):
            place: SpanNode | None = of_work[around]
        else:
            place = nodes.get(each.span_id)
        if node is None:
            (homeless if place is None else place).entries.append(each)
        elif place is None:
            roots.append(node)
        else:
            place.children.append(node)
    return [*roots, homeless] if homeless.entries else roots


def _is_below(above: Mapping[str, str], one: str, other: str) -> bool:
    """Say whether one span or record is the other, or lies below it.

    Parents can be forged or damaged: what is its own ancestor must become a root, or it would be lost.
    """
    seen: set[str] = set()
    current: str | None = one
    while current is not None and current not in seen:
        if current == other:
            return True
        seen.add(current)
        current = above.get(current)
    return False
