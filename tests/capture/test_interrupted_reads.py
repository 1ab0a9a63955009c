"""A read interrupted at any line of ours leaves nothing half open, and what was displayed is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

import pytest
from django.db import connection
from django.db.models import Max

from otel_audit.testing import CapturedAudit
from tests.capture.interrupting import (
    Interruption,
    SoftTimeLimit,
    fresh_connection,
    half_open,
    next_statement,
    try_moments,
)
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401
    postgres,
    postgresql_warehouse,
    sqlite,
    sqlite_warehouse,
)
from tests.instrumentation.django.warehouse.models import Place

SAMPLED: Final = 6
READS: Final = ["warehouse.Place"]


def _left_early(_: object) -> Iterator[Any]:
    """Close an iterator as a server does with a stream whose client has gone away: by GeneratorExit."""

    def stream() -> Iterator[Any]:
        yield from Place.objects.order_by("pk").iterator(chunk_size=1)

    with closing(stream()) as rows:  # type: ignore[type-var]
        yield next(rows)


def _raw(_: object) -> Iterator[Any]:
    yield from Place.objects.raw("SELECT * FROM warehouse_place ORDER BY id")


def _values(_: object) -> Iterator[Any]:
    yield from Place.objects.values_list("name")


WAYS: Final[dict[str, Callable[[Any], Iterator[Any]]]] = {
    "list": lambda _: iter(list(Place.objects.order_by("pk"))),
    "get": lambda pk: iter([Place.objects.get(pk=pk)]),
    "values": _values,
    "iterator": lambda _: Place.objects.order_by("pk").iterator(chunk_size=1),
    "iterator left early": _left_early,
    "raw": _raw,
    "count": lambda _: iter([Place.objects.count()]),
    "aggregate": lambda _: iter([Place.objects.aggregate(Max("name"))]),
}


def attempt(audit: CapturedAudit, interruption: Interruption, way: str) -> list[str]:
    """Read, interrupted at a moment; return what is wrong afterwards."""
    with fresh_connection():
        Place.objects.all().delete()
        pk = min([Place.objects.create(name=name).pk for name in "abc"])
        audit.clear()
        displayed: list[object] = []
        passed = False
        try:
            with interruption:
                for row in WAYS[way](pk):
                    displayed.append(row)
                    del row
        except interruption.exception:
            passed = True
        wrong = list(half_open(audit))
        found = audit.find(action="READ")
        if displayed and not found:
            wrong.append(f"{len(displayed)} rows were displayed, and no read is on record")
        if len(found) > 1 and not interruption.place:  # rather twice than not at all
            wrong.append(f"{len(found)} records of one read")
        for record in found:
            count = 1 if record.bulk is None else record.bulk.count
            if count < len(displayed) and way not in ("count", "aggregate"):
                wrong.append(f"{len(displayed)} rows were displayed, {count} are on record")
        # An iterator that is let go is closed by its destructor, where no exception can be seen.
        if interruption.place and not passed and way != "iterator left early":
            wrong.append("the application does not see it")
        if not passed and not found:
            wrong.append("nothing is on record")
        audit.clear()
        list(Place.objects.order_by("pk"))
        if [record.bulk and record.bulk.count for record in audit.find(action="READ")] != [3]:
            wrong.append(f"the next read is recorded as {audit.records}")
        if connection.in_atomic_block:
            wrong.append("a transaction is open")
        return wrong + list(next_statement(audit))


def try_way(way: str, sampled: int | None) -> None:
    try_moments(
        lambda audit, interruption: attempt(audit, interruption, way),
        [SoftTimeLimit, KeyboardInterrupt],
        sampled,
        way,
        reads=READS,
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
def test_interrupted_at_some_moments_a_read_is_on_record(sqlite: str, way: str) -> None:  # noqa: F811
    try_way(way, SAMPLED)


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
def test_interrupted_at_every_moment_a_read_is_on_record(sqlite: str, way: str) -> None:  # noqa: F811
    try_way(way, None)


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
def test_interrupted_at_many_moments_on_postgresql(postgres: str, way: str) -> None:  # noqa: F811
    try_way(way, 10 * SAMPLED)
