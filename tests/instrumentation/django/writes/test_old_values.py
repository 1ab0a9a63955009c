"""Old values of a save: believed while nothing speaks against them, asked for otherwise."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from msgspec import UNSET

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import ModelConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing, unseen
from tests.instrumentation.django.warehouse.models import Item, Kiosk, Ledger, Reading, Stock


def changes(record: AuditRecord) -> dict[str, tuple[Any, Any]]:
    return {change.field: (change.old, change.new) for change in record.changes if change.field != "modified"}


@pytest.fixture
def item(audit: CapturedAudit) -> Item:
    """An item just loaded, and nothing recorded yet."""
    created = Item.objects.create(name="a", quantity=1)
    audit.clear()
    return Item.objects.get(pk=created.pk)


def updated(audit: CapturedAudit) -> AuditRecord:
    return audit.one(event_name="warehouse.item.update")


def test_a_save_costs_no_query_and_carries_all_it_wrote(audit: CapturedAudit, item: Item) -> None:
    item.quantity = 2
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        item.save()
    assert len([query for query in queries if "warehouse" in query["sql"]]) == 1
    record = updated(audit)
    assert changes(record) == {"quantity": (1, 2)}
    assert record.old_values == "as_loaded"
    assert set(record.image) == {field.name for field in Item._meta.concrete_fields} - {"id"}
    assert record.image["name"] == "a"


def test_a_save_of_what_was_created_here_costs_no_query_either(audit: CapturedAudit) -> None:
    with transaction.atomic():
        item = Item.objects.create(name="a", price="1.5")
        item.price = "1.50"
        item.quantity = 5
        with CaptureQueriesContext(connection) as queries:
            item.save()
    assert len(queries) == 1
    assert changes(updated(audit)) == {"quantity": (0, 5)}


@pytest.mark.parametrize("again", [True, False], ids=["and saved again", "and thrown away"])
def test_what_is_held_until_the_commit_says_what_was_written_then(
    audit: CapturedAudit, *, again: bool
) -> None:
    """Whatever becomes of the object meanwhile, and of the list and the text in it."""
    with transaction.atomic():
        item = Item.objects.create(name="a", quantity=1, facts={"a": [1]})
        item.facts["a"].append(2)
        item.name, item.quantity = "b", 2
        if again:
            item.save()
        item.delete()
        item.facts["a"].append(3)
        item.name, item.quantity = "c", 3
        Item.objects.create(name="d", facts=item.facts).delete()
        item.facts.clear()
        del item
    created, *_ = audit.find(event_name="warehouse.item.create")
    assert changes(created)["name"] == (UNSET, "a")
    assert changes(created)["facts"] == (UNSET, {"a": [1]})
    deleted, last = audit.find(event_name="warehouse.item.delete")
    was = (
        {"name": "b", "quantity": 2, "facts": {"a": [1, 2]}}
        if again
        else {"name": "a", "quantity": 1, "facts": {"a": [1]}}
    )
    assert {name: changes(deleted)[name] for name in was} == {name: (old, UNSET) for name, old in was.items()}
    assert changes(last)["facts"] == ({"a": [1, 2, 3]}, UNSET)


def test_another_instance_wrote_the_row(audit: CapturedAudit, item: Item) -> None:
    other = Item.objects.get(pk=item.pk)
    other.quantity = 7
    other.save()
    audit.clear()
    item.name = "b"
    item.save()
    assert changes(updated(audit)) == {"name": ("a", "b"), "quantity": (7, 1)}


def test_an_update_wrote_the_row_and_the_save_silently_takes_it_back(
    audit: CapturedAudit, item: Item
) -> None:
    Item.objects.filter(pk=item.pk).update(quantity=7)
    audit.clear()
    item.save()
    assert changes(updated(audit)) == {"quantity": (7, 1)}


def test_a_retry_after_a_rollback(audit: CapturedAudit, item: Item) -> None:
    item.quantity = 2
    with pytest.raises(IntegrityError), transaction.atomic():
        item.save()
        raise IntegrityError
    item.save()
    assert [record.outcome for record in audit] == ["failure", "success"]
    assert [changes(record) for record in audit] == [{"quantity": (1, 2)}] * 2


def test_a_retry_after_a_savepoint(audit: CapturedAudit, item: Item) -> None:
    item.quantity = 2
    with transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic():
            item.save()
            raise IntegrityError
        item.save()
    assert sorted(record.outcome for record in audit) == ["failure", "success"]
    assert [changes(record) for record in audit] == [{"quantity": (1, 2)}] * 2


def test_loaded_in_a_transaction_that_was_rolled_back(audit: CapturedAudit, item: Item) -> None:
    with pytest.raises(KeyError), transaction.atomic():
        Item.objects.filter(pk=item.pk).update(quantity=9)
        phantom = Item.objects.get(pk=item.pk)
        raise KeyError
    audit.clear()
    phantom.save()
    assert changes(updated(audit)) == {"quantity": (1, 9)}


def test_saved_under_another_key(audit: CapturedAudit, item: Item) -> None:
    other = Item.objects.create(name="other", quantity=5)
    audit.clear()
    item.pk = other.pk
    item.save()
    record = updated(audit)
    assert str(record.target) == f"warehouse.Item/{other.pk}"
    assert changes(record)["name"] == ("other", "a")
    assert changes(record)["quantity"] == (5, 1)


def test_copies_saved_in_turn(audit: CapturedAudit, item: Item) -> None:
    other = copy.copy(item)
    item.quantity, other.name = 2, "b"
    item.save()
    other.save()
    assert [changes(record) for record in audit] == [
        {"quantity": (1, 2)},
        {"name": ("a", "b"), "quantity": (2, 1)},
    ]


def test_an_unpickled_instance_is_doubted(audit: CapturedAudit, item: Item) -> None:
    restored = pickle.loads(pickle.dumps(item))
    restored.quantity = 2
    restored.save()
    assert changes(updated(audit)) == {"quantity": (1, 2)}


def test_a_refresh_is_what_is_known_from_then_on(audit: CapturedAudit, item: Item) -> None:
    """Written by somebody this process knows nothing of, and then loaded again, in part."""
    unseen(f"UPDATE warehouse_item SET quantity = 7, name = 'raw' WHERE id = {item.pk}")
    item.refresh_from_db(fields=["quantity"])
    item.quantity += 1
    item.save(update_fields=["quantity"])
    assert changes(updated(audit)) == {"quantity": (7, 8)}
    audit.clear()
    item.refresh_from_db()
    item.name = "b"
    item.save()
    assert changes(updated(audit)) == {"name": ("raw", "b")}


def test_a_deferred_field_is_asked_for_when_it_is_written(audit: CapturedAudit, item: Item) -> None:
    partly = Item.objects.only("name").get(pk=item.pk)
    partly.quantity = 3
    partly.save()
    assert changes(updated(audit)) == {"quantity": (1, 3)}


def test_an_instance_made_by_hand_for_a_row_that_is_there(postgres: str) -> None:
    with auditing() as audit:
        Stock.objects.create(code="x", shelf=1)
        audit.clear()
        Stock(code="x", shelf=2).save()
        assert changes(audit.one())["shelf"] == (1, 2)


def test_nothing_changed_is_no_record_and_is_verified(audit: CapturedAudit, item: Item) -> None:
    item.save()
    assert len(audit) == 0
    unseen(f"UPDATE warehouse_item SET quantity = 7 WHERE id = {item.pk}")
    item.save()
    assert changes(updated(audit)) == {"quantity": (7, 1)}


def test_equal_values_of_other_types_are_no_change(audit: CapturedAudit, item: Item) -> None:
    item.quantity, item.price, item.active, item.weight = "1", "0", "1", None
    item.save()
    assert len(audit) == 0


def test_an_expression_is_recorded_by_what_it_became(audit: CapturedAudit, item: Item) -> None:
    item.quantity = F("quantity") + 5
    item.save()
    assert changes(updated(audit)) == {"quantity": (1, 6)}
    audit.clear()
    item.refresh_from_db()
    item.quantity = 2
    item.save()
    assert changes(updated(audit)) == {"quantity": (6, 2)}


def test_json_changed_in_place(audit: CapturedAudit, item: Item) -> None:
    item.facts = {"a": [1]}
    item.save()
    item.facts["a"].append(2)
    with transaction.atomic():
        item.save()
        item.facts["a"].append("written by nobody")
    records = audit.records
    assert changes(records[0]) == {"facts": (None, {"a": [1]})}
    assert changes(records[1]) == {"facts": ({"a": [1]}, {"a": [1, 2]})}
    assert records[1].image["facts"] == {"a": [1, 2]}


def _deep(levels: int) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, {"b": 2}], "c": {"d": None}},
        [1, [2, [3]]],
        {"much": "x" * 20_000, "list": list(range(300))},
        {"n": 12345678901234567890, "f": 1.5, "t": "ä\u2028\U0001f600", "": True},
        "a text",
        3,
        True,
    ],
    ids=["dict", "list", "long", "scalars", "text", "number", "true"],
)
def test_json_changed_in_place_after_it_was_loaded(audit: CapturedAudit, value: Any) -> None:
    """The old value is what was loaded, whatever the application did to the very object since."""
    created = Ledger.objects.create(name="a", entries=copy.deepcopy(value), notes=["n"])
    for again in range(2):
        audit.clear()
        ledger = Ledger.objects.get(pk=created.pk)
        before = copy.deepcopy((ledger.entries, ledger.notes))
        if isinstance(ledger.entries, dict):
            ledger.entries[f"more {again}"] = [again]
            next(item for item in ledger.entries.values() if isinstance(item, list)).append("x")
        elif isinstance(ledger.entries, list):
            next((item for item in ledger.entries if isinstance(item, list)), ledger.entries).append(again)
        else:
            ledger.entries = [again]
        ledger.notes.append(str(again))
        after = copy.deepcopy((ledger.entries, ledger.notes))
        ledger.save()
        record = audit.one(event_name="warehouse.ledger.update")
        assert record.old_values == "as_loaded"
        assert changes(record) == {
            "entries": (before[0], after[0]),
            "notes": (before[1], after[1]),
        }


@pytest.mark.parametrize(
    "value", [_deep(100), {"much": "x" * 200_000}, list(range(40_000))], ids=["deep", "long", "wide"]
)
def test_json_too_large_for_a_record_is_compared_all_the_same(audit: CapturedAudit, value: Any) -> None:
    if connection.vendor == "mysql" and isinstance(value, list) and len(value) == 1:
        value = list(range(50_000))  # MariaDB takes 32 levels
    created = Ledger.objects.create(name="a", entries=value)
    audit.clear()
    ledger = Ledger.objects.get(pk=created.pk)
    ledger.name = "b"
    ledger.save()
    assert changes(updated_ledger(audit)) == {"name": ("a", "b")}
    audit.clear()
    ledger = Ledger.objects.get(pk=created.pk)
    if isinstance(ledger.entries, dict):
        ledger.entries["more"] = 1
    else:
        ledger.entries.append("more")
    ledger.save()
    assert set(changes(updated_ledger(audit))) == {"entries"}


def test_json_loaded_is_compared_after_a_refresh_and_after_another_save(audit: CapturedAudit) -> None:
    created = Ledger.objects.create(name="a", entries=[1], notes={"x": []})
    ledger = Ledger.objects.get(pk=created.pk)
    ledger.entries.append("lost")
    ledger.refresh_from_db(fields=["entries"])
    audit.clear()
    ledger.entries.append(2)
    ledger.notes["x"].append(3)
    ledger.save()
    assert changes(updated_ledger(audit)) == {"entries": ([1], [1, 2]), "notes": ({"x": []}, {"x": [3]})}
    audit.clear()
    ledger.entries.append(4)
    ledger.save(update_fields=["entries"])
    assert changes(updated_ledger(audit)) == {"entries": ([1, 2], [1, 2, 4])}


def test_json_of_a_row_loaded_in_part(audit: CapturedAudit) -> None:
    created = Ledger.objects.create(name="a", entries=[1], notes=["n"])
    audit.clear()
    ledger = Ledger.objects.only("entries").get(pk=created.pk)
    ledger.entries.append(2)
    ledger.save()
    assert changes(updated_ledger(audit)) == {"entries": ([1], [1, 2])}


def test_what_an_override_of_from_db_makes_of_json_is_no_matter(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be given, and give, what JSON does not know."""
    created = Ledger.objects.create(name="a", entries=[1])
    audit.clear()
    values = [created.pk, "a", {object()}, None]
    names = [field.attname for field in Ledger._meta.concrete_fields]
    ledger = Ledger.from_db("default", names, values)
    ledger.entries = [2]
    ledger.save()
    assert set(changes(updated_ledger(audit))) == {"entries"}
    assert Ledger.objects.get(pk=created.pk).entries == [2]


