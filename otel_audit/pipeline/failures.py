"""Our own failures: logged at most once per minute and place, counted, and kept from the application."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from otel_audit.config.model import AuditConfig
from otel_audit.errors import AuditError
from otel_audit.interruptions import faults
from otel_audit.pipeline.health import Health, Throttle

_LONGEST: Final = 1000
"""Characters of what a message says of an error, and of what it failed for."""


class Failures:
    """Takes every exception of our own making: an instrumentor's, or of making records.

    It costs a record, or detail of one, and counts as ``audit.capture.failures`` of the pipeline. Under
    ``fail_closed`` it is raised into the application, as :class:`AuditError`.

    Args:
        library: what is captured, as messages name it: ``Django``.
        config: says what ``on_error`` is.
        health: return the counters of the pipeline that runs, if any.
        doing: what fails, as messages name it, if it is not the capture of a library.
    """

    def __init__(
        self, library: str, config: AuditConfig, health: Callable[[], Health | None], *, doing: str = ""
    ) -> None:
        self.library = library
        self._doing = doing
        self._fail_closed = config.fail_closed
        self._health = health
        self._log = Throttle()

    def report(self, place: str, error: BaseException, *, what: str = "", lost: int = 0) -> None:
        """Note ``error`` and, under ``fail_closed``, raise it."""
        self.note(place, error, what=what, lost=lost)
        if self._fail_closed:
            if isinstance(error, AuditError):
                raise error
            raise AuditError(f'{self._said(place, error, what)}, and on_error is "fail_closed"') from error

    def note(
        self,
        place: str,
        error: BaseException,
        *,
        what: str = "",
        lost: int = 0,
        instead: str = "",
        level: int = logging.ERROR,
    ) -> None:
        """Log and count ``error``.

        Args:
            place: the step that failed; one of few names, counted by.
            error: what it raised.
            what: the model, event or the like that it failed for.
            lost: how many changes or events are not recorded because of it.
            instead: what happens now, if no record suffers.
            level: of the line in the log; a warning where nobody knows whether a record suffers.
        """
        health = self._health()
        if health is not None:
            health.failed_at(place)
        self._log(
            level,
            _short(f"{place} {what}"),
            "%s; %s",
            self._said(place, error, what),
            instead or (f"{lost} change(s) are not recorded" if lost else "the record is incomplete"),
        )

    def _said(self, place: str, error: BaseException, what: str) -> str:
        where = f"{place} of {what}" if what else place
        try:
            reason = f"{type(error).__qualname__}: {error}"
        except faults():  # what an exception of somebody's says of itself may raise, too
            reason = type(error).__qualname__
        if self._doing:
            return f"{self._doing} failed in {_short(what or place)}: {_short(reason)}"
        return f"capture of {self.library} failed in {_short(where)}: {_short(reason)}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
