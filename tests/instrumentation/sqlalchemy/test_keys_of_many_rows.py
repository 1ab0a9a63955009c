"""``keys``: what is recorded of many rows that one statement inserts without the keys the database makes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told

Keys = Literal["auto", "always", "never"]
FEW, MANY = 100, 101
TOGETHER = ("psycopg2", "mysqldb", "pymysql")


class RopeBase(DeclarativeBase):
    pass


class Hawser(RopeBase):
    __tablename__ = "hawser"

    id: Mapped[int] = mapped_column(primary_key=True)
    length: Mapped[int]


@pytest.fixture(params=get_args(Keys))
def keys(request: pytest.FixtureRequest) -> Keys:
    """What ``keys`` is set to."""
    chosen: Keys = request.param
    return chosen


def audit_config(keys: Keys) -> AuditConfig:
    return AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.Hawser"], keys=keys))


@pytest.fixture
def audit(keys: Keys) -> Iterator[CapturedAudit]:
    with audited(SQLAlchemyAuditInstrumentor(), audit_config(keys)) as captured:
        yield captured


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    RopeBase.metadata.create_all(engine)
    return engine


def stored(engine: sa.Engine) -> list[Any]:
    """Return what records must say of the rows that the table has."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(Hawser.id, Hawser.length).order_by(Hawser.id)).all()
    return [("CREATE", f"Hawser/{key}", "success", {"length": length}) for key, length in rows]


@pytest.mark.parametrize("count", [FEW, MANY])
def test_keys_are_recorded_where_they_were_asked_for_and_the_number_of_rows_elsewhere(
    engine: sa.Engine, audit: CapturedAudit, keys: Keys, driver: str, count: int
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(Hawser), [{"length": 3 * number} for number in range(count)])
    (record,) = audit
    assert record.bulk is not None
    assert record.bulk.count == count
    if keys == "always" or (keys == "auto" and (count == FEW or driver in TOGETHER)):
        assert record.completeness == "full"
        assert sorted(told(audit), key=lambda row: int(row[1].partition("/")[2])) == stored(engine)
    else:
        assert told(audit) == [("CREATE", f"Hawser*{count}", "success", {})]
        assert record.bulk.keys == []
    assert len(stored(engine)) == count


def test_one_row_keys_of_the_application_and_its_own_returning_are_recorded_whatever_is_set(
    engine: sa.Engine, audit: CapturedAudit, keys: Keys
) -> None:
    with engine.begin() as connection:
        given = [{"id": 1000 + number, "length": number} for number in range(MANY)]
        connection.execute(sa.insert(Hawser), given)
        connection.execute(sa.insert(Hawser), [{"length": 5}])
        connection.execute(
            sa.insert(Hawser).returning(Hawser.id, Hawser.length), [{"length": 6}, {"length": 7}]
        )
    with Session(engine) as session:
        session.add_all([Hawser(length=8), Hawser(length=9)])
        session.commit()
    assert sorted(told(audit), key=lambda row: int(row[1].partition("/")[2])) == stored(engine)


@pytest.mark.parametrize("count", [7, MANY])
def test_the_application_has_the_result_it_has_without_us(
    engine: sa.Engine, audit: CapturedAudit, count: int
) -> None:
    rows = [{"length": number} for number in range(count)]

    def answers() -> list[Any]:
        with engine.begin() as connection:
            result = connection.execute(sa.insert(Hawser), rows)
            found: list[Any] = [result.returns_rows, result.is_insert, result.rowcount, result.closed]
            with pytest.raises(ResourceClosedError) as raised:
                result.all()
        with Session(engine) as session:
            core = session.connection().execute(sa.insert(RopeBase.metadata.tables["hawser"]), rows)
            orm = session.execute(sa.insert(Hawser), rows)
            found += [core.rowcount, type(orm)]
            counting = {"preserve_rowcount": True}
            found += [
                session.connection().execute(sa.insert(Hawser), rows, execution_options=counting).rowcount
            ]
            session.commit()
        return [*found, str(raised.value)]

    watched = answers()
    assert len(audit.records) == 4
    with suspended():
        engine.clear_compiled_cache()
        assert watched == answers()
    assert len(audit.records) == 4


@pytest.mark.parametrize("driver", ["asyncpg", "sqlite"], indirect=True)
@pytest.mark.parametrize("count", [7, MANY])
def test_so_has_an_asynchronous_application(
    url: sa.URL, audit: CapturedAudit, driver: str, count: int
) -> None:
    rows = [{"length": number} for number in range(count)]
    url = url.set(drivername="sqlite+aiosqlite") if driver == "sqlite" else url

    async def answers() -> list[Any]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(RopeBase.metadata.create_all)
            found: list[Any] = []
            for options in ({}, {"preserve_rowcount": True}):
                result = await connection.execute(sa.insert(Hawser), rows, execution_options=options)
                found += [result.returns_rows, result.is_insert, result.rowcount, result.closed]
        await engine.dispose()
        return found

    watched = asyncio.run(answers())
    assert len(audit.records) == 2
    with suspended():
        assert watched == asyncio.run(answers())
    assert len(audit.records) == 2


@contextmanager
def suspended() -> Iterator[None]:
    """Take our wrappers off for a while."""
    instrumentor = SQLAlchemyAuditInstrumentor()
    config = audit_config("auto")
    instrumentor.uninstrument()
    try:
        yield
    finally:
        instrumentor.instrument(config=config)
