"""Writes interrupted at a chosen line of ours, and what must hold afterwards.

The interruption is raised by a trace function, which Python calls as it calls a signal handler: with the
frame it interrupts.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from django.db import connection, connections

import otel_audit
from otel_audit.audit_record import AuditRecord
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Box, Item, Kiosk, Pallet, Place, Shop, Supplier

OURS: Final = str(Path(otel_audit.__file__).parent) + os.sep


class SoftTimeLimit(Exception):
    """Stands for what a task queue raises."""


class Interruption:
    """Raises at one of the lines of ours, counted from 0, that run while it lasts; -1: counts them."""

    def __init__(self, moment: int, exception: type[BaseException]) -> None:
        self.moment = moment
        self.exception = exception
        self.lines = 0
        self.place = ""

    def __enter__(self) -> Self:
        sys.settrace(self._call)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(OURS) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        # Before Django's own Atomic.__exit__ begins: interrupted there, it would not run without us either.
        before = frame.f_code.co_name == "leave" and frame.f_lineno == frame.f_code.co_firstlineno + 5
        if event == "line" and not before:
            self.lines += 1
            if self.lines - 1 == self.moment:
                self.place = f"{frame.f_code.co_filename.removeprefix(OURS)}:{frame.f_lineno}"
                sys.settrace(None)
                raise self.exception
        return self._line


Rows = dict[tuple[str, str], Any]


def stored() -> Rows:
    """Every row of the tables written to: (model, key) to its values."""
    models = (Supplier, Item, Pallet, Box, Pallet.items.through, Place, Shop, Kiosk)
    return {
        (model._meta.model_name or "", str(row[model._meta.pk.attname])): row
        for model in models
        for row in model._base_manager.values(*[field.attname for field in model._meta.local_fields])
    }


def changes(before: Rows, after: Rows) -> dict[tuple[str, str], set[str]]:
    """What was done: (model, verb) to keys."""
    done: dict[tuple[str, str], set[str]] = {}
    for model, key in before.keys() | after.keys():
        old, new = before.get((model, key)), after.get((model, key))
        if old != new:
            verb = "create" if old is None else "delete" if new is None else "update"
            done.setdefault((model, verb), set()).add(key)
    return done


def said_of(record: AuditRecord) -> tuple[str, str]:
    _, model, verb = record.event_name.split(".")
    return model, verb


def keys_of(record: AuditRecord) -> set[str]:
    if record.bulk is not None:
        return set(record.bulk.keys)
    assert record.target is not None
    return {record.target.id} - {""}


def untrue(records: list[AuditRecord], done: dict[tuple[str, str], set[str]]) -> Iterator[str]:
    """Say what of the records is not true, or missing, after ``done``."""
    for what, keys in done.items():
        found = [
            record
            for record in records
            if said_of(record) == what and record.outcome in ("success", "unknown")
        ]
        if not found:
            yield f"{what} {keys} is committed without a record"
        if len([record for record in found if record.outcome == "success"]) > 1:
            yield f"{what} is recorded {len(found)} times"
        for record in found:
            if not keys_of(record) <= keys:
                yield f"{what}: recorded {keys_of(record)}, done {keys}"
            if record.completeness == "full" and record.outcome == "success" and keys_of(record) != keys:
                yield f"{what}: {record.completeness} record of {keys_of(record)}, done {keys}"
    for record in records:
        if record.outcome == "success" and said_of(record) not in done:
            yield f"{said_of(record)} is recorded as success and was not done"


def half_open(audit: CapturedAudit) -> Iterator[str]:
    """Say what is still open outside a transaction."""
    ours = connection.__dict__.get("_otel_audit")
    if connection.in_atomic_block or not connection.get_autocommit():
        yield "the transaction is open"
    if ours is not None:
        thread = ours.reader
        if ours.pending or len(ours.buffer) or ours.error or ours.raw:
            yield f"the connection holds {ours.pending} writes, {len(ours.buffer)}, {ours.error!r}"
        if thread.compiling or thread.migrating:
            yield f"thread: {thread.compiling} compilers, {thread.migrating}"
        if thread.saving or thread.internal or thread.suppressed or thread.loaded is not None:
            yield f"thread: {thread.saving} {thread.internal} {thread.suppressed} {thread.loaded}"
    if audit.pipeline.spool.open_intents:
        yield "an intent is open"


def next_statement(audit: CapturedAudit) -> Iterator[str]:
    """Write two more and say what of their records is wrong."""
    supplier = Supplier.objects.create(name="next")
    audit.clear()
    supplier.name = "next but one"
    supplier.save()
    Supplier.objects.filter(pk=supplier.pk).update(name="last")
    told = [(r.outcome, [(change.old, change.new) for change in r.changes]) for r in audit.records]
    right = [("success", [("next", "next but one")]), ("success", [("next but one", "last")])]
    if told != right:
        yield f"the next statements are recorded as {told}"


@contextmanager
def fresh_connection() -> Iterator[None]:
    connections["default"].close()
    del connections["default"]
    yield
    connections["default"].close()


Attempt = Callable[[CapturedAudit, Interruption], list[str]]
"""Does something, interrupted; returns what is wrong afterwards."""


def try_moments(
    attempt: Attempt, exceptions: Sequence[type[BaseException]], sampled: int | None, name: str, **django: Any
) -> None:
    """Interrupt at each line of ours, or at ``sampled`` of them, with the exceptions in turn.

    Args:
        name: of what is tried; the sample is the same for the same name.
        django: the configuration of Django's instrumentor.
    """
    failures: dict[str, list[str]] = {}
    moments: list[int] | None = None
    left = [0]
    while left:
        with auditing(**django) as audit:
            attempt(audit, Interruption(-1, Exception))  # what is made once for a process
            counted = Interruption(-1, Exception)
            wrong = attempt(audit, counted)
            assert not wrong
            if moments is None:
                moments = list(range(counted.lines))
                if sampled is not None and sampled < len(moments):
                    moments = random.Random(name).sample(moments, sampled)
                left = moments.copy()
            wrong = []
            while left and not wrong:  # what is half open would be found again by the next
                moment = left.pop()
                interruption = Interruption(moment, exceptions[moment % len(exceptions)])
                try:
                    wrong = attempt(audit, interruption)
                except Exception as error:  # noqa: BLE001 - whatever came of it, the moment is what tells
                    wrong = [f"instead of the interruption, or after it: {error!r}"]
                if wrong:
                    failures[f"{moment} {interruption.place} {interruption.exception.__name__}"] = wrong
    assert moments
    assert not failures, f"{len(failures)} of {len(moments)} moments:\n" + "\n".join(
        f"{place}: {'; '.join(wrong)}" for place, wrong in failures.items()
    )
