"""Makes each command of Click and Typer a scope: it is the actor, named as it was typed.

Commands that start a server or a worker are none: what is done in it is the service's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from otel_audit.instrumentation.command_scope import in_command
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults
from otel_audit.location import view_name

_SERVERS: Final = frozenset(
    {
        *("arq", "celery", "dramatiq", "fastapi_cli", "fastapi_cloud_cli", "granian", "gunicorn", "huey"),
        *("hypercorn", "litestar", "otel_audit", "rq", "sanic", "taskiq", "uvicorn"),
    }
)
"""Packages whose commands start a server or a worker, or audit nothing."""
_SERVER_COMMANDS: Final = frozenset({"flask.cli.run_command", "flask.cli.run"})


def table() -> list[Patch]:
    """List what is wrapped of Click, and of the Click that Typer brings."""
    return [
        Patch(
            f"{module}:Command.invoke",
            in_command_scope,
            "what a command does is done by the command",
            optional=True,
            late=True,
        )
        for module in ("click.core", "typer._click.core")
    ]


def in_command_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Command.invoke``, which calls the function of a command or of a group."""

    @functools.wraps(original)
    def invoke(command: Any, /, ctx: Any, *args: Any, **kwargs: Any) -> Any:
        run = functools.partial(original, command, ctx, *args, **kwargs)
        named = _named(command, ctx)
        return run() if named is None else in_command(*named, run)

    return invoke


def _named(command: Any, ctx: Any) -> tuple[str, str] | None:
    """Return the command as it was typed, and its function; None if it does nothing of its own."""
    try:
        if command.callback is None:
            return None
        view = view_name(inspect.unwrap(command.callback))
        if view.partition(".")[0] in _SERVERS or view in _SERVER_COMMANDS:
            return None
        return str(ctx.command_path or command.name or view), view
    except faults():  # commands of others may do anything
        return None
