"""Makes each management command a scope, and has it recorded: without a request, the command is the actor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from otel_audit.instrumentation.command_scope import in_command
from otel_audit.instrumentation.patching import Patch

if TYPE_CHECKING:
    from otel_audit.runs.run import Invocation

_BASE: Final = "django.core.management.base"
_EVERYWHERE: Final = frozenset(
    {"settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks", "stdout", "stderr"}
)
"""Options of every command, that say nothing of what this one does."""

_typed: ContextVar[tuple[Any, list[str]] | None] = ContextVar("otel_audit_typed", default=None)
"""The command that runs as the process's own, and its command line."""


def table() -> list[Patch]:
    """List what is wrapped of Django's management commands."""
    return [
        Patch(
            f"{_BASE}:BaseCommand.execute",
            in_command_scope,
            "outside a request, the management command is who acts",
            late=True,
        ),
        Patch(f"{_BASE}:BaseCommand.run_from_argv", with_arguments, "knows what was typed", late=True),
    ]


def in_command_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``BaseCommand.execute``, which both ``manage.py`` and ``call_command`` go through."""

    @wraps(original)
    def execute(command: Any, /, *args: Any, **kwargs: Any) -> Any:
        view = f"{type(command).__module__}.{type(command).__qualname__}"
        name = f"manage.py {command_name(command)}"
        run = partial(original, command, *args, **kwargs)
        return in_command(name, view, run, partial(_invocation, command, name, view, args, kwargs))

    return execute


def with_arguments(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``BaseCommand.run_from_argv``, through which only ``manage.py`` goes."""

    @wraps(original)
    def run_from_argv(command: Any, argv: Any, /) -> Any:
        token = _typed.set((command, argv))
        try:
            return original(command, argv)
        finally:
            _typed.reset(token)

    return run_from_argv


def command_name(command: Any) -> str:
    """Name a command as it is called: by the module that holds its class."""
    return type(command).__module__.rpartition(".")[2]


def _invocation(
    command: Any, name: str, view: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Invocation:
    from otel_audit.runs.run import Invocation

    typed = _typed.get()
    if typed is not None and typed[0] is command:
        arguments = partial(list[Any], typed[1][2:])
    else:
        arguments = partial(list[Any], _as_typed(args, options))
    return Invocation(
        name=command_name(command),
        actor=name,
        view=view,
        arguments=arguments,
        streams=tuple(_streams(command, options)),
        exit_code=_exit_code,
    )


def _as_typed(args: tuple[Any, ...], options: dict[str, Any]) -> Iterator[Any]:
    """Yield what ``call_command`` was given, and defaults that say something."""
    from otel_audit.instrumentation.command_line import option

    yield from args
    for name, value in options.items():
        if name not in _EVERYWHERE and (name, value if type(value) is int else None) != ("verbosity", 1):
            yield from option("--" + name.replace("_", "-"), value)


def _streams(command: Any, options: dict[str, Any]) -> Iterator[Any]:
    """Yield what the command writes to, below the wrappers that Django has for it."""
    for name in ("stdout", "stderr"):
        given = options.get(name)
        yield vars(vars(command).get(name) or object).get("_out") if given is None else given


def _exit_code(error: BaseException) -> int | None:
    """Return the status with which ``manage.py`` ends because of an exception."""
    base: Any = sys.modules.get(_BASE)
    if base is not None and isinstance(error, base.CommandError):
        code = vars(error).get("returncode")
        return code if type(code) is int else 1
    return None