def updated_ledger(audit: CapturedAudit) -> AuditRecord:
    return audit.one(event_name="warehouse.ledger.update")


def test_the_parts_of_an_inherited_model(audit: CapturedAudit) -> None:
    created = Kiosk.objects.create(name="k", staff=1, hours=2)
    audit.clear()
    kiosk = Kiosk.objects.get(pk=created.pk)
    kiosk.rating, kiosk.hours = 4, 5
    kiosk.save()
    assert [(str(record.target), changes(record)) for record in audit] == [
        (f"warehouse.Place/{kiosk.pk}", {"rating": (0, 4)}),
        (f"warehouse.Kiosk/{kiosk.pk}", {"hours": (2, 5)}),
    ]


def test_a_composite_key(audit: CapturedAudit) -> None:
    Reading.objects.create(sensor=1, at=2)
    reading = Reading.objects.get()
    reading.value = 3
    reading.save()
    reading.delete()
    assert [str(record.target) for record in audit] == ["warehouse.Reading/[1,2]"] * 3
    assert changes(audit.records[1]) == {"value": (0, 3)}


@pytest.fixture
def exact(vendor: str) -> Iterator[CapturedAudit]:
    with auditing(model={"warehouse.item": ModelConfig(old_values="exact")}) as audit:
        yield audit


