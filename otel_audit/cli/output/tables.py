"""Records as a table that fits: one row each, or one line each where nobody looks at it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from rich import box
from rich.table import Table
from rich.text import Text

from otel_audit.cli.output import sentences
from otel_audit.cli.output.comma_separated import CSV_PARTS, csv_lines
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.cli.output.sentences import plural
from otel_audit.store.entries import LISTED, AuditEntry
from otel_audit.store.times import format_iso, format_time, zone_name

if TYPE_CHECKING:
    from otel_audit.store.blame import Blame

_WIDE = 132
_MIDDLE = 96
_MOST_CHANGES = 5
STREAM_EVENTS: Final = frozenset({"audit.stream.start", "audit.stream.end"})


def parts_shown(screen: Screen) -> tuple[str, ...] | None:
    """Name the parts of entries that :func:`print_entries` shows, for the store to read no others."""
    return None if screen.json else CSV_PARTS if screen.csv else LISTED


_NO_NOTES: Final[Mapping[str, list[str]]] = {}


def print_entries(
    screen: Screen,
    entries: Sequence[AuditEntry],
    *,
    header: bool = True,
    notes: Mapping[str, list[str]] = _NO_NOTES,
) -> None:
    """Print entries as JSON or CSV lines, as a table for a terminal, or as one line each for a pipe.

    ``notes`` are lines to show above the entry with this id; for JSON and CSV they are remarks.
    """
    if screen.json or screen.csv:
        for each in entries if screen.json else ():
            screen.object(each.to_dict())
        for line in csv_lines(entries, header=header) if screen.csv else ():
            screen.line(line)
        for each in entries:
            for note in notes.get(each.id, ()):
                screen.remark(note)
        return
    shown = entries if screen.verbose else [each for each in entries if each.event_name not in STREAM_EVENTS]
    folded = len(entries) - len(shown)
    if folded:
        screen.remark(
            f"{plural(folded, 'record')} of streams that started or ended not listed; --verbose lists them"
        )
    if screen.is_terminal:
        screen.print(entries_table(shown, screen, header=header, notes=notes))
    else:
        for line in entry_lines(shown, screen, header=header, notes=notes):
            screen.line(line)


def entries_table(
    entries: Sequence[AuditEntry],
    screen: Screen,
    *,
    header: bool = True,
    notes: Mapping[str, list[str]] = _NO_NOTES,
) -> Table:
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
        for note in notes.get(each.id, ()):
            table.add_row("", "", "", "", Text(note, style="bold yellow"))
        table.add_row(*_cells(each, screen, wide=wide, date=not one_day))
    return table


def _title(entries: Sequence[AuditEntry], screen: Screen, day: str) -> str | None:
    if not entries:
        return None
    zone = _zone(screen, entries[0].timestamp)
    return f"{day}, {zone}" if day else zone


def _zone(screen: Screen, moment: int) -> str:
    return f"times in {safe(zone_name(moment, zone=screen.zone))}"


def _cells(entry: AuditEntry, screen: Screen, *, wide: bool, date: bool) -> list[Text]:
    width = 48 if wide else 24
    action = Text(safe(entry.action), style=sentences.ACTION_STYLES.get(entry.action, ""))
    outcome = Text(
        sentences.outcome(entry.outcome, ascii_only=screen.ascii_only),
        style=sentences.OUTCOME_STYLES.get(entry.outcome, ""),
    )
    who = Text(
        sentences.who(entry.actor, entry.actor_known_as, entry.customer_known_as),
        style="italic" if entry.actor.type == "unknown" else "",
    )
    changes = _changes(entry, width, verbose=screen.verbose)
    time = format_time(entry.timestamp, zone=screen.zone)
    day, clock = time[:10], time[11:]
    what = Text(sentences.what_object(entry), style="bold")
    number = safe(entry.id[-8:])
    if wide:
        when = Text(f"{day} {clock}" if date else clock)
        return [when, who, action, what, changes, outcome, Text(sentences.place(entry)), Text(number)]
    if entry.outcome == "success":
        action.append(" ")
    else:
        action.append("\n")
    action.append_text(outcome)
    if place := sentences.place(entry):
        who.append("\n" + place, style="dim not italic")
    what.append("\n" + number, style="dim not bold")
    when = Text(f"{day}\n{clock}" if date else clock)
    return [when, who, action, what, changes]


def _changes(entry: AuditEntry, width: int, *, verbose: bool) -> Text:
    lines = sentences.changes(entry, width, limit=None if verbose else _MOST_CHANGES, verbose=verbose)
    text = Text("\n".join(lines))
    text.highlight_regex(r" → ", style="dim")
    return text


def entry_lines(
    entries: Sequence[AuditEntry],
    screen: Screen,
    *,
    header: bool = True,
    notes: Mapping[str, list[str]] = _NO_NOTES,
) -> Iterable[str]:
    """Return one line per record, columns aligned, nothing cut: for pipes, files and grep."""
    rows = [("TIME", "WHO", "ACTION", "OUTCOME", "OBJECT", "FROM", "ID", "CHANGES")] if header else []
    rows += [
        (
            format_iso(each.timestamp, zone=screen.zone, digits=3),
            sentences.who(each.actor, each.actor_known_as, each.customer_known_as),
            safe(each.action),
            safe(each.outcome),
            sentences.what_object(each) or "-",
            sentences.place(each) or "-",
            safe(each.id),
            "; ".join(sentences.changes(each, width=2000, verbose=screen.verbose)),
        )
        for each in entries
    ]
    ids = [*([""] if header else []), *(each.id for each in entries)]
    for number, line in zip(ids, aligned(rows), strict=True):
        yield from notes.get(number, ())
        yield line


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, all columns but the last as wide as their longest text."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1])).rstrip()
        for row in rows
    ]


def small_table(screen: Screen, moment: int, columns: Sequence[str], *, whole: Collection[str]) -> Table:
    """Return a table to fill; its title tells the time zone.

    Args:
        screen: where it is shown.
        moment: one of the times in it, in nanoseconds since the epoch.
        columns: their names.
        whole: those whose texts are never folded.
    """
    table = Table(
        box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        title=_zone(screen, moment),
        title_justify="left",
        title_style="dim",
    )
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def blame_table(found: Sequence[Blame], screen: Screen) -> Table:
    """Lay out who set each field last."""
    columns = ("field", "value", "who", "when", "through", "id")
    table = small_table(screen, found[0].entry.timestamp, columns, whole=("when", "id"))
    for each in found:
        table.add_row(
            Text(safe(each.field), style="bold"),
            Text(sentences.value(each.value)),
            Text(sentences.who(each.entry.actor, each.entry.actor_known_as, each.entry.customer_known_as)),
            Text(format_time(each.entry.timestamp, zone=screen.zone)),
            Text(safe(each.view or each.entry.route or each.code or each.entry.service)),
            Text(safe(each.entry.id[-8:]), style="dim"),
        )
    return table


def blame_object(each: Blame) -> dict[str, Any]:
    """Return one line of JSON: the field, its value if known, and who set it."""
    value = {} if each.value is UNSET else {"value": each.value}
    entry = each.entry.to_dict()
    kept = ("time", "id", "actor", "action", "route", "method", "service", "request_id", "reason", "trace_id")
    return {
        "field": each.field,
        **value,
        **{name: entry[name] for name in kept if name in entry},
        "view": each.view,
        "code": each.code,
    }
