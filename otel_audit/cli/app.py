"""The commands of ``otel-audit`` and what happens when one fails."""

from __future__ import annotations

import errno
import inspect
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from otel_audit.cli.commands import (
    config,
    doctor,
    explain,
    explain_context,
    explain_policy,
    explain_rules,
    query,
    serve,
    show,
    spool,
    store,
    tasks,
)
from otel_audit.cli.exit_codes import EPILOG, Status, status_of
from otel_audit.cli.output.safe import safe_lines
from otel_audit.errors import AuditError
from otel_audit.version import __version__

app = typer.Typer(
    name="otel-audit",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otel-audit {__version__}")
        raise typer.Exit


def _help(command: Callable[..., None]) -> str:
    r"""Take the help from a docstring; ``\b`` above a paragraph keeps its lines as they are."""
    return (inspect.getdoc(command) or "").replace("\\b\n", "\b\n")


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    r"""Who did what, to which data, when and from where: query the audit trail of your application.

    \b
    Begin:    otel-audit init           write otel-audit.toml
              otel-audit serve          a store, in another terminal
              opentelemetry-instrument gunicorn shop.wsgi
    \b
    Ask:      otel-audit query --target shop.Order/7
              otel-audit query --actor alice --since "2 hours ago"
              otel-audit history shop.Order/7
              otel-audit tail -f
    \b
    Stuck?    otel-audit doctor
    """


app.callback(help=_help(_root))(_root)
for name, command, panel in (
    ("init", config.init, "Set up"),
    ("serve", serve.serve, "Set up"),
    ("doctor", doctor.doctor, "Set up"),
    ("query", query.query, "Ask"),
    ("tail", query.tail, "Ask"),
    ("show", show.show, "Ask"),
    ("history", show.history, "Ask"),
    ("blame", show.blame, "Ask"),
    ("trace", show.trace, "Ask"),
    ("tasks", tasks.tasks, "Ask"),
):
    app.command(name, help=_help(command), rich_help_panel=panel, epilog=EPILOG)(command)
_GROUPS: tuple[tuple[str, str, str, dict[str, Callable[..., None]]], ...] = (
    (
        "explain",
        "What is recorded of something, which rule says so, and where that rule stands.",
        "Set up",
        {
            "request": explain_policy.request,
            "outgoing": explain_policy.outgoing,
            "command": explain_policy.command,
            "task": explain_policy.task,
            "model": explain.model,
            "policy": explain_rules.policy,
            "context": explain_context.context,
        },
    ),
    ("config", "The configuration of this project.", "Operate", {"show": config.show}),
    (
        "spool",
        "Records that wait for the sink on this machine.",
        "Operate",
        {"status": spool.status, "drain": spool.drain},
    ),
    (
        "store",
        "The tables of a store: create, upgrade and inspect them.",
        "Operate",
        {"init": store.init, "migrate": store.migrate, "status": store.status, "roles": store.roles},
    ),
)
for group, about, panel, members in _GROUPS:
    commands = typer.Typer(name=group, help=about, no_args_is_help=True, rich_markup_mode="rich")
    for verb, member in members.items():
        commands.command(verb, help=_help(member), epilog=EPILOG)(member)
    app.add_typer(commands, rich_help_panel=panel)


def run() -> None:
    """Run the command line of this process and leave it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process: `otel-audit serve >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except AuditError as error:
        sys.stdout.flush()
        sys.stderr.write(safe_lines(f"otel-audit: {error}") + "\n")
        sys.exit(status_of(error))
    except BrokenPipeError:  # `otel-audit query | head`: the reader has had enough
        _drop_output()
        sys.exit(Status.OK)
    except OSError as error:
        if not _is_of_output(error):
            raise
        _drop_output()
        sys.stderr.write(f"otel-audit: cannot write the output: {error.strerror}\n")
        sys.exit(Status.FAILED)


def _is_of_output(error: OSError) -> bool:
    """Say whether an error is that of a full disk or device under our own output, not of a named file."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)


def _drop_output() -> None:
    """Let what is still buffered go nowhere: the interpreter would fail once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
