"""Our own failures: logged at most once a minute for each place, counted, and kept from the application."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from opentelemetry.metrics import NoOpCounter, get_meter

from otel_audit.errors import AuditError
from otel_audit.interruptions import faults
from otel_audit.pipeline.health import Throttle


class Failures:
    """Takes every exception of an instrumentor's own making.

    Under ``fail_closed`` it is raised into the application, as :class:`AuditError`.

    Args:
        library: whose instrumentor it is, as messages name it: ``Django``.
        fail_closed: ``on_error`` is ``fail_closed``.
    """

    def __init__(self, library: str, *, fail_closed: bool) -> None:
        self.library = library
        self.fail_closed = fail_closed
        self.count = 0
        self._log = Throttle()
        self._counter: Any = NoOpCounter("otel_audit.capture.failures")
        with suppress(Exception):  # a meter provider may be anybody's
            self._counter = get_meter("otel_audit").create_counter(
                "otel_audit.capture.failures",
                unit="{failure}",
                description="Writes that were recorded less completely than asked, or not at all.",
            )

    def report(self, place: str, error: BaseException, *, lost: int = 0) -> None:
        """Note ``error`` and, under ``fail_closed``, raise it."""
        self.note(place, error, lost=lost)
        if self.fail_closed:
            if isinstance(error, AuditError):
                raise error
            raise AuditError(
                f"a change could not be audited ({place}: {type(error).__qualname__}: {error}) and "
                'on_error is "fail_closed"'
            ) from error

    def note(self, place: str, error: BaseException, *, lost: int = 0) -> None:
        """Log and count ``error``; ``lost`` is the number of writes that go unrecorded because of it."""
        self.count += 1
        try:
            self._counter.add(1, {"otel_audit.capture.place": place})
        except faults():  # a meter may be anybody's
            pass
        consequence = f"{lost} change(s) are not recorded" if lost else "the record is incomplete"
        self._log(
            logging.ERROR,
            place,
            "capture of %s failed in %s: %s: %s; %s",
            self.library,
            place,
            type(error).__qualname__,
            error,
            consequence,
        )
