"""DELETE: the rows as the objects of a flush hold them, or as they are read before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.capture.bulk import KnownColumns
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.instrumentation.sqlalchemy.writes.known import KnownRows, counts_rows, known_rows
from otel_audit.instrumentation.sqlalchemy.writes.running import Running
from otel_audit.instrumentation.sqlalchemy.writes.stored.found import Found, returned


def prepare(running: Running) -> None:
    """Find out what the rows of a DELETE hold."""
    shape, plan = running.shape, running.shape.plan
    if shape.key is not None:
        running.found = known_rows(running, shape.key, plan.others)
    elif plan.old_values != "off":
        running.found = running.matching(plan.others, compared=False)


def intent(running: Running) -> CapturedWrite:
    """Return what is known of a DELETE before it has run."""
    if isinstance(running.found, KnownRows) and len(running.parameters) == 1:
        return _row(running, running.found, 0)
    return running.named()


def note(running: Running) -> Sequence[CapturedWrite]:
    """Return what a DELETE has removed."""
    plan, found = running.shape.plan, running.found
    if isinstance(found, KnownRows):
        return _note_known(running, found)
    if not isinstance(found, Found) or not counts_rows(running, found.count):
        return running.counted(running.count)
    if not found.count:
        return []
    full = found.completeness == "full"
    return [
        running.bulk(
            found.count,
            rows=returned(plan, found, plan.others if full else ()),
            old=plan.others if full else (),
            completeness=found.completeness,
        )
    ]


def _note_known(running: Running, known: KnownRows) -> Sequence[CapturedWrite]:
    plan = running.shape.plan
    if running.count == 0:
        return []
    places = known.written(running)
    if places is None:
        return running.counted(running.count)
    if len(places) == 1:
        return [_row(running, known, places[0])]
    old = plan.others if known.old is not None else ()
    return [
        running.bulk(
            len(places),
            rows=KnownColumns([*plan.keys, *old], known.at(places, [*known.keys, *(known.old or ())])),
            old=old,
            completeness="full" if known.old is not None or not plan.others else "ids",
            old_values=known.old_values if known.old is not None else None,
        )
    ]


def _row(running: Running, known: KnownRows, place: int) -> RowWrite:
    plan = running.shape.plan
    changed: list[tuple[Any, Any, Any]] = []
    if known.old is not None:
        changed = [(field, value, UNSET) for field, value in zip(plan.others, known.row(place), strict=True)]
    return RowWrite(
        plan,
        "delete",
        running.state,
        known.key(place),
        changed,
        (),
        known.old_values if known.old is not None else None,
    )
