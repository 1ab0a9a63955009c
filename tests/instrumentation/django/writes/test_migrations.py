"""Data migrations: one record per table and migration, with the rows of each verb."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import override_settings

from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Place, Supplier

FIRST = """
from django.db import migrations, models
def table(name, *more):
    return migrations.CreateModel(name, [("id", models.BigAutoField(primary_key=True)),
                                         ("name", models.CharField(max_length=50)), *more])
class Migration(migrations.Migration):
    operations = [table("Supplier"), table("Place", ("rating", models.IntegerField(default=0)))]
"""
DATA = """
from django.db import migrations, transaction
def forwards(apps, editor):
    Supplier = apps.get_model("warehouse", "Supplier")
{body}
def backwards(apps, editor):
    apps.get_model("warehouse", "Supplier").objects.all().delete()
class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = [("warehouse", "m0001")]
    operations = [migrations.RunPython(forwards, backwards), *{more}]
"""
BODY = """
    for supplier in Supplier.objects.all():
        supplier.name *= 2
        supplier.save()
    Supplier.objects.filter(name="bb").delete()
    Supplier.objects.create(name="c")
    Supplier.objects.get_or_create(name="d")
    Supplier.objects.bulk_create([Supplier(name="e"), Supplier(name="f")])
"""
UNDONE = """
    try:
        with transaction.atomic():
            Supplier.objects.all().delete()
            raise KeyError
    except KeyError:
        pass
    Supplier.objects.update(name="g")
"""
RAW = "migrations.RunSQL(\"INSERT INTO warehouse_place (name, rating) VALUES ('hunter2', 1)\")"


@pytest.fixture
def write(tmp_path: Path, vendor: str) -> Iterator[Callable[[str], None]]:
    """Write the data migration; before it is the one that has made the tables."""
    package = tmp_path / f"warehouse_migrations_{tmp_path.name.replace('-', '_')}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "m0001.py").write_text(FIRST)
    (package / "m0002.py").write_text(DATA.format(body="    pass", atomic=True, more=[]))

    def write(text: str) -> None:
        (package / "m0002.py").write_text(text)

    sys.path.insert(0, str(tmp_path))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    with override_settings(MIGRATION_MODULES={"warehouse": package.name}):
        migrate("m0001", fake=True)
        Supplier.objects.create(name="a")
        Supplier.objects.create(name="b")
        try:
            yield write
        finally:
            migrate("zero", fake=True)
            sys.path.remove(str(tmp_path))
            sys.dont_write_bytecode = before


def migrate(name: str, *, fake: bool = False) -> None:
    for module in [module for module in sys.modules if module.startswith("warehouse_migrations_")]:
        del sys.modules[module]
    call_command("migrate", "warehouse", name, fake=fake, verbosity=0)


def told(audit: CapturedAudit) -> list[tuple[str, str, dict[str, int | None]]]:
    return [
        (str(record.target), record.outcome, record.attributes["rows"])
        for record in audit.find(action="MIGRATE")
    ]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_data_migration_is_one_record_per_table(write: Callable[[str], None], atomic: bool) -> None:
    write(DATA.format(body=BODY, atomic=atomic, more=f"[{RAW}]"))
    with auditing() as audit:
        migrate("m0002")
        assert told(audit) == [
            ("warehouse.Supplier", "success", {"update": 2, "delete": 1, "create": 4}),
            ("warehouse.Place", "success", {"create": 1}),
        ]
        assert len(audit) == 2
        record = audit.records[0]
        assert record.event_name == "warehouse.supplier.migrate"
        assert record.completeness == "statement"
        assert record.bulk is not None
        assert record.bulk.count == 7
        assert record.attributes["migration"] == "warehouse.m0002"
        assert record.attributes["direction"] == "forwards"
        assert record.attributes["operations"] == ["RunPython", "RunSQL"]
        assert record.actor.id == "manage.py migrate"
        assert record.database.table == "warehouse_supplier"
        audit.assert_no_secrets("hunter2")
        audit.clear()
        (count,) = {Supplier.objects.count()}
        write(DATA.format(body="    pass", atomic=atomic, more=[]))
        migrate("m0001")
        assert told(audit) == [("warehouse.Supplier", "success", {"delete": count})]
        assert audit.one().attributes["direction"] == "backwards"


def test_what_was_rolled_back_within_it_is_not_counted(write: Callable[[str], None]) -> None:
    write(DATA.format(body=UNDONE, atomic=True, more=[]))
    with auditing() as audit:
        migrate("m0002")
        assert told(audit) == [
            ("warehouse.Supplier", "failure", {"delete": 2}),
            ("warehouse.Supplier", "success", {"update": 2}),
        ]


def test_a_migration_that_fails(write: Callable[[str], None]) -> None:
    write(DATA.format(body='    Supplier.objects.update(name="g")\n    1 / 0', atomic=True, more=[]))
    with auditing() as audit:
        with pytest.raises(ZeroDivisionError):
            migrate("m0002")
        assert told(audit) == [("warehouse.Supplier", "failure", {"update": 2})]
        assert audit.one().error == "ZeroDivisionError"


def test_savepoints_in_a_loop_make_no_more_records(write: Callable[[str], None]) -> None:
    body = """
    for number in range(50):
        with transaction.atomic():
            Supplier.objects.create(name=str(number))
"""
    write(DATA.format(body=body, atomic=True, more=[]))
    with auditing() as audit:
        migrate("m0002")
        assert told(audit) == [("warehouse.Supplier", "success", {"create": 50})]


def test_a_migration_that_writes_no_audited_row_is_no_record(write: Callable[[str], None]) -> None:
    write(DATA.format(body="    list(Supplier.objects.all())", atomic=True, more=[]))
    with auditing() as audit:
        migrate("m0002")
        assert len(audit) == 0
    assert Place.objects.count() == 0
