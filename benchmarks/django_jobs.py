"""What Django is measured at: each job makes or loads its rows, and returns what is measured."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

from benchmarks.bench.rows import article, change

MANY: Final = 1000
FEW: Final = 100
_LISTS: Final = 10


class Job(NamedTuple):
    """Something to measure.

    ``prepare`` takes a model, whose table has ``rows`` rows, and returns what is measured, which is done in a
    transaction. ``times`` is how often it is done at once, ``rounds`` how often it is measured, ``goals`` are
    those of PostgreSQL and SQLite. ``audited`` is the setting of ``[django]`` that names the model.
    """

    what: str
    prepare: Callable[[Any], Callable[[], object]]
    goals: tuple[float, float]
    rows: int = FEW
    times: int = FEW
    rounds: int = 40
    audited: str = "models"

    def goal(self, vendor: str) -> float:
        """Return the goal on a database, relative to Django alone."""
        return self.goals[vendor == "sqlite"]


def _loaded(model: Any) -> list[Any]:
    return list(model.objects.order_by("pk"))


def _saves(model: Any) -> Callable[[], object]:
    rows = _loaded(model)
    for row in rows:
        change(row)
    return lambda: [row.save() for row in rows]


def _creates(model: Any) -> Callable[[], object]:
    fields = [article(number) for number in range(FEW)]
    return lambda: [model.objects.create(**each) for each in fields]


def _deletes(model: Any) -> Callable[[], object]:
    rows = _loaded(model)
    return lambda: [row.delete() for row in rows]


def _bulk_create(model: Any) -> Callable[[], object]:
    rows = [model(**article(number)) for number in range(MANY)]
    return lambda: model.objects.bulk_create(rows)


def _update(model: Any) -> Callable[[], object]:
    return lambda: model.objects.update(stock=-1, price=Decimal("8.99"))


def _delete(model: Any) -> Callable[[], object]:
    return lambda: model.objects.all().delete()


def _lists(model: Any) -> Callable[[], object]:
    return lambda: [list(model.objects.all()) for _ in range(_LISTS)]


JOBS: Final = (
    Job("save()", _saves, (1.10, 1.15)),
    Job("create()", _creates, (1.10, 1.15), rows=0),
    Job("delete()", _deletes, (1.15, 1.20)),
    Job(f"bulk_create() of {MANY}", _bulk_create, (1.15, 1.20), rows=0, times=1, rounds=15),
    Job(f"QuerySet.update() of {MANY}", _update, (1.4, 2.5), rows=MANY, times=1, rounds=15),
    Job(f"QuerySet.delete() of {MANY}", _delete, (2.0, 2.5), rows=MANY, times=1, rounds=15),
)
"""Writes, for us and for others."""
LISTS: Final = (
    Job(f"list of {FEW}, writes audited", _lists, (1.02, 1.02), times=_LISTS),
    Job(f"list of {FEW}, reads audited", _lists, (1.10, 1.10), times=_LISTS, audited="reads"),
)
