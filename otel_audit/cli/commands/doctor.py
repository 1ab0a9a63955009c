"""``doctor``: in one screen, whether all of it works, and what to do where it does not."""

from __future__ import annotations

from typing import Annotated

import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.options import ConfigFile, Json, Utc
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen

_SIGNS = {"ok": ("✓", "green"), "note": ("–", "yellow"), "bad": ("✗", "bold red")}
_WORDS = {"ok": "ok", "note": "note", "bad": "FAIL"}


def doctor(
    config: ConfigFile = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for the sink and for the store.")
    ] = 3.0,
    json: Json = False,
    utc: Utc = False,
) -> None:
    """Check everything from a change in the application to the answer of a query.

    Checks the configuration, the instrumentors, OpenTelemetry's packages, the spool on this machine, the sink
    and the store. Run it in the application's environment, with its variables. Exits with 1 if anything does
    not work.
    """
    from otel_audit.cli.checkup import checkup

    screen = Screen(utc=utc, json=json)
    findings = list(checkup(config, timeout, screen.zone))
    if screen.json:
        for each in findings:
            screen.object(each)
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for each in findings:
            sign, style = _SIGNS[each.state]
            text = Text(safe(each.finding))
            if each.advice:
                text.append(
                    f"\n→ {safe(each.advice)}" if not screen.ascii_only else f"\n-> {safe(each.advice)}",
                    style="yellow",
                )
            sign = _WORDS[each.state] if screen.ascii_only else sign
            table.add_row(Text(sign, style=style), Text(each.subject), text)
        screen.print(table)
    if any(each.state == "bad" for each in findings):
        raise typer.Exit(Status.NOTHING)
