"""One record in full, as lines a person reads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from otel_audit.audit_record import AuditRecord, Bulk, Change
from otel_audit.cli.output import exchanges, sentences
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.store.lookup import StoredRecord
from otel_audit.store.times import format_iso, zone_name
from otel_audit.store.work import KIND_OF

_MOST_ROWS = 50
_SHOWN_RESOURCE = (
    "service.name",
    "service.version",
    "service.instance.id",
    "deployment.environment.name",
    "host.name",
    "process.pid",
)


def record_dict(stored: StoredRecord) -> dict[str, Any]:
    """Return the whole record as plain data for JSON, times in ISO 8601 beside nanoseconds."""
    record = stored.record
    return {
        "time": format_iso(record.timestamp),
        "observed_time": format_iso(record.observed_timestamp),
        "outcome": record.outcome,  # said also where it is the usual one
        "log": record.log,
        **msgspec.to_builtins(record),
        "resource": stored.resource,
    }


def record_view(stored: StoredRecord, screen: Screen) -> RenderableType:
    """Lay one record out: what happened first, then its values, then where it came from."""
    record = stored.record
    parts: list[RenderableType] = [_headline(stored, screen), Text(), _facts(_what(stored, screen))]
    if record.changes:
        parts += [Text(), _changes(record.changes, screen)]
    if record.bulk is not None and record.bulk.keys:
        parts += [Text(), _bulk(record.bulk, screen)]
    if record.image:
        parts += [Text(), Text("Written row", style="bold"), _facts(_values(record.image))]
    for heading, text in exchanges.blocks(record.attributes):
        parts += [Text(), Text(heading, style="bold"), Text(text)]
    if others := dict(exchanges.facts(record.attributes)):
        parts += [Text(), Text(_others(record), style="bold"), _facts(_values(others))]
    parts += [Text(), Text("Where it came from", style="bold"), _facts(_origin(stored))]
    return Group(*parts)


def _headline(stored: StoredRecord, screen: Screen) -> Text:
    record = stored.record
    line = Text()
    line.append(safe(record.action), style=f"bold {sentences.ACTION_STYLES.get(record.action, '')}".strip())
    if record.target is not None:
        line.append(" " + safe(record.target), style="bold")
    line.append(f" by {sentences.who(record.actor, stored.actor_known_as, stored.customer_known_as)} ")
    line.append(
        sentences.outcome(record.outcome, ascii_only=screen.ascii_only),
        style=sentences.OUTCOME_STYLES.get(record.outcome, ""),
    )
    return line


def _facts(pairs: Iterator[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        if text:
            table.add_row(Text("  " + name), Text(text))
    return table


def _what(stored: StoredRecord, screen: Screen) -> Iterator[tuple[str, str]]:
    record = stored.record
    zone = safe(zone_name(record.timestamp, zone=screen.zone))
    local = format_iso(record.timestamp, zone=screen.zone).replace("T", " ")
    yield "time", f"{local[:29]} {zone}"
    yield "event", safe(record.event_name)
    yield "event code", safe(record.event_code)
    yield "event type", safe(record.event_type)
    yield "who", sentences.who_in_full(record.actor, stored.actor_known_as, stored.customer_known_as)
    yield "roles", safe(record.actor.roles.replace(",", ", "))
    if record.origin is not None:
        origin = record.origin
        name = f"{origin.name} (user {origin.actor})" if origin.name else origin.actor
        yield "begun by", safe(name + (f", request {origin.request}" if origin.request else ""))
    yield "object", safe(record.target or "")
    yield "outcome", safe(record.outcome) + (f": {safe(record.error)}" if record.error else "")
    yield "message", safe(record.message)
    yield "reason", safe(record.reason)
    if record.bulk is not None:
        bulk = record.bulk
        part = f", part {bulk.part} of {bulk.parts}" if bulk.parts > 1 else ""
        yield "rows", f"{bulk.count}{part}; completeness: {record.completeness}"
    elif record.completeness != "full":
        yield "completeness", safe(record.completeness)
    yield "fields", ", ".join(map(safe, record.fields))
    yield (
        "old values",
        {"as_loaded": "as the application had loaded them", "exact": "exact"}.get(
            record.old_values or "", ""
        ),
    )
    yield "related", ", ".join(map(safe, record.related))
    yield "truncated", "yes: too large for one record" if record.truncated else ""


def _changes(changes: list[Change], screen: Screen) -> Table:
    table = _table(screen)
    table.add_column("field", style="bold", overflow="fold")
    table.add_column("old", overflow="fold")
    table.add_column("new", overflow="fold")
    table.add_column("type", style="dim")
    for each in changes:
        table.add_row(*map(Text, (safe(each.field), _full(each.old), _full(each.new), safe(each.type))))
    return table


def _bulk(bulk: Bulk, screen: Screen) -> Table:
    table = _table(screen)
    table.add_column("id", style="bold", overflow="fold")
    for column in bulk.columns:
        table.add_column(Text(safe(column.field)), overflow="fold")
    for number, key in enumerate(bulk.keys[:_MOST_ROWS]):
        cells = [safe(key)]
        for column in bulk.columns:
            old = UNSET if column.old is UNSET else column.old[number]
            new = UNSET if column.new is UNSET else column.new[number]
            cells.append(sentences.change(Change("", old, new), 60).removeprefix(": ").strip())
        table.add_row(*map(Text, cells))
    if len(bulk.keys) > _MOST_ROWS:
        table.add_row(Text(f"… {len(bulk.keys) - _MOST_ROWS} more: --json has all", style="dim"))
    return table


def _table(screen: Screen) -> Table:
    return Table(
        box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=True,
        padding=(0, 1),
    )


def _values(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, each in values.items():
        yield safe(name), _full(each)


def _full(value: Any) -> str:
    return "" if value is UNSET else sentences.value(value, 4000)


def _others(record: AuditRecord) -> str:
    return "Details" if record.event_name in KIND_OF else "From the application"


def _origin(stored: StoredRecord) -> Iterator[tuple[str, str]]:
    record = stored.record
    yield "address", safe(record.source.id)
    yield "user agent", safe(record.source.user_agent)
    yield "session", safe(record.source.session)
    request = record.request
    yield "request", safe(f"{request.method} {request.path or request.route}".strip())
    yield "route", safe(request.route)
    yield "view", safe(request.view)
    yield "slug", safe(record.slug)
    yield "request id", safe(request.id)
    yield "inside of", safe(request.parent)
    yield "code", safe(record.code)
    database = record.database
    yield "table", safe(" ".join(filter(None, (database.system, database.namespace, database.table))))
    yield "server", safe(f"{database.address}:{database.port}" if database.port else database.address)
    yield "statement", safe(database.query)
    yield "transaction", safe(database.transaction)
    yield "tenant", safe(record.tenant)
    yield "system", safe(record.system)
    for name in _SHOWN_RESOURCE:
        yield name, safe(stored.resource.get(name, ""))
    yield "trace", safe(record.trace_id)
    yield "span", safe(record.span_id)
    yield "log", safe(record.log)
    if record.sequence is not None:
        yield "stream", f"{safe(record.sequence.stream)}, number {record.sequence.number}"
    yield "record id", safe(record.id)
