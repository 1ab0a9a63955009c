"""``spool status`` and ``spool drain``: what waits on this machine, and sending it now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.options import ConfigFile, Json, Utc
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.cli.output.sizes import size
from otel_audit.config.loader import load

if TYPE_CHECKING:
    from otel_audit.pipeline.spool.status import SpoolStatus

Directory = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIRECTORY]", help="Spool directory. Default: the configured one.", show_default=False
    ),
]


def status(
    directory: Directory = None, json: Json = False, utc: Utc = False, config: ConfigFile = None
) -> None:
    """Show the waiting records: how many per process, since when, and whether anything is damaged.

    Exits with 1 if the directory cannot be used, or if it holds damaged records, refused records, or streams
    that cannot be read, such as those of another user.
    """
    from otel_audit.pipeline.spool.status import read_status

    screen = Screen(utc=utc, json=json)
    state = read_status(directory or load(config).config.spool.directory)
    if screen.json:
        screen.object(state)
    else:
        _print(state, screen)
    if state.error or state.damaged_files or state.quarantined or state.unreadable:
        raise typer.Exit(Status.NOTHING)


def _print(state: SpoolStatus, screen: Screen) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from otel_audit.store.times import format_time, zone_name

    if not state.exists:
        screen.line(f"{safe(state.directory)} does not exist yet: nothing has been recorded on this machine.")
        return
    summary = f"{safe(state.directory)}: {state.waiting} records waiting, {size(state.bytes)}"
    if state.oldest:
        zone = safe(zone_name(state.oldest, zone=screen.zone))
        summary += f", the oldest since {format_time(state.oldest, zone=screen.zone)} {zone}"
    screen.line(summary)
    if any(not stream.error for stream in state.streams):
        table = Table(
            box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        for name in ("service", "host", "pid", "began", "waiting", "open", "bytes", "damaged"):
            table.add_column(
                name, justify="right" if name in ("pid", "waiting", "open", "bytes", "damaged") else "left"
            )
        for stream in (stream for stream in state.streams if not stream.error):
            table.add_row(
                *map(
                    Text,
                    (
                        safe(stream.service or "-"),
                        safe(stream.host or "-"),
                        str(stream.pid) if stream.alive else f"{stream.pid} (ended)",
                        format_time(stream.created, zone=screen.zone),
                        str(stream.waiting),
                        str(stream.open_intents),
                        size(stream.bytes),
                        str(stream.damaged),
                    ),
                )
            )
        screen.print(table)
    for problem in state.unreadable:
        screen.line(f"skipped: {safe(problem)}")
    for name in state.damaged_files:
        screen.line(f"damaged, set aside: {safe(name)}")
    for name in state.quarantined:
        screen.line(f"refused by the sink, set aside: {safe(name)}")
    if state.error:
        screen.remark(f"otel-audit: {state.error}")


def drain(
    directory: Directory = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Give up after this many seconds without progress.")
    ] = 30.0,
    config: ConfigFile = None,
) -> None:
    """Send the records that terminated processes left, now. Running processes send their own records.

    Exits with 3 if the sink does not accept all of them, and with 1 if a part of the spool cannot be read,
    such as that of another user. No record is lost then: the rest keeps waiting.
    """
    from otel_audit.pipeline.delivery.drain import drain as drain_spool

    loaded = load(config).config
    began = time.monotonic()
    found = drain_spool(directory or loaded.spool.directory, loaded, timeout=timeout)
    left = sum(stream.waiting for stream in found.left.streams if not stream.alive)
    held = found.left.waiting - left
    typer.echo(
        f"{found.delivered} records sent in {time.monotonic() - began:.1f} s, {left} left"
        + (f", {held} held by running processes" if held else "")
    )
    if found.quarantined or found.damaged:
        typer.echo(
            f"{found.quarantined} refused by the sink and set aside, {found.damaged} damaged positions: "
            "`otel-audit spool status` lists the files",
            err=True,
        )
    for problem in found.left.unreadable:
        typer.echo(f"otel-audit: skipped: {safe(problem)}", err=True)
    if not found.complete:
        typer.echo(f"otel-audit: {safe(found.error)}", err=True)
        raise typer.Exit(Status.UNREACHABLE)
    if found.left.unreadable:
        raise typer.Exit(Status.NOTHING)
