"""A record in words: who, what, which object, what changed, how it ended. Everything comes out safe."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.audit_record import Actor, Change
from otel_audit.cli.output.safe import safe, shortened
from otel_audit.cli.output.work import work_line
from otel_audit.store.entries import AuditEntry, is_stamp

ACTION_STYLES: Final = {
    "CREATE": "green",
    "UPDATE": "yellow",
    "DELETE": "red",
    "READ": "cyan",
    "LOGIN": "blue",
    "LOGOUT": "blue",
    "IMPERSONATE": "magenta",
}
OUTCOME_STYLES: Final = {"success": "green", "failure": "bold red", "unknown": "bold magenta"}
_SIGNS: Final = {"success": "✓", "failure": "✗ failure", "unknown": "? unknown"}


def who(actor: Actor, known_as: str = "", customer_known_as: str = "") -> str:
    """Name the actor: by name, else id, with the name other records have for it; with whom they act for."""
    name = safe(actor.name or actor.id)
    if known_as and not actor.name:
        name = f"{name} [{safe(known_as)}]"
    if actor.type in ("system", "service"):
        name += f" ({actor.type})"
    customer = safe(actor.on_behalf_of_name or actor.on_behalf_of)
    if customer_known_as and not actor.on_behalf_of_name:
        customer = f"{customer} [{safe(customer_known_as)}]"
    return f"{name} for {customer}" if customer else name


def who_in_full(actor: Actor, known_as: str = "", customer_known_as: str = "") -> str:
    """Name the actor with type and id: ``alice (user 7)``; other records' names as :func:`who` does."""
    name = safe(actor.name or actor.id)
    if known_as and not actor.name:
        name = f"{name} [{safe(known_as)}]"
    identity = actor.type if not actor.name or actor.name == actor.id else f"{actor.type} {safe(actor.id)}"
    behalf = f", on behalf of {safe(actor.on_behalf_of)}" if actor.on_behalf_of else ""
    if customer_known_as and not actor.on_behalf_of_name:
        behalf += f" [{safe(customer_known_as)}]"
    if actor.on_behalf_of_name:
        behalf = f", on behalf of {safe(actor.on_behalf_of_name)} (user {safe(actor.on_behalf_of)})"
    return f"{name} ({identity}){behalf}"


def outcome(value: str, *, ascii_only: bool = False) -> str:
    """Mark how it ended: a tick, or a word that is seen."""
    return safe(value) if ascii_only else _SIGNS.get(value, safe(value))


def what_object(entry: AuditEntry) -> str:
    """Name the target; of a bulk record its type and number of rows."""
    if entry.target is None:
        return ""
    name = safe(entry.target)
    return f"{name} × {entry.rows}" if entry.rows and not entry.ordinal else name


def value(text: Any, width: int = 40) -> str:
    """Show one value: NULL as ``null``, other than text as JSON, empty and padded text in quotes."""
    if text is UNSET:
        return "?"
    if text is None:
        return "null"
    if not isinstance(text, str):
        text = msgspec.json.encode(text).decode()
    elif text != text.strip() or not text:
        text = f'"{text}"'
    return shortened(safe(text), width)


def change(each: Change, width: int = 40) -> str:
    """Show one change: ``status: new → paid``, ``total = 9.90`` for a first value, ``status was paid``."""
    name = safe(each.field)
    if each.old is UNSET and each.new is UNSET:
        return name
    if each.old is UNSET:
        return f"{name} = {value(each.new, width)}"
    if each.new is UNSET:
        return f"{name} was {value(each.old, width)}"
    return f"{name}: {value(each.old, width)} → {value(each.new, width)}"


def changes(
    entry: AuditEntry, width: int = 40, limit: int | None = None, *, verbose: bool = False
) -> list[str]:
    """Show what changed, one change per line, a created or deleted row on one; else the message.

    Fields that were set to the moment of the change, as ``auto_now`` does, are only named unless ``verbose``.
    """
    stamps = [] if verbose else [each for each in entry.changes if is_stamp(each, entry.timestamp)]
    told = [each for each in entry.changes if each not in stamps]
    if not told:
        told, stamps = stamps, []
    lines = list(filter(None, (work_line(entry, width),)))
    lines += [change(each, width) for each in told]
    if stamps:
        lines.append(f"{', '.join(safe(each.field) for each in stamps)} = now")
    if limit is not None and len(lines) > limit:
        lines = [*lines[: limit - 1], f"… {len(lines) - limit + 1} more"]
    if all(UNSET in (each.old, each.new) for each in entry.changes):
        lines = ["; ".join(lines)] if lines else []
    if entry.fields:
        lines.append(shortened(", ".join(map(safe, entry.fields)), 3 * width))
    if entry.message and not lines:
        lines.append(shortened(safe(entry.message), 3 * width))
    if entry.error and entry.error != str(entry.work.status):
        lines.append(safe(entry.error))
    return lines


def plural(number: int, noun: str) -> str:
    """Write a number and its noun: ``1 record``, ``2 records``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def place(entry: AuditEntry) -> str:
    """Say where from: the address, or what stands for it."""
    return safe(entry.source)