@pytest.mark.parametrize("in_transaction", [True, False])
def test_exact_sees_what_other_processes_wrote(exact: CapturedAudit, in_transaction: bool) -> None:
    item = Item.objects.create(name="a", quantity=1)
    unseen(f"UPDATE warehouse_item SET quantity = 7 WHERE id = {item.pk}")
    exact.clear()
    item.name = "b"
    if in_transaction:
        with transaction.atomic():
            item.save()
    else:
        item.save()
    record = updated(exact)
    assert changes(record) == {"name": ("a", "b"), "quantity": (7, 1)}
    assert record.old_values == "exact"


def test_off_asks_nothing_ever(vendor: str) -> None:
    with auditing(old_values="off") as audit:
        item = Item.objects.create(name="a", quantity=1)
        unseen(f"UPDATE warehouse_item SET quantity = 7 WHERE id = {item.pk}")
        audit.clear()
        restored = pickle.loads(pickle.dumps(item))
        restored.name = "b"
        with CaptureQueriesContext(connection) as queries:
            restored.save()
            Item.objects.update(quantity=3)
            Item.objects.filter(quantity=3).delete()
        ours = [query["sql"] for query in queries if not query["sql"].startswith(("BEGIN", "COMMIT"))]
        plain = plain_queries(vendor)
        assert [sql.split()[0] for sql in ours] == plain
        assert not any("RETURNING" in sql or "__otel" in sql for sql in ours)
        kinds = [(record.event_name, record.completeness) for record in audit]
        assert kinds[1] == ("warehouse.item.update", "count")
        assert audit.records[1].bulk is not None
        assert audit.records[1].bulk.count == 1


