"""How a run ended, from the exception that left it: pure."""

from __future__ import annotations

import signal
from typing import Final

from otel_audit.audit_record import Outcome
from otel_audit.named_tuples import NamedTuple

_INTERRUPTED: Final = 128 + signal.SIGINT


class Ending(NamedTuple):
    """How a run ended.

    ``exit_code`` is the status with which a process ends that lets it pass; ``error`` what it failed with.
    """

    outcome: Outcome
    exit_code: int
    error: BaseException | None = None


_DONE: Final = Ending("success", 0)


def ending_of(error: BaseException | None, exit_code: int | None = None) -> Ending:
    """Return how a run ended that ``error`` left; None: it returned.

    Args:
        error: what was raised.
        exit_code: the status that its library gives to such an exception.
    """
    if error is None:
        return _DONE
    if exit_code is None:
        exit_code = _exit_code(error)
    return Ending("failure", exit_code, error) if exit_code else _DONE


def _exit_code(error: BaseException) -> int:
    """Return the status with which Python ends because of an exception."""
    if isinstance(error, SystemExit):
        code: object = SystemExit.__dict__["code"].__get__(error)  # not that of a subclass
        if code is None:
            return 0
        return int.__int__(code) if isinstance(code, int) else 1
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
