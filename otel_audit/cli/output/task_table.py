"""Tasks as a table: one row each, one line each for a pipe, JSON or comma-separated values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from otel_audit.cli.output import sentences
from otel_audit.cli.output.comma_separated import csv_line
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.cli.output.tables import aligned, small_table
from otel_audit.cli.output.work import duration
from otel_audit.store.tasks import TaskEntry
from otel_audit.store.times import format_iso, format_time

_STYLES: Final = {
    "waiting": "yellow",
    "stale": "bold red",
    "running": "cyan",
    "failed": "bold red",
    "done": "green",
}
_CSV: Final = (
    *("state", "since", "name", "id", "queue", "published", "started", "ended", "duration", "runs"),
    *("retries", "outcome", "error", "service", "publisher", "publisher_id", "request_id", "last"),
)


def print_tasks(screen: Screen, tasks: Sequence[TaskEntry]) -> None:
    """Print tasks as JSON or CSV lines, as a table for a terminal, or as one line each for a pipe."""
    if screen.json:
        for each in tasks:
            screen.object(each.to_dict())
    elif screen.csv:
        screen.line(",".join(_CSV))
        for each in tasks:
            screen.line(_csv_line(each))
    elif screen.is_terminal:
        screen.print(_table(screen, tasks))
    else:
        for line in _lines(screen, tasks):
            screen.line(line)


def _csv_line(task: TaskEntry) -> str:
    values = task.to_dict() | {"publisher": task.publisher.name, "publisher_id": task.publisher.id}
    return csv_line(str(values.get(name, "")) for name in _CSV)


def _table(screen: Screen, tasks: Sequence[TaskEntry]) -> Table:
    columns = ("state", "since", "task", "queue", "by", "what")
    table = small_table(screen, tasks[0].since, columns, whole=("state", "since"))
    for each in tasks:
        table.add_row(
            Text(each.state, style=_STYLES.get(each.state, "")),
            Text(format_time(each.since, zone=screen.zone)),
            Text(safe(each.target), style="bold"),
            Text(safe(each.queue)),
            Text(_publisher(each)),
            Text(_what(each)),
        )
    return table


def _lines(screen: Screen, tasks: Sequence[TaskEntry]) -> list[str]:
    rows = [("STATE", "SINCE", "TASK", "QUEUE", "BY", "WHAT")]
    rows += [
        (
            each.state,
            format_iso(each.since, zone=screen.zone, digits=3),
            safe(each.target),
            safe(each.queue) or "-",
            _publisher(each) or "-",
            _what(each),
        )
        for each in tasks
    ]
    return aligned(rows)


def _publisher(task: TaskEntry) -> str:
    return sentences.who(task.publisher) if task.published else ""


def _what(task: TaskEntry) -> str:
    parts = []
    if task.runs > 1:
        parts.append(f"begun {task.runs} times" + (" (ran twice)" if task.ran_twice else ""))
    if task.retries:
        parts.append(sentences.plural(task.retries, "retry").replace("retrys", "retries"))
    if task.duration:
        parts.append(duration(task.duration))
    if task.outcome == "unknown":
        parts.append("its worker ended before it did")
    if task.error:
        parts.append(safe(task.error))
    return ", ".join(parts)
