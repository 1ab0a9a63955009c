"""A trace as a tree: spans with their duration, and below them the records made in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from rich.text import Text
from rich.tree import Tree

from otel_audit.cli.output import sentences
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.cli.output.work import duration
from otel_audit.store.entries import AuditEntry
from otel_audit.store.times import format_iso, format_time, zone_name
from otel_audit.store.traces import Span, SpanNode, Trace

_SHOWN_ATTRIBUTES = ("http.response.status_code", "http.status_code", "db.query.text", "db.statement")


def trace_objects(trace: Trace) -> Iterator[dict[str, Any]]:
    """Return spans and records in the order of the tree, each with its depth, as plain data for JSON."""
    stack: list[tuple[int, SpanNode | AuditEntry]] = [(0, root) for root in reversed(trace.roots)]
    while stack:
        depth, node = stack.pop()
        if isinstance(node, AuditEntry):
            yield {"kind": "record", "depth": depth, **node.to_dict()}
            continue
        if node.work is not None:
            yield {"kind": "record", "depth": depth, **node.work.to_dict()}
        elif node.span is not None:
            span = msgspec.to_builtins(node.span)
            span["span_kind"] = span.pop("kind")
            yield {"kind": "span", "depth": depth, "time": format_iso(node.span.start), **span}
        stack += [(depth + 1, each) for each in reversed(_inside(node))]


def trace_tree(trace: Trace, screen: Screen) -> Tree:
    """Lay a trace out, children in the order of time."""
    starts = [node.span.start for node in trace.roots if node.span is not None]
    began = min(starts, default=min(map(_began, trace.roots), default=0))
    zone = safe(zone_name(began, zone=screen.zone))
    heading = Text(f"trace {trace.id}" if trace.id else "no trace", style="bold")
    heading.append(f"  {format_time(began, zone=screen.zone)} {zone}", style="not bold dim")
    top = Tree(heading, guide_style="dim")
    stack: list[tuple[Tree, SpanNode | AuditEntry]] = [(top, root) for root in reversed(trace.roots)]
    while stack:
        branch, node = stack.pop()
        if isinstance(node, AuditEntry):
            branch.add(_record(node, screen))
            continue
        if node.work is not None:
            label = _record(node.work, screen)
        elif node.span is not None:
            label = _span(node.span, began)
        else:
            label = Text("records whose spans are not in the store", style="italic dim")
        inner = branch.add(label)
        # A stack goes backwards, and so must siblings; each is added to its own branch, in order.
        stack += [(inner, each) for each in reversed(_inside(node))]
    return top


def _began(node: SpanNode) -> int:
    return _time(node) or min((each.timestamp for each in node.entries), default=0)


def _inside(node: SpanNode) -> list[SpanNode | AuditEntry]:
    inside: list[SpanNode | AuditEntry] = [*node.children, *node.entries]
    return sorted(inside, key=_time)


def _time(node: SpanNode | AuditEntry) -> int:
    if isinstance(node, AuditEntry):
        return node.timestamp
    if node.work is not None:
        return node.work.timestamp
    return node.span.start if node.span is not None else 0


def _span(span: Span, began: int) -> Text:
    text = Text(safe(span.name), style="bold red" if span.status == "error" else "")
    text.append(f"  {_duration(span.duration)}", style="cyan")
    text.append(f"  +{_duration(span.start - began)}  {safe(span.service)}", style="dim")
    if span.kind not in ("internal", "unspecified", ""):
        text.append(f" {safe(span.kind)}", style="dim")
    if span.status == "error":
        text.append(
            f"  error {sentences.value(span.status_message, 80) if span.status_message else ''}", style="red"
        )
    for name in _SHOWN_ATTRIBUTES:
        if name in span.attributes:
            text.append(f"  {sentences.value(span.attributes[name], 80)}", style="dim")
    return text


def _record(entry: AuditEntry, screen: Screen) -> Text:
    text = Text("* " if screen.ascii_only else "● ", style=sentences.OUTCOME_STYLES.get(entry.outcome, ""))
    text.append(safe(entry.action), style=sentences.ACTION_STYLES.get(entry.action, "bold"))
    text.append(f" {sentences.what_object(entry)}", style="bold")
    text.append(f" by {sentences.who(entry.actor, entry.actor_known_as, entry.customer_known_as)} ")
    if entry.outcome != "success":
        text.append(
            sentences.outcome(entry.outcome, ascii_only=screen.ascii_only) + " ",
            style=sentences.OUTCOME_STYLES.get(entry.outcome, ""),
        )
    text.append("; ".join(sentences.changes(entry, 32, limit=4)))
    text.append(f"  {safe(entry.id[-8:])}", style="dim")
    return text


def _duration(nanoseconds: int) -> str:
    return duration(nanoseconds / 1e9)
