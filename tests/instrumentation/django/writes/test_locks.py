"""What our own statements do to others: nothing a plain statement would not do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F

from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Item, Supplier
from tests.instrumentation.django.writes import truth
from tests.pipeline.spooling import wait_until

WRITER = """
import sys, django
from django.conf import settings
path, spool, old_values = sys.argv[1:]
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": {"timeout": 30}}},
    INSTALLED_APPS=["tests.instrumentation.django.warehouse"], USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.db import OperationalError, transaction
from django.db.models import F
from tests.instrumentation.django.warehouse.models import Supplier, Stock, Item
from tests.instrumentation.django.warehouse.databases import auditing
failed = 0
with auditing(old_values=old_values) as audit:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(90):
        try:
            with transaction.atomic():
                if number % 3 == 0:
                    Item.objects.update(quantity=F("quantity") + 1)
                elif number % 3 == 1:
                    Stock.objects.bulk_create(
                        [Stock(code="same", shelf=1, note=str(number))],
                        update_conflicts=True, unique_fields=["code"], update_fields=["note"],
                    )
                else:
                    item = Item(pk=1, name=str(number))
                    item._state.adding = False
                    item.save(update_fields=["name"])
        except OperationalError as error:
            failed += 1
    print(failed, len(audit.find(outcome="success")), flush=True)