def plain_queries(vendor: str) -> list[str]:
    """The statements Django sends by itself for the same."""
    item = Item.objects.create(name="a", quantity=1)
    with CaptureQueriesContext(connection) as queries:
        item.save()
        Item.objects.update(quantity=3)
        Item.objects.filter(quantity=3).delete()
    return [query["sql"].split()[0] for query in queries if not query["sql"].startswith(("BEGIN", "COMMIT"))]


def test_threads_do_not_believe_what_others_have_not_committed(postgres: str) -> None:
    """Loaded before another thread's commit, saved after it."""
    import threading

    with auditing() as audit:
        item = Item.objects.create(name="a", quantity=1)
        written, loaded = threading.Event(), threading.Event()

        def other() -> None:
            try:
                with transaction.atomic():
                    Item.objects.filter(pk=item.pk).update(quantity=7)
                    written.set()
                    loaded.wait(10)
            finally:
                connection.close()

        thread = threading.Thread(target=other)
        thread.start()
        assert written.wait(10)
        stale = Item.objects.get(pk=item.pk)
        loaded.set()
        thread.join()
        audit.clear()
        stale.name = "b"
        stale.save()
        assert changes(updated(audit)) == {"name": ("a", "b"), "quantity": (7, 1)}


def test_an_override_of_from_db_that_calls_no_super_is_seen(vendor: str) -> None:
    with auditing() as audit:

        class Odd(models.Model):
            name = models.CharField(max_length=10)

            class Meta:
                app_label = "warehouse"
                db_table = "warehouse_supplier"

            @classmethod
            def from_db(cls, db: Any, field_names: Any, values: Any) -> Any:  # type: ignore[override]
                instance = cls(*values)
                instance._state.adding = False
                instance._state.db = db
                return instance

        try:
            Odd.objects.create(name="a")
            odd = Odd.objects.get()
            odd.name = "b"
            with transaction.atomic(), CaptureQueriesContext(connection) as queries:
                odd.save()
            assert len([query for query in queries if "supplier" in query["sql"]]) == 1
            assert changes(audit.one(action="UPDATE")) == {"name": ("a", "b")}
        finally:
            from django.apps import apps

            del apps.all_models["warehouse"]["odd"]
            apps.clear_cache()


def test_a_pickle_of_an_audited_instance_loads_elsewhere(audit: CapturedAudit, item: Item) -> None:
    data = pickle.dumps(item._state).hex()
    code = f"import pickle, sys; print(pickle.loads(bytes.fromhex('{data}')).db, 'otel_audit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["default", "False"]
