"""Makes each command of Click and Typer a scope, and has it recorded: it is the actor, named as it was typed.

Commands that start a server or a worker are none: what is done in it is the service's.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from otel_audit.instrumentation.command_scope import in_command
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults
from otel_audit.location import view_name

if TYPE_CHECKING:
    from otel_audit.runs.run import Invocation

_PACKAGES: Final = ("click", "typer._click")
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
            f"{package}.core:Context.invoke",
            in_command_scope,
            "what a command does is done by the command; inside the span that OpenTelemetry makes of it",
            optional=True,
            late=True,
        )
        for package in _PACKAGES
    ]


def in_command_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Context.invoke``, by which a command calls its own function, among others."""

    @functools.wraps(original)
    def invoke(ctx: Any, /, *args: Any, **kwargs: Any) -> Any:
        run = functools.partial(original, ctx, *args, **kwargs)
        named = _named(ctx, args[0]) if args else None
        if named is None:
            return run()
        return in_command(*named, run, functools.partial(_invocation, ctx, *named))

    return invoke


def _named(ctx: Any, function: Any) -> tuple[str, str] | None:
    """Return the command as it was typed, and its function; None if this is another function."""
    try:
        command = ctx.command
        if function is None or command.callback is not function:
            return None
        view = view_name(inspect.unwrap(function))
        if view.partition(".")[0] in _SERVERS or view in _SERVER_COMMANDS:
            return None
        return str(ctx.command_path or command.name or view), view
    except faults():  # commands of others may do anything
        return None


def _invocation(ctx: Any, name: str, view: str) -> Invocation:
    from otel_audit.runs.run import Invocation

    return Invocation(
        name=name,
        actor=name,
        view=view,
        arguments=functools.partial(_arguments, ctx),
        secret=_hidden(ctx),
        exit_code=_exit_code,
        # What the function of a group does comes before the command proper, which has its options on record.
        only_failures=getattr(ctx, "invoked_subcommand", None) is not None,
    )


def _contexts(ctx: Any) -> list[Any]:
    """Return the contexts of a command, that of the outermost group first."""
    found = []
    while ctx is not None:
        found.append(ctx)
        ctx = ctx.parent
    return found[::-1]


def _arguments(ctx: Any) -> list[str]:
    return [argument for each in _contexts(ctx) for argument in _given(each)]


def _given(ctx: Any) -> Iterator[str]:
    """Yield what was given for a context, in one way or another: as typed, by a variable, at a prompt."""
    from otel_audit.instrumentation.command_line import option, shown

    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        if param.name not in ctx.params or (source is not None and source.name.startswith("DEFAULT")):
            continue
        value = ctx.params[param.name]
        if param.param_type_name == "option":
            yield from option(max(param.opts, key=len), value)
        elif type(value) in (list, tuple):
            yield from map(shown, value)
        elif value is not None:
            yield shown(value)
    yield from ctx.args


def _hidden(ctx: Any) -> tuple[str, ...]:
    """Return the options that are not shown while they are typed."""
    try:
        return tuple(
            name
            for each in _contexts(ctx)
            for param in each.command.params
            if getattr(param, "hide_input", False)
            for name in param.opts
        )
    except faults():  # parameters of others
        return ()


def _exit_code(error: BaseException) -> int | None:
    """Return the status with which Click or Typer ends the process because of an exception."""
    for module in ("click.exceptions", "typer._click.exceptions", "typer.exceptions"):
        exceptions = sys.modules.get(module)
        kinds = tuple(
            kind
            for name in ("Exit", "ClickException")
            if (kind := getattr(exceptions, name, None)) is not None
        )
        if isinstance(error, kinds):
            code = getattr(error, "exit_code", None)
            return code if type(code) is int else 1
    return None