"""


@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
def test_two_processes_on_sqlite_never_meet_a_lock_they_would_not_have_met(
    sqlite: str, sqlite_warehouse: dict[str, Any], tmp_path: Path, old_values: str
) -> None:
    """Reading first would leave a snapshot that cannot be upgraded: 'database is locked'."""
    Item.objects.create(pk=1, name="a")
    connection.close()
    root = str(Path(__file__).parents[4])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, sqlite_warehouse["NAME"], str(tmp_path / str(number)), old_values],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for number in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=120)[0].split() for writer in writers]
    assert [failed for failed, _ in said] == ["0", "0"]
    assert all(int(recorded) >= 85 for _, recorded in said)
    assert Item.objects.get().quantity == 60


def test_child_rows_can_be_inserted_while_their_parent_is_being_updated(postgres: str) -> None:
    """FOR UPDATE would block the key-share lock of a foreign key; an UPDATE of other columns does not."""
    supplier = Supplier.objects.create(name="s")
    done: list[str] = []

    def insert_child() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '3s'")
            Item.objects.create(name="child", supplier_id=supplier.pk)
            done.append("inserted")
        except OperationalError as error:
            done.append(str(error))
        finally:
            connection.close()

    with auditing(old_values="exact"), transaction.atomic():
        supplier.name = "t"
        supplier.save()
        Supplier.objects.update(name=F("name"))
        thread = threading.Thread(target=insert_child)
        thread.start()
        thread.join()
    assert done == ["inserted"]


@pytest.fixture
def told(postgres: str) -> Iterator[None]:
    truth.install_triggers()
    yield
    truth.remove_triggers()


def in_threads(count: int, work: Callable[[int], object]) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - told to the test below
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_exact_values_under_contention(told: None) -> None:
    """Four threads save and update the same few rows; every old value is what the row held."""
    keys = [item.pk for item in Item.objects.bulk_create([Item(name=str(n)) for n in range(4)])]

    def work(number: int) -> None:
        for step in range(40):
            key = keys[(step + number) % len(keys)]
            if step % 3:
                item = Item.objects.get(pk=key)
                item.quantity += 1
                item.name = f"{number}-{step}"
                item.save()
            else:
                Item.objects.filter(pk=key).update(quantity=F("quantity") + 1)

    truth.told()
    with auditing(old_values="exact") as audit:
        in_threads(4, work)
        actual, expected = truth.claimed(audit.records), truth.told()
    assert expected.total() == 160
    assert actual == expected


def test_bulk_updates_under_contention_are_exact_and_lose_nothing(told: None) -> None:
    Item.objects.bulk_create([Item(name=str(n)) for n in range(3)])
    truth.told()
    with auditing() as audit:
        in_threads(
            4,
            lambda _: [
                Item.objects.filter(quantity__gte=0).update(quantity=F("quantity") + 1) for _ in range(40)
            ],
        )
        actual, expected = truth.claimed(audit.records), truth.told()
    assert actual == expected
    assert sum(Item.objects.values_list("quantity", flat=True)) == expected.total()


def test_compare_and_set_claims_each_row_once(postgres: str) -> None:
    Item.objects.bulk_create([Item(name=str(n)) for n in range(30)])
    claimed: Counter[int] = Counter()

    def work(number: int) -> None:
        for key in keys:
            if Item.objects.filter(pk=key, quantity=0).update(quantity=number + 1):
                claimed[key] += 1

    keys = list(Item.objects.values_list("pk", flat=True))
    with auditing() as audit:
        in_threads(4, work)
        assert claimed == Counter(keys)
        assert len(audit.find(action="UPDATE")) == 30


def test_deadlocks_keep_their_exception(postgres: str) -> None:
    """An application that retries on OperationalError must see one, not an aborted transaction."""
    one, two = Item.objects.bulk_create([Item(name="1"), Item(name="2")])
    barrier = threading.Barrier(2)
    seen: list[type[BaseException]] = []

    def work(number: int) -> None:
        first, second = (one, two) if number else (two, one)
        try:
            with transaction.atomic():
                Item.objects.filter(pk=first.pk).update(quantity=1)
                barrier.wait()
                second.quantity = 5
                second.save()
        except OperationalError as error:
            seen.append(type(error))

    with auditing(old_values="exact"):
        in_threads(2, work)
    assert seen == [OperationalError]


def test_updates_of_the_same_rows_deadlock_no_more_than_without_us(postgres: str) -> None:
    """PostgreSQL moves a row with each update: what locks rows as they lie meets others in any order."""
    keys = [item.pk for item in Item.objects.bulk_create([Item(name=str(n)) for n in range(3)])]
    Item.objects.filter(pk=keys[0]).update(quantity=1)  # lies last now
    with auditing(), transaction.atomic():
        Item.objects.filter(pk=keys[0]).update(quantity=2)
        other = _in_another_thread(lambda: Item.objects.update(quantity=F("quantity") + 1))
        _wait_for_waiting("pg_locks WHERE NOT granted")
        with connection.cursor() as cursor:  # the other one has locked none of them: it began with the first
            cursor.execute("SELECT count(*) FROM (SELECT id FROM warehouse_item FOR UPDATE SKIP LOCKED) free")
            assert cursor.fetchone() == (3,)
    other.join()


def test_a_deadlock_broken_by_ending_our_own_transaction_costs_no_detail(mariadb: str) -> None:
    """MariaDB ends the one that has written less: ours, which has only read. It begins again."""
    first, *others = [item.pk for item in Item.objects.bulk_create([Item(name=str(n)) for n in range(4)])]
    with auditing() as audit:
        with transaction.atomic():
            Item.objects.filter(pk__in=others).update(name="held")
            other = _in_another_thread(lambda: Item.objects.update(quantity=F("quantity") + 1))
            _wait_for_waiting("information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
            Item.objects.filter(pk=first).update(name="held as well")
        other.join()
        # Which of the two threads writes its records last, nobody says.
        [record] = [each for each in audit.find(action="UPDATE") if each.bulk and each.bulk.count == 4]
    assert record.completeness == "full"
    assert record.bulk is not None
    assert record.bulk.count == 4


def _in_another_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=in_threads, args=(1, lambda _: work()))
    thread.start()
    return thread


def _wait_for_waiting(where: str) -> None:
    def somebody_waits() -> bool:
        time.sleep(0.2)  # MariaDB answers anew only where nobody has asked for a tenth of a second
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {where}")
            return bool(cursor.fetchone()[0])

    wait_until(somebody_waits, "a statement waits for a lock")
