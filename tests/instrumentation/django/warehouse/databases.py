"""The warehouse on SQLite, PostgreSQL and MariaDB, and Django instrumented for it.

Tests elsewhere import the fixtures they need by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otel_audit.config.model import AuditConfig, DjangoConfig
from otel_audit.instrumentation.django import DjangoAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.django import project

assert project.__name__  # importing it sets Django up

MODELS = ["warehouse.*", "!warehouse.Ignored"]


@contextmanager
def default_database(settings: dict[str, Any]) -> Iterator[None]:
    """Make another database the ``default`` one."""
    from django.db import connections

    before = connections.settings["default"]
    connections["default"].close()
    del connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": dict(settings)})["default"]
    try:
        yield
    finally:
        connections["default"].close()
        del connections["default"]
        connections.settings["default"] = before


def create_tables() -> None:
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


def empty_tables() -> None:
    from django.apps import apps
    from django.db import connection

    tables = [
        connection.ops.quote_name(model._meta.db_table)
        for model in apps.get_app_config("warehouse").get_models(include_auto_created=True)
        if not model._meta.proxy
    ]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
            return
        with connection.constraint_checks_disabled():
            for table in tables:
                cursor.execute(f"DELETE FROM {table}")


def unseen(sql: str) -> None:
    """Run SQL as another process does: through the driver, where nobody sees it."""
    from django.db import connection

    connection.ensure_connection()
    cursor = connection.connection.cursor()
    cursor.execute(sql)
    cursor.close()


@pytest.fixture(scope="session")
def sqlite_warehouse(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path: Path = tmp_path_factory.mktemp("warehouse") / "warehouse.sqlite3"
    settings: dict[str, Any] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        # Processes are killed here, never the machine: what the disk has written does not matter.
        "OPTIONS": {"init_command": "PRAGMA synchronous=OFF"},
    }
    with default_database(settings):
        create_tables()
    return settings


@pytest.fixture(scope="session")
def postgresql_warehouse(postgresql_server: Any) -> dict[str, Any]:
    settings: dict[str, Any] = postgresql_server.django(postgresql_server.create_database())
    with default_database(settings):
        create_tables()
    return settings


@pytest.fixture(scope="session")
def mariadb_warehouse(mariadb_server: Any) -> dict[str, Any]:
    settings: dict[str, Any] = mariadb_server.django(mariadb_server.create_database())
    with default_database(settings):
        create_tables()
    return settings


def _use(settings: dict[str, Any]) -> Iterator[str]:
    from django.db import connection

    with default_database(settings):
        empty_tables()
        yield connection.vendor


@pytest.fixture
def sqlite(sqlite_warehouse: dict[str, Any]) -> Iterator[str]:
    yield from _use(sqlite_warehouse)


@pytest.fixture
def postgres(postgresql_warehouse: dict[str, Any]) -> Iterator[str]:
    yield from _use(postgresql_warehouse)


@pytest.fixture
def mariadb(mariadb_warehouse: dict[str, Any]) -> Iterator[str]:
    yield from _use(mariadb_warehouse)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def vendor(request: pytest.FixtureRequest) -> Iterator[str]:
    """The empty warehouse, on each database in turn."""
    yield from _use(request.getfixturevalue(f"{request.param}_warehouse"))


@contextmanager
def auditing(*, config: AuditConfig | None = None, **django: Any) -> Iterator[CapturedAudit]:
    """Instrument Django for the length of a ``with`` block, through the public face."""
    options: dict[str, Any] = {"models": MODELS, "auth_events": False} | django
    whole = msgspec.structs.replace(config or AuditConfig(), django=DjangoConfig(**options))
    with audited(DjangoAuditInstrumentor(), whole) as captured:
        yield captured


@pytest.fixture
def audit(vendor: str) -> Iterator[CapturedAudit]:
    """Everything recorded on each database in turn."""
    with auditing() as captured:
        yield captured
