"""SQLAlchemy audited, on every database and by every driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import close_all_sessions

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests import services
from tests.audited import audited
from tests.instrumentation.sqlalchemy.models import Base

DRIVERS = ("sqlite", "psycopg", "psycopg2", "mysqldb", "pymysql")


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """The driver a test runs with."""
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, driver: str, tmp_path: Path) -> Iterator[sa.URL]:
    """The address of a new, empty database."""
    if driver == "sqlite":
        yield sa.URL.create("sqlite", database=str(tmp_path / "test.sqlite3"))
    elif driver in ("psycopg", "psycopg2", "asyncpg"):
        postgresql: services.PostgreSQLServer = request.getfixturevalue("postgresql_server")
        with postgresql.database() as name:
            yield sa.URL.create(
                f"postgresql+{driver}",
                username=postgresql.user,
                database=name,
                query={"host": postgresql.host, "port": str(postgresql.port)},
            )
    else:
        mariadb: services.MariaDBServer = request.getfixturevalue("mariadb_server")
        with mariadb.database() as name:
            yield sa.URL.create(
                f"mysql+{driver}",
                username=mariadb.user,
                database=name,
                query={"unix_socket": mariadb.host, "charset": "utf8mb4"},
            )


@pytest.fixture
def make_engine(url: sa.URL) -> Iterator[Callable[..., sa.Engine]]:
    """Make engines on the database, which are disposed of afterwards."""
    engines: list[sa.Engine] = []

    def make(**options: Any) -> sa.Engine:
        engine = sa.create_engine(url, **options)
        engines.append(engine)
        return engine

    yield make
    close_all_sessions()
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """An engine whose database has the tables of the models."""
    engine = make_engine()
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def config() -> AuditConfig:
    """Everything is audited."""
    return AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*", "!unaudited"]))


@pytest.fixture
def audit(config: AuditConfig) -> Iterator[CapturedAudit]:
    """The records of a test."""
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield captured
