"""Makes each management command a scope: without a request, the command is the actor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from otel_audit.instrumentation.command_scope import in_command


def in_command_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``BaseCommand.execute``, which both ``manage.py`` and ``call_command`` go through."""

    def execute(command: Any, /, *args: Any, **kwargs: Any) -> Any:
        view = f"{type(command).__module__}.{type(command).__qualname__}"
        name = f"manage.py {command_name(command)}"
        return in_command(name, view, partial(original, command, *args, **kwargs))

    return execute


def command_name(command: Any) -> str:
    """Name a command as it is called: by the module that holds its class."""
    return type(command).__module__.rpartition(".")[2]
