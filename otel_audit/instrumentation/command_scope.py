"""A command, whatever library it is of: a piece of work, recorded if the configuration says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.runs.recording import Recording
    from otel_audit.runs.run import Invocation

_Result = TypeVar("_Result")


class _State:
    """What is recorded of commands; None: nothing."""

    recording: Recording | None = None


_state: Final = _State()


def record_commands(recording: Recording | None) -> None:
    """Record commands from now on, or no longer."""
    _state.recording = recording


def in_command(
    name: str, view: str, run: Callable[[], _Result], invocation: Callable[[], Invocation] | None = None
) -> _Result:
    """Run a command.

    Args:
        name: the command as it was typed: ``manage.py migrate``.
        view: its function.
        invocation: says what is to be recorded of it; None: it is not recorded.
    """
    recording = _state.recording
    if recording is not None and invocation is not None:
        return _recorded(recording, run, _described(name, view, invocation))
    from otel_audit.runs.scope import enter, leave

    entered = enter(name, view, recorded=False)
    try:
        return run()
    finally:
        leave(entered)


def _described(name: str, view: str, invocation: Callable[[], Invocation]) -> Invocation:
    """Return what is recorded of a command; at least its name, whatever its library makes of it."""
    try:
        return invocation()
    except faults():
        from otel_audit.runs.run import Invocation

        return Invocation(name.removeprefix("manage.py "), name, view)


def _recorded(recording: Recording, run: Callable[[], _Result], invocation: Invocation) -> _Result:
    from otel_audit.runs.work import Work

    with Work.begin(recording, "command", invocation):
        return run()
