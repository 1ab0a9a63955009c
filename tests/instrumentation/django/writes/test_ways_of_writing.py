"""Every way to write, on every database: docs/django.md says what its record claims, and it claims that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from django.db import connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Upper

from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.models import (
    Box,
    Item,
    Kiosk,
    Pallet,
    Place,
    Shop,
    Stock,
    Supplier,
)
from tests.instrumentation.django.writes.witness import replay, rows_of

DOCUMENT: Final = Path(__file__).parents[4] / "docs" / "django.md"
HEADER: Final = "| way | SQLite | PostgreSQL | MariaDB |"
COLUMNS: Final = {"sqlite": 1, "postgresql": 2, "mysql": 3}


def _loaded(code: str = "a") -> Stock:
    return Stock.objects.get(code=code)


def _save() -> None:
    stock = _loaded()
    stock.note = "new"
    stock.save()


def _save_some_fields() -> None:
    stock = _loaded()
    stock.note = "new"
    stock.save(update_fields=["note"])


def _save_deferred() -> None:
    stock = Stock.objects.only("code").get(code="a")
    stock.note = "new"
    stock.save()


def _save_in_three_tables() -> None:
    kiosk = Kiosk.objects.get()
    kiosk.name, kiosk.staff, kiosk.hours = "new", 7, 8
    kiosk.save()


def _save_by_hand() -> None:
    Stock(code="a", note="new").save(update_fields=["note"])


def _save_by_hand_in_a_transaction() -> None:
    with transaction.atomic():
        _save_by_hand()


def _save_expression() -> None:
    stock = _loaded()
    stock.level = F("level") + 10
    stock.save()


def _bulk_update() -> None:
    stocks = [_loaded("a"), _loaded("b")]
    for stock in stocks:
        stock.note = "new"
    Stock.objects.bulk_update(stocks, ["note"])


def _upsert(*codes: str, unique: list[str] | None) -> None:
    Stock.objects.bulk_create(
        [Stock(code=code, shelf=n + 20, note="new") for n, code in enumerate(codes)],
        update_conflicts=True,
        update_fields=["note"],
        unique_fields=unique,
    )


def _upsert_here() -> None:
    _upsert("a", "z", unique=["code"] if connection.features.supports_update_conflicts_with_target else None)


def _ignore_conflicts() -> None:
    Stock.objects.bulk_create([Stock(code="a"), Stock(code="z", shelf=20)], ignore_conflicts=True)


def _cascade() -> None:
    Pallet.objects.get().delete()


def _many_to_many() -> None:
    Pallet.objects.get().items.add(Item.objects.get(name="i"))


def _clear() -> None:
    Pallet.objects.get().items.clear()


def _reverse_key() -> None:
    supplier: Any = Supplier.objects.get()
    supplier.items.add(Item.objects.get(name="i"))


def _raw() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE warehouse_stock SET note = %s", ["new"])


WAYS: Final[dict[str, Callable[[], object]]] = {
    "`create()`": lambda: Stock.objects.create(code="z", shelf=20),
    "`create()` with an expression": lambda: Stock.objects.create(
        code="z", shelf=20, note=Upper(Value("new"))
    ),
    "`bulk_create()`": lambda: Stock.objects.bulk_create(
        [Stock(code="y", shelf=20), Stock(code="z", shelf=21)]
    ),
    "`bulk_create(ignore_conflicts=True)`": _ignore_conflicts,
    "`bulk_create(update_conflicts=True)`": _upsert_here,
    "`save()` of a loaded instance": _save,
    "`save(update_fields=…)`": _save_some_fields,
    "`save()` with deferred fields": _save_deferred,
    "`save()` in several tables": _save_in_three_tables,
    "`save()` of one made by hand": _save_by_hand,
    "the same in a transaction": _save_by_hand_in_a_transaction,
    "`save()` of an expression": _save_expression,
    "`get_or_create()`": lambda: Stock.objects.get_or_create(code="z", defaults={"shelf": 20}),
    "`update_or_create()`": lambda: Stock.objects.update_or_create(code="a", defaults={"note": "new"}),
    "`QuerySet.update()`": lambda: Stock.objects.update(note="new"),
    "`QuerySet.update()` of an expression": lambda: Stock.objects.update(level=F("level") + 10),
    "`bulk_update()`": _bulk_update,
    "`delete()`": lambda: _loaded().delete(),
    "`QuerySet.delete()`": lambda: Stock.objects.all().delete(),
    "a cascade": _cascade,
    "`SET_NULL` of a delete": lambda: Supplier.objects.get().delete(),
    "`add()` to a many-to-many field": _many_to_many,
    "`set()` of a many-to-many field": lambda: Pallet.objects.get().items.set([Item.objects.get(name="i")]),
    "`remove()` from a many-to-many field": lambda: Pallet.objects.get().items.remove(
        Item.objects.get(name="j")
    ),
    "`clear()` of a many-to-many field": _clear,
    "`add()` to a reverse foreign key": _reverse_key,
    "SQL of your own": _raw,
}

WRITTEN: Final[list[type[models.Model]]] = [
    Stock,
    Item,
    Supplier,
    Pallet,
    Box,
    Pallet.items.through,
    Place,
    Shop,
    Kiosk,
]


def documented() -> dict[str, list[str]]:
    """Read the table: way to its cells, the way first."""
    _, table = DOCUMENT.read_text().split(f"{HEADER}\n")
    rows = [line for line in table.split("\n\n")[0].splitlines()[1:] if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: row for row in cells}


def test_the_table_has_every_way() -> None:
    assert list(documented()) == list(WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_a_record_claims_what_the_table_says(audit: CapturedAudit, vendor: str, way: str) -> None:
    Stock.objects.bulk_create([Stock(code=code, shelf=n, level=n) for n, code in enumerate("ab")])
    Item.objects.create(name="i")
    pallet = Pallet.objects.create(label="p")
    pallet.items.add(Item.objects.create(name="j", supplier=Supplier.objects.create(name="s")))
    Box.objects.create(pallet=pallet)
    Kiosk.objects.create(name="k")
    audit.clear()
    before = rows_of(WRITTEN)
    WAYS[way]()
    claims = dict.fromkeys(
        ", ".join(filter(None, (record.action, record.completeness, record.old_values or "")))
        for record in audit
    )
    assert "; ".join(claims) == documented()[way][COLUMNS[vendor]]
    # And the claim holds: what the records say leads from the rows before to the rows after.
    if "statement" not in documented()[way][COLUMNS[vendor]]:
        assert replay(WRITTEN, before, audit.records) == rows_of(WRITTEN)
