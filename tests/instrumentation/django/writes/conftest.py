"""The warehouse's databases for the tests here."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.instrumentation.django.writes.truth")

from tests.instrumentation.django.warehouse.databases import (  # noqa: E402
    audit,
    mariadb,
    mariadb_warehouse,
    postgres,
    postgresql_warehouse,
    sqlite,
    sqlite_warehouse,
    vendor,
)

__all__ = [
    "audit",
    "mariadb",
    "mariadb_warehouse",
    "postgres",
    "postgresql_warehouse",
    "sqlite",
    "sqlite_warehouse",
    "vendor",
]
