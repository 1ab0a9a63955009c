"""``explain``: which rule decides what is recorded of something, and where that rule stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from otel_audit.cli.options import ConfigFile, Json, load_declared
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.errors import AuditError, QueryError

if TYPE_CHECKING:
    from otel_audit.cli.installed_models import Explanation
    from otel_audit.config.loader import LoadedConfig


def model(
    name: Annotated[str, typer.Argument(metavar="MODEL[.FIELD]", help="As shop.Card or shop.Card.number.")],
    config: ConfigFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the application.")] = 60.0,
    json: Json = False,
) -> None:
    r"""Say what is recorded of a model, or of one field, which rule says so, and where it stands.

    The file and line of the configuration, the class with `__audit__`, or the call of `audit_models()`. Loads
    the application's apps in a process of its own; nothing is recorded.

    \b
    otel-audit explain model shop.Card
    otel-audit explain model shop.Card.number
    otel-audit explain model project.shop.models.Card
    """
    from otel_audit.cli.installed_models import NotLoaded, ask_about, find_settings

    screen = Screen(json=json)
    loaded = load_declared(config)
    find_settings()
    try:
        found = ask_about(name, config, timeout)
    except NotLoaded as error:
        raise AuditError(
            f"cannot load the application's apps: {error}; `python manage.py check` shows the whole error"
        ) from error
    if found.unknown:
        raise QueryError(found.unknown)
    print_explanation(screen, found)
    for switch, on in (("enabled", loaded.config.enabled), ("django.enabled", loaded.config.django.enabled)):
        if not on:
            screen.remark(f"note: nothing is recorded now: {switch} is false")


def rule_place(loaded: LoadedConfig, number: int | None) -> str:
    """Return where a rule of the policy was written; empty for no rule."""
    return "" if number is None else loaded.where("policy", str(number - 1))


def near(place: str) -> str:
    """Return a place with its file as it is called from the working directory."""
    return place.removeprefix(f"{Path.cwd()}{os.sep}")


def print_explanation(screen: Screen, found: Explanation, *, without_rule: str = "by default") -> None:
    """Print what was explained, one line for each answer or one object as JSON, and notes beside it."""
    if screen.json:
        for line in found.lines:
            screen.object({"name": found.name, **msgspec.structs.asdict(line)})
    else:
        _print_lines(screen, found, without_rule)
    for note in found.notes:
        screen.remark(f"note: {note}")


def _print_lines(screen: Screen, found: Explanation, without_rule: str) -> None:
    from rich.table import Table
    from rich.text import Text

    screen.line(f"{safe(found.name)}  ({safe(found.about)})")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    before = ""
    for line in found.lines:
        why = ", ".join(filter(None, (line.rule, near(line.place)))) or without_rule
        shown = "" if line.subject == before else line.subject
        table.add_row(Text(safe(shown), style="bold"), Text(safe(line.answer)), Text(safe(why)))
        before = line.subject
    screen.print(table)
