"""A write interrupted at any line of ours leaves nothing half open, and its outcome is true."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F

from otel_audit.testing import CapturedAudit
from tests.capture.interrupting import (
    Interruption,
    SoftTimeLimit,
    changes,
    fresh_connection,
    half_open,
    next_statement,
    stored,
    try_moments,
    untrue,
)
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401
    mariadb,
    mariadb_warehouse,
    postgres,
    postgresql_warehouse,
    sqlite,
    sqlite_warehouse,
)
from tests.instrumentation.django.warehouse.models import Box, Item, Kiosk, Pallet, Place, Supplier

SAMPLED: Final = 2
"""Moments of each way of writing in each mode that are tried without ``attack``."""


class Way(NamedTuple):
    """A way to write: what makes the rows it needs, the write, and the databases that have it.

    Of a ``whole`` one keys and values are known as soon as it has run.
    """

    prepare: Callable[[], Any]
    write: Callable[[Any], object]
    systems: frozenset[str] = frozenset({"sqlite", "postgresql", "mysql"})
    whole: bool = False


def _supplier() -> Supplier:
    return Supplier.objects.create(name="old")


def _rename(supplier: Supplier) -> None:
    supplier.name = "renamed"
    supplier.save()


def _increment(item: Item) -> None:
    item.quantity = F("quantity") + 1
    item.save()


def _pallet() -> tuple[Pallet, Item]:
    return Pallet.objects.create(label="p"), Item.objects.create(name="i")


def _boxes() -> Pallet:
    pallet, item = _pallet()
    pallet.items.add(item)
    Box.objects.create(pallet=pallet)
    Box.objects.create(pallet=pallet)
    return pallet


def _again(supplier: Supplier) -> None:
    # In a block of its own, as Django asks for where a database error is caught inside another.
    with suppress(IntegrityError), transaction.atomic():
        Supplier(pk=supplier.pk, name="again").save(force_insert=True)


def _by_sql(_: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Supplier._meta.db_table} SET name = %s", ["renamed"])


def _by_many_sets(_: object) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {Supplier._meta.db_table} (name) VALUES (%s)", [["a"], ["b"]])


def _by_script(_: object) -> None:
    with connection.cursor() as cursor:
        cursor.executescript(f"UPDATE {Supplier._meta.db_table} SET name = 'renamed'")


def _by_copy(_: object) -> None:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    sql = f"COPY {Supplier._meta.db_table} (name) FROM STDIN"
    with connection.cursor() as cursor:
        if is_psycopg3:
            with cursor.copy(sql) as copy:
                copy.write("a\n")
                copy.write("b\n")
        else:
            cursor.copy_expert(sql, io.StringIO("a\nb\n"))


WAYS: Final[dict[str, Way]] = {
    "create": Way(lambda: None, lambda _: Supplier.objects.create(name="new"), whole=True),
    "create in three tables": Way(lambda: None, lambda _: Kiosk.objects.create(name="new"), whole=True),
    "save": Way(_supplier, _rename),
    "save stale": Way(
        lambda: Supplier(pk=_supplier().pk, name="renamed"), lambda supplier: supplier.save(force_update=True)
    ),
    "save an expression": Way(lambda: Item.objects.create(name="i"), _increment),
    "save refused": Way(_supplier, _again),
    "update": Way(_supplier, lambda _: Supplier.objects.update(name="renamed"), whole=True),
    "update_or_create": Way(
        _supplier, lambda one: Supplier.objects.update_or_create(pk=one.pk, defaults={"name": "renamed"})
    ),
    "delete": Way(_supplier, lambda supplier: supplier.delete(), whole=True),
    "delete by a condition": Way(
        _supplier, lambda _: Supplier.objects.filter(name="old").delete(), whole=True
    ),
    "delete with others": Way(_boxes, lambda pallet: pallet.delete(), whole=True),
    "bulk_create": Way(
        lambda: None,
        lambda _: Supplier.objects.bulk_create([Supplier(name="a"), Supplier(name="b")]),
        whole=True,
    ),
    "bulk_update": Way(
        lambda: [Supplier(pk=_supplier().pk, name=name) for name in ("a", "b")],
        lambda suppliers: Supplier.objects.bulk_update(suppliers, ["name"]),
        whole=True,
    ),
    "bulk_create, some there": Way(
        _supplier,
        lambda one: Supplier.objects.bulk_create(
            [Supplier(pk=one.pk, name="renamed"), Supplier(pk=1_000_000, name="new")],
            update_conflicts=True,
            unique_fields=["id"] if connection.features.supports_update_conflicts_with_target else None,
            update_fields=["name"],
        ),
        whole=True,
    ),
    "m2m add": Way(_pallet, lambda pair: pair[0].items.add(pair[1]), whole=True),
    "raw": Way(_supplier, _by_sql),
    "raw, many": Way(lambda: None, _by_many_sets),
    "script": Way(_supplier, _by_script, frozenset({"sqlite"})),
    "COPY": Way(lambda: None, _by_copy, frozenset({"postgresql"})),
}


class TakenBack(Exception):
    """What the application rolls back by."""


def alone(write: Callable[[], object]) -> None:
    write()


def in_transaction(write: Callable[[], object]) -> None:
    with transaction.atomic():
        write()


def caught_in_transaction(write: Callable[[], object]) -> None:
    with transaction.atomic(), suppress(SoftTimeLimit, KeyboardInterrupt):
        write()


def in_savepoint(write: Callable[[], object]) -> None:
    with transaction.atomic(), suppress(SoftTimeLimit, KeyboardInterrupt), transaction.atomic():
        write()


def rolled_back(write: Callable[[], object]) -> None:
    with suppress(TakenBack), transaction.atomic():
        write()
        raise TakenBack


def rolled_back_to_a_savepoint(write: Callable[[], object]) -> None:
    with transaction.atomic(), suppress(TakenBack), transaction.atomic():
        write()
        raise TakenBack


def rolled_back_to_a_savepoint_and_caught(write: Callable[[], object]) -> None:
    with transaction.atomic(), suppress(TakenBack, SoftTimeLimit, KeyboardInterrupt), transaction.atomic():
        write()
        raise TakenBack


MODES: Final = {
    function.__name__: function
    for function in (
        alone,
        in_transaction,
        caught_in_transaction,
        in_savepoint,
        rolled_back,
        rolled_back_to_a_savepoint,
        rolled_back_to_a_savepoint_and_caught,
    )
}
CATCHES: Final = (caught_in_transaction, in_savepoint, rolled_back_to_a_savepoint_and_caught)
UNDOES: Final = (rolled_back, rolled_back_to_a_savepoint, rolled_back_to_a_savepoint_and_caught)


def attempt(
    audit: CapturedAudit, interruption: Interruption, way: Way, mode: Callable[..., None]
) -> list[str]:
    """Write, interrupted at a moment; return what is wrong afterwards."""
    with fresh_connection():
        for model in (Pallet, Item, Supplier, Place):
            model.objects.all().delete()
        prepared = way.prepare()
        before = stored()
        audit.clear()
        written: list[object] = []
        passed = False
        try:
            with interruption:
                mode(lambda: written.append(way.write(prepared)))
        except interruption.exception:
            passed = True
        wrong = list(half_open(audit))
        done = changes(before, stored())
        wrong += untrue(audit.records, done)
        wrong += [
            f"{record.event_name} is recorded without its values, by {record.completeness}"
            for record in audit.records
            if way.whole and record.outcome == "success" and record.completeness != "full"
        ]
        if written and mode in UNDOES and not audit.records:
            wrong.append("what was rolled back is not on record")
        if done and mode in UNDOES:
            wrong.append(f"{done} was rolled back and is committed")
        if interruption.place and not passed and mode not in CATCHES:
            wrong.append("the application does not see it")
        if not connection.in_atomic_block:
            wrong += next_statement(audit)
        return wrong


def try_way(way: str, mode: str, sampled: int | None) -> None:
    try_moments(
        lambda audit, interruption: attempt(audit, interruption, WAYS[way], MODES[mode]),
        [SoftTimeLimit, KeyboardInterrupt],
        sampled,
        f"{way} {mode}",
    )


def of(system: str) -> list[str]:
    return [name for name, way in WAYS.items() if system in way.systems]


def in_modes(system: str) -> list[tuple[str, str]]:
    """Return the ways in all modes; executescript() commits by itself."""
    undone = {mode.__name__ for mode in UNDOES}
    return [(way, mode) for way in of(system) for mode in MODES if way != "script" or mode not in undone]


@pytest.mark.parametrize(("way", "mode"), in_modes("sqlite"))
def test_interrupted_at_some_moments_a_write_is_recorded_as_it_turned_out(
    sqlite: str,  # noqa: F811
    way: str,
    mode: str,
) -> None:
    try_way(way, mode, SAMPLED)


@pytest.mark.parametrize("way", of("postgresql"))
def test_on_postgresql_too(postgres: str, way: str) -> None:  # noqa: F811
    for mode in MODES if way == "COPY" else ("alone", "in_transaction"):
        try_way(way, mode, SAMPLED)


@pytest.mark.parametrize("way", of("mysql"))
def test_on_mariadb_too(mariadb: str, way: str) -> None:  # noqa: F811
    for mode in ("alone", "in_transaction"):
        try_way(way, mode, SAMPLED)


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("way", "mode"), in_modes("sqlite"))
def test_interrupted_at_every_moment(sqlite: str, way: str, mode: str) -> None:  # noqa: F811
    try_way(way, mode, None)


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("way", "mode"), in_modes("postgresql"))
def test_interrupted_at_many_moments_on_postgresql(postgres: str, way: str, mode: str) -> None:  # noqa: F811
    try_way(way, mode, None if way == "COPY" else 10 * SAMPLED)


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("way", "mode"), in_modes("mysql"))
def test_interrupted_at_many_moments_on_mariadb(mariadb: str, way: str, mode: str) -> None:  # noqa: F811
    try_way(way, mode, 10 * SAMPLED)
