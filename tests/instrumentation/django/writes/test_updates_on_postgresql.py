"""An UPDATE of many rows on PostgreSQL, which one statement finds, locks, changes and returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Random
from django.test.utils import CaptureQueriesContext

from tests.instrumentation.django.warehouse.databases import auditing, unseen
from tests.instrumentation.django.warehouse.models import Item, Supplier

ROWS = 300


def items(count: int) -> list[Item]:
    return Item.objects.bulk_create(Item(name=f"item {number}", quantity=number) for number in range(count))


@contextmanager
def a_trigger(body: str) -> Iterator[None]:
    """Change each row of an UPDATE of items before it is written."""
    unseen(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$;"
        "CREATE TRIGGER meddle BEFORE UPDATE ON warehouse_item FOR EACH ROW EXECUTE FUNCTION meddle()"
    )
    try:
        yield
    finally:
        unseen("DROP FUNCTION meddle CASCADE")


def plan_of(statement: str) -> str:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.parametrize("expressions", [False, True], ids=["values", "expressions"])
def test_no_row_is_compared_with_each_other_in_a_table_the_planner_takes_for_empty(
    postgres: str, expressions: bool
) -> None:
    Supplier.objects.bulk_create(Supplier(name=f"supplier {number}") for number in range(ROWS))
    Supplier.objects.all().delete()
    unseen("ANALYZE warehouse_supplier")
    kept = Supplier.objects.bulk_create(Supplier(name=f"supplier {number}") for number in range(ROWS))
    with auditing() as audit, CaptureQueriesContext(connection) as queries, transaction.atomic():
        assert Supplier.objects.update(name=F("name") if expressions else "the same") == ROWS
    [update] = [query["sql"] for query in queries if "UPDATE" in query["sql"]]
    assert "Nested Loop" not in plan_of(update)
    if not expressions:
        bulk = audit.one(event_name="warehouse.supplier.update").bulk
        assert bulk is not None
        assert isinstance(bulk.columns[0].old, list)
        was = {str(supplier.pk): supplier.name for supplier in kept}
        assert dict(zip(bulk.keys, bulk.columns[0].old, strict=True)) == was


def test_a_condition_that_says_otherwise_each_time_counts_the_rows_it_changed(postgres: str) -> None:
    items(100)
    with auditing() as audit:
        chosen = Item.objects.annotate(chance=Random()).filter(chance__lt=0.5)
        changed = chosen.update(color="blue")
    assert changed == Item.objects.filter(color="blue").count()
    record = audit.one(event_name="warehouse.item.update")
    assert record.bulk is not None
    assert record.bulk.count == changed
    assert record.completeness == "count"


def test_rows_a_trigger_left_alone_are_not_on_record(postgres: str) -> None:
    items(4)
    with a_trigger("IF OLD.quantity % 2 = 0 THEN RETURN NULL; END IF;"), auditing() as audit:
        assert Item.objects.update(color="blue") == 2
    bulk = audit.one(event_name="warehouse.item.update").bulk
    assert bulk is not None
    assert set(bulk.keys) == {str(item.pk) for item in Item.objects.filter(color="blue")}


def test_rows_whose_keys_a_trigger_changes_are_counted(postgres: str) -> None:
    items(3)
    with a_trigger("NEW.id = OLD.id + 1000;"), auditing() as audit:
        assert Item.objects.update(color="blue") == 3
    record = audit.one(event_name="warehouse.item.update")
    assert record.bulk is not None
    assert (record.bulk.count, record.completeness) == (3, "count")


def test_rows_whose_keys_are_updated_are_on_record_by_the_keys_they_had(postgres: str) -> None:
    keys = [item.pk for item in items(3)]
    with auditing() as audit:
        assert Item.objects.update(id=F("id") + 1000, color="blue") == 3
    record = audit.one(event_name="warehouse.item.update")
    assert record.bulk is not None
    assert record.bulk.keys == list(map(str, keys))
    assert [column.old for column in record.bulk.columns if column.field == "color"] == [["red"] * 3]


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_conditions_of_several_parts_choose_what_they_chose(postgres: str, chosen: int) -> None:
    made = items(4)
    query = Item.objects.filter(quantity=0) | Item.objects.filter(quantity__in=range(4 - chosen, 4))
    with auditing() as captured:
        assert query.update(color="blue") == 1 + chosen
    keys = [str(item.pk) for item in made if item.quantity == 0 or item.quantity >= 4 - chosen]
    [record] = captured.find(event_name="warehouse.item.update")
    assert (record.bulk.keys if record.bulk else [record.target and record.target.id]) == keys
