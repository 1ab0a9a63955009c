"""Make the tables, fill them, change rows."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.core.management import call_command
from django.db import connection
from django.db.models import Model

if TYPE_CHECKING:
    from benchmarks.bench.models import Product

_NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)


def fill(models: list[type[Model]], count: int) -> None:
    """Migrate, and give each of ``models`` ``count`` rows."""
    migrate()
    for model in models:
        refill(model, count)


def migrate() -> None:
    """Make the tables."""
    call_command("migrate", run_syncdb=True, verbosity=0)


def refill(model: Any, count: int) -> None:
    """Make that the table of a model has ``count`` rows, as they were made."""
    if connection.vendor == "postgresql":  # which would keep the deleted rows, and read them each time
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {connection.ops.quote_name(model._meta.db_table)}")
    else:
        rows = model._default_manager.all()
        rows._raw_delete(rows.db)
    model._default_manager.bulk_create(model(**article(number)) for number in range(count))


def article(number: int) -> dict[str, Any]:
    """Return the fields of an article."""
    return {
        "name": f"article {number}",
        "sku": f"A-{number:06}",
        "description": "A thing one can buy. " * 5,
        "category": "things",
        "price": Decimal("9.99"),
        "stock": number,
        "weight": 1.5,
        "released": _NOON.date(),
        "updated": _NOON,
    }


def product(number: int) -> dict[str, Any]:
    """Return the fields of a product."""
    return {
        "name": f"product {number}",
        "sku": f"P-{number:06}",
        "description": "A thing one can buy. " * 5,
        "stock": number,
        "price": Decimal("9.99"),
        "made": _NOON,
        "updated": _NOON,
        "category_id": 1,
        "facts": {"origin": "Uji", "flush": 2, "organic": True},
    }


def products(count: int) -> list[Product]:
    """Return ``count`` new products."""
    from benchmarks.bench.models import Product

    return [Product(**product(number)) for number in range(count)]


def change(row: Any) -> None:
    """Change three of the ten fields, each to a value it did not have."""
    row.price += 1
    row.stock += 1
    row.updated += datetime.timedelta(seconds=1)
