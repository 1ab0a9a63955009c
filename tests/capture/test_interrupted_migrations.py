"""A data migration interrupted at any line of ours: what it committed is on record, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

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
    mariadb,
    mariadb_warehouse,
    postgres,
    postgresql_warehouse,
    sqlite,
    sqlite_warehouse,
)
from tests.instrumentation.django.warehouse.models import Place, Supplier

SAMPLED: Final = 8
FIRST: Final = """
from django.db import migrations, models
def table(name, *more):
    return migrations.CreateModel(name, [("id", models.BigAutoField(primary_key=True)),
                                         ("name", models.CharField(max_length=50)), *more])
class Migration(migrations.Migration):
    operations = [table("Supplier"), table("Place", ("rating", models.IntegerField(default=0)))]
"""
DATA: Final = """
from django.db import migrations
def forwards(apps, editor):
    Supplier = apps.get_model("warehouse", "Supplier")
    for supplier in Supplier.objects.all():
        supplier.name *= 2
        supplier.save()
    Supplier.objects.create(name="c")
class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = [("warehouse", "m0001")]
    operations = [
        migrations.RunPython(forwards, migrations.RunPython.noop),
        migrations.RunSQL("INSERT INTO warehouse_place (name, rating) VALUES ('a', 1)"),
    ]
"""


def migrate(name: str, *, fake: bool = False) -> None:
    for module in [module for module in sys.modules if module.startswith("interrupted_migrations_")]:
        del sys.modules[module]
    call_command("migrate", "warehouse", name, fake=fake, verbosity=0)


@pytest.fixture
def migrations(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    package = tmp_path / f"interrupted_migrations_{tmp_path.name.replace('-', '_')}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "m0001.py").write_text(FIRST)
    (package / "m0002.py").write_text(DATA.format(atomic=request.param))
    sys.path.insert(0, str(tmp_path))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    with override_settings(MIGRATION_MODULES={"warehouse": package.name}):
        migrate("m0001", fake=True)
        try:
            yield
        finally:
            migrate("zero", fake=True)
            sys.path.remove(str(tmp_path))
            sys.dont_write_bytecode = before


def attempt(audit: CapturedAudit, interruption: Interruption) -> list[str]:
    """Migrate, interrupted at a moment; return what is wrong afterwards."""
    with fresh_connection():
        migrate("m0001", fake=True)
        Supplier.objects.all().delete()
        Place.objects.all().delete()
        Supplier.objects.create(name="a")
        audit.clear()
        passed = False
        try:
            with interruption:
                migrate("m0002")
        except interruption.exception:
            passed = True
        wrong = list(half_open(audit))
        changed = {
            "warehouse.Supplier": sorted(Supplier.objects.values_list("name", flat=True)) != ["a"],
            "warehouse.Place": Place.objects.exists(),
        }
        for table, written in changed.items():
            outcomes = [
                record.outcome
                for record in audit.find(action="MIGRATE")
                if record.target is not None and record.target.type == table
            ]
            if written and not {"success", "unknown"} & set(outcomes):
                wrong.append(f"{table} is committed, and its records are {outcomes}")
            if not written and "success" in outcomes:
                wrong.append(f"{table} is not committed, and recorded as success")
            if outcomes.count("success") > 1:
                wrong.append(f"{table} is recorded {len(outcomes)} times")
        if interruption.place and not passed:
            wrong.append("the application does not see it")
        if not connection.in_atomic_block:
            wrong += next_statement(audit)
        return wrong


def try_migration(sampled: int | None) -> None:
    try_moments(attempt, [KeyboardInterrupt, SoftTimeLimit], sampled, "migrate")


# Not atomic ones on SQLite: there Django's own schema editor, left by an exception, goes on in the doomed
# transaction and leaves it open. MariaDB has no others.
IN_PIECES: Final = pytest.mark.parametrize("migrations", [False], ids=["not atomic"], indirect=True)
BOTH: Final = pytest.mark.parametrize(
    "migrations", [True, False], ids=["atomic", "not atomic"], indirect=True
)


@IN_PIECES
def test_interrupted_at_some_moments(sqlite: str, migrations: None) -> None:  # noqa: F811
    try_migration(SAMPLED)


@BOTH
def test_interrupted_at_some_moments_on_postgresql(postgres: str, migrations: None) -> None:  # noqa: F811
    try_migration(SAMPLED // 2)


@IN_PIECES
def test_interrupted_at_some_moments_on_mariadb(mariadb: str, migrations: None) -> None:  # noqa: F811
    try_migration(SAMPLED // 2)


@pytest.mark.attack
@pytest.mark.timeout(3600)
@IN_PIECES
def test_interrupted_at_every_moment(sqlite: str, migrations: None) -> None:  # noqa: F811
    try_migration(None)


@pytest.mark.attack
@pytest.mark.timeout(3600)
@IN_PIECES
def test_interrupted_at_many_moments_on_mariadb(mariadb: str, migrations: None) -> None:  # noqa: F811
    try_migration(20 * SAMPLED)


@pytest.mark.attack
@pytest.mark.timeout(3600)
@BOTH
def test_interrupted_at_many_moments_on_postgresql(postgres: str, migrations: None) -> None:  # noqa: F811
    try_migration(20 * SAMPLED)
