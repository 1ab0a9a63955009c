"""Records as a table that fits: one row each, or one line each where nobody looks at it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from otel_audit.cli import phrases
from otel_audit.cli.safe import safe
from otel_audit.cli.screen import Screen
from otel_audit.store.entries import AuditEntry
from otel_audit.store.times import format_iso, format_time, zone_name

_WIDE = 132
_MIDDLE = 96
_MOST_CHANGES = 5


def print_entries(screen: Screen, entries: Sequence[AuditEntry], *, header: bool = True) -> None:
    """Print entries as JSON lines, as a table for a terminal, or as one line each for a pipe."""
    if screen.json:
        for each in entries:
            screen.object(each.to_dict())
    elif screen.is_terminal:
        screen.print(entries_table(entries, screen, header=header))
    else:
        for line in entry_lines(entries, screen.zone, header=header):
            screen.line(line)


def entries_table(entries: Sequence[AuditEntry], screen: Screen, *, header: bool = True) -> Table:
    """Lay entries out for the width there is: eight columns, or five with two lines each."""
    width = screen.console.width
    wide = width >= _WIDE
    dates = {format_time(each.timestamp, zone=screen.zone)[:10] for each in entries}
    one_day = len(dates) == 1 and header
    table = Table(
        box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD,
        show_header=header,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        expand=False,
        title=_title(entries, screen, next(iter(dates)) if one_day else ""),
        title_justify="left",
        title_style="dim",
        show_lines=False,
    )
    table.add_column("time", no_wrap=True, style="dim")
    table.add_column("who", overflow="fold", max_width=None if wide else 16)
    table.add_column("action", no_wrap=True)
    table.add_column("object", overflow="fold", max_width=None if wide else 18 if width < _MIDDLE else 26)
    table.add_column("what changed", overflow="fold", ratio=1)
    if wide:
        table.add_column("outcome", no_wrap=True)
        table.add_column("from", overflow="fold")
        table.add_column("id", no_wrap=True, style="dim")
    for each in entries:
        table.add_row(*_cells(each, screen, wide=wide, date=not one_day))
    return table


def _title(entries: Sequence[AuditEntry], screen: Screen, day: str) -> str | None:
    if not entries:
        return None
    zone = safe(zone_name(entries[0].timestamp, zone=screen.zone))
    return f"{day}, times in {zone}" if day else f"times in {zone}"


def _cells(entry: AuditEntry, screen: Screen, *, wide: bool, date: bool) -> list[Text]:
    width = 48 if wide else 24
    action = Text(safe(entry.action), style=phrases.ACTION_STYLES.get(entry.action, ""))
    outcome = Text(
        phrases.outcome(entry.outcome, ascii_only=screen.ascii_only),
        style=phrases.OUTCOME_STYLES.get(entry.outcome, ""),
    )
    who = Text(phrases.who(entry.actor), style="italic" if entry.actor.type == "unknown" else "")
    changes = _changes(entry, width)
    time = format_time(entry.timestamp, zone=screen.zone)
    day, clock = time[:10], time[11:]
    what = Text(phrases.what_object(entry), style="bold")
    number = safe(entry.id[-8:])
    if wide:
        when = Text(f"{day} {clock}" if date else clock)
        return [when, who, action, what, changes, outcome, Text(phrases.place(entry)), Text(number)]
    if entry.outcome == "success":
        action.append(" ")
    else:
        action.append("\n")
    action.append_text(outcome)
    if place := phrases.place(entry):
        who.append("\n" + place, style="dim not italic")
    what.append("\n" + number, style="dim not bold")
    when = Text(f"{day}\n{clock}" if date else clock)
    return [when, who, action, what, changes]


def _changes(entry: AuditEntry, width: int) -> Text:
    lines = phrases.changes(entry, width, limit=_MOST_CHANGES)
    text = Text("\n".join(lines))
    text.highlight_regex(r" → ", style="dim")
    return text


def entry_lines(
    entries: Iterable[AuditEntry], zone: datetime.tzinfo | None, *, header: bool = True
) -> Iterable[str]:
    """Give one line a record, columns aligned, nothing cut: for pipes, files and grep."""
    rows = [("TIME", "WHO", "ACTION", "OUTCOME", "OBJECT", "FROM", "ID", "CHANGES")] if header else []
    rows += [
        (
            format_iso(each.timestamp, zone=zone, digits=3),
            phrases.who(each.actor),
            safe(each.action),
            safe(each.outcome),
            phrases.what_object(each) or "-",
            phrases.place(each) or "-",
            safe(each.id),
            "; ".join(phrases.changes(each, width=2000)),
        )
        for each in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(7)] if rows else []
    for row in rows:
        yield "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
