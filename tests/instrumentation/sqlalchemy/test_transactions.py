"""A record says what became of its transaction, however that was begun and ended."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Reader
from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Base, Shipment, Tag
from tests.instrumentation.sqlalchemy.told import told

shipment: Any = Shipment.__table__
tag: Any = Tag.__table__


def outcomes(audit: CapturedAudit) -> list[tuple[Any, str]]:
    """Return (number, outcome) of each record, in the order they were kept."""
    return [(row[3].get("number", row[3].get("name")), row[2]) for row in told(audit)]


def test_a_commit_and_a_rollback(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.connect() as connection:
        connection.execute(shipment.insert().values(number="kept"))
        assert told(audit) == []
        connection.commit()
        connection.execute(shipment.insert().values(number="undone"))
        connection.rollback()
    with pytest.raises(LookupError), engine.begin() as connection:
        connection.execute(shipment.insert().values(number="raised"))
        raise LookupError
    assert outcomes(audit) == [("kept", "success"), ("undone", "failure"), ("raised", "failure")]
    assert audit.records[-1].error == "LookupError"


def test_nested_savepoints(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(tag.insert().values(name="begins"))  # pysqlite begins late
        connection.execute(shipment.insert().values(number="outer"))
        outer = connection.begin_nested()
        connection.execute(shipment.insert().values(number="first"))
        inner = connection.begin_nested()
        connection.execute(shipment.insert().values(number="second"))
        inner.commit()
        outer.rollback()
        with connection.begin_nested():
            connection.execute(shipment.insert().values(number="third"))
    found = [each for each in outcomes(audit) if each[0] != "begins"]
    assert found == [("first", "failure"), ("second", "failure"), ("outer", "success"), ("third", "success")]


@pytest.mark.parametrize("bulk", [False, True])
def test_what_a_savepoint_took_back_is_no_old_value(
    engine: sa.Engine, audit: CapturedAudit, bulk: bool
) -> None:
    """SQLAlchemy leaves it in the object, if another savepoint was open inside the one rolled back to."""
    with Session(engine) as session:
        session.add_all([Tag(id=1, name="stored"), Tag(id=2, name="too")])
        session.commit()
        session.add(Tag(id=3, name="begins"))  # pysqlite begins late
        session.flush()
        one, two = session.get_one(Tag, 1), session.get_one(Tag, 2)
        outer = session.begin_nested()
        session.begin_nested()
        one.name, two.name = "taken back", "taken back, too"
        session.flush()
        outer.rollback()
        one.name = "new"
        if bulk:
            two.name = "new, too"
        session.commit()
    changes = {
        target: row for verb, target, outcome, row in told(audit) if (verb, outcome) == ("UPDATE", "success")
    }
    assert changes == {
        "Tag/1": {"name": ("stored", "new")},
        **({"Tag/2": {"name": ("too", "new, too")}} if bulk else {}),
    }


def test_two_phases(engine: sa.Engine, audit: CapturedAudit, driver: str) -> None:
    if driver == "sqlite":
        with pytest.raises(NotImplementedError):
            engine.connect().begin_twophase()
        return
    with engine.connect() as connection:
        for number, ends in (("kept", "commit"), ("undone", "rollback")):
            transaction = connection.begin_twophase()
            connection.execute(shipment.insert().values(number=number))
            transaction.prepare()
            getattr(transaction, ends)()
    assert outcomes(audit) == [("kept", "success"), ("undone", "failure")]


def test_a_statement_that_fails(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Tag(name="red"))
        session.commit()
        session.add(Tag(name="red"))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
    assert outcomes(audit) == [("red", "success"), ("red", "failure")]
    assert audit.records[-1].error.endswith(("IntegrityError", "UniqueViolation"))


def test_autocommit(make_engine: Callable[..., sa.Engine], audit: CapturedAudit) -> None:
    engine = make_engine(isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="kept"))
        assert outcomes(audit) == [("kept", "success")]
        connection.execute(tag.update().where(tag.c.name == "kept").values(name="changed"))
        with pytest.raises(IntegrityError):
            connection.execute(tag.insert().values(name="changed"))
        connection.rollback()  # means nothing
    assert [(row[0], row[2], row[3]) for row in told(audit)] == [
        ("CREATE", "success", {"name": "kept"}),
        ("UPDATE", "success", {"name": ("kept", "changed")}),
        ("CREATE", "failure", {"name": "changed"}),
    ]


def commits_alone(connection: Any) -> None:
    """Set a connection of a driver's to autocommit, past SQLAlchemy."""
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None
    elif callable(getattr(connection, "autocommit", None)):
        connection.autocommit(True)
    else:
        connection.autocommit = True


@pytest.mark.parametrize("when", ["connect", "checkout", "later"])
def test_autocommit_of_the_driver(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, when: str
) -> None:
    """SQLAlchemy knows nothing of it, and rolls back in vain."""
    engine = make_engine()
    Base.metadata.create_all(engine)
    engine.dispose()
    if when != "later":
        event.listen(engine, when, lambda connection, *rest: commits_alone(connection))
    with engine.connect() as connection:
        if when == "later":
            commits_alone(connection.connection.dbapi_connection)
        connection.execute(tag.insert().values(name="kept"))
        assert outcomes(audit) == [("kept", "success")]
        connection.rollback()
        connection.execute(tag.update().where(tag.c.name == "kept").values(name="changed"))
        connection.rollback()
        connection.execute(sa.text("INSERT INTO tag (name) VALUES ('as text')"))
        connection.rollback()
        with pytest.raises(IntegrityError):
            connection.execute(tag.insert().values(name="changed"))
        connection.rollback()
    with pytest.raises(LookupError), Session(engine) as session, session.begin():
        if when == "later":
            commits_alone(session.connection().connection.dbapi_connection)
        session.add(Tag(name="flushed"))
        session.flush()
        raise LookupError
    assert [(row[0], row[2], row[3]) for row in told(audit)] == [
        ("CREATE", "success", {"name": "kept"}),
        ("UPDATE", "success", {"name": ("kept", "changed")}),
        ("CREATE", "success", {}),
        ("CREATE", "failure", {"name": "changed"}),
        ("CREATE", "success", {"name": "flushed"}),
    ]
    with engine.connect() as connection:
        assert set(connection.scalars(sa.select(tag.c.name))) == {"changed", "as text", "flushed"}


def test_autocommit_by_arguments_of_the_driver(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, driver: str
) -> None:
    if driver not in ("psycopg", "pymysql", "mysqldb"):
        return
    engine = make_engine(connect_args={"autocommit": True})
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="kept"))
        connection.rollback()
        stored = connection.scalars(sa.select(tag.c.name)).all()
    assert (stored, outcomes(audit)) == (["kept"], [("kept", "success")])


@pytest.mark.parametrize("driver", ["sqlite", "psycopg"])
def test_autocommit_of_an_asynchronous_driver(url: sa.URL, audit: CapturedAudit, driver: str) -> None:
    async def main() -> list[str]:
        if driver == "sqlite":
            made = url.set(drivername="sqlite+aiosqlite")
            engine = create_async_engine(made, connect_args={"isolation_level": None})
        else:
            engine = create_async_engine(url, connect_args={"autocommit": True})
        async with engine.connect() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(tag.insert().values(name="kept"))
            await connection.rollback()
            stored = list(await connection.scalars(sa.select(tag.c.name)))
        await engine.dispose()
        return stored

    assert asyncio.run(main()) == ["kept"]
    assert outcomes(audit) == [("kept", "success")]


def test_sqlites_own_begin_under_autocommit(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, driver: str
) -> None:
    """As SQLAlchemy's documentation has it: the driver begins nothing, a listener does."""
    if driver != "sqlite":
        return
    engine = make_engine(isolation_level="AUTOCOMMIT")
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="undone"))
        connection.rollback()
        connection.execute(tag.insert().values(name="kept"))
        connection.commit()
    assert outcomes(audit) == [("undone", "failure"), ("kept", "success")]


def test_a_commit_that_sqlite_refuses(engine: sa.Engine, audit: CapturedAudit, driver: str) -> None:
    """The transaction stays open behind the pool's back: whoever has the connection next ends it."""
    if driver != "sqlite":
        return
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE late (id INTEGER PRIMARY KEY, tag_id INTEGER "
            "REFERENCES tag (id) DEFERRABLE INITIALLY DEFERRED)"
        )
    late = sa.Table("late", sa.MetaData(), autoload_with=engine)
    with Session(engine) as session:
        session.connection().exec_driver_sql("PRAGMA foreign_keys = ON")
        session.add(Tag(name="with it"))
        session.flush()
        session.execute(late.insert().values(id=1, tag_id=99))
        with pytest.raises(IntegrityError):
            session.commit()
    with engine.connect() as connection:
        stored = connection.execute(sa.select(sa.func.count()).select_from(tag)).scalar()
        connection.rollback()
    assert stored == 1, "SQLAlchemy's pool has rolled back: this test is out of date"
    assert {row[2] for row in told(audit)} == {"failure"}


def test_a_commit_that_the_database_refuses(engine: sa.Engine, audit: CapturedAudit, driver: str) -> None:
    if not driver.startswith("psycopg"):
        return
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE late (id int PRIMARY KEY, tag_id int REFERENCES tag DEFERRABLE INITIALLY DEFERRED)"
        )
    late = sa.Table("late", sa.MetaData(), autoload_with=engine)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(late.insert().values(id=1, tag_id=99))
    (record,) = audit
    assert (record.outcome, record.error) == ("failure", "IntegrityError")


def test_going_on_after_an_error_commits_nothing(
    engine: sa.Engine, audit: CapturedAudit, driver: str
) -> None:
    if not driver.startswith("psycopg"):
        return
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="lost"))
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT 1 / 0")
        connection.commit()  # PostgreSQL answers ROLLBACK
    assert outcomes(audit) == [("lost", "failure")]


def test_a_session_nobody_ends(engine: sa.Engine, audit: CapturedAudit) -> None:
    session = Session(engine)
    session.add(Tag(name="forgotten"))
    session.flush()
    del session
    gc.collect()
    with engine.begin() as connection:
        connection.execute(tag.insert().values(name="next"))
    assert outcomes(audit) == [("forgotten", "failure"), ("next", "success")]


def test_a_connection_that_is_lost(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="lost"))
        connection.invalidate()
        connection.rollback()
    assert outcomes(audit) == [("lost", "failure")]


def test_a_session_on_a_connection_that_is_rolled_back(engine: sa.Engine, audit: CapturedAudit) -> None:
    """As tests of applications do: its commits are savepoints."""
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.add(Tag(name="of a test"))
            session.commit()
        transaction.rollback()
    with engine.connect() as connection:
        kept = connection.scalars(sa.select(tag.c.name)).all()
    # SQLite's driver has begun nothing before the savepoint, so that its release commits.
    assert kept == (["of a test"] if engine.dialect.name == "sqlite" else [])
    assert outcomes(audit) == [("of a test", "success" if kept else "failure")]


def test_what_listeners_write_while_a_transaction_commits(engine: sa.Engine, audit: CapturedAudit) -> None:
    def last_words(connection: sa.Connection) -> None:
        if not connection.info.pop("said", False):
            connection.info["said"] = True
            connection.execute(tag.insert().values(name="last"))

    event.listen(engine, "commit", last_words)
    with engine.begin() as connection:
        connection.execute(tag.insert().values(name="first"))
    assert outcomes(audit) == [("first", "success"), ("last", "success")]


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_pools(make_engine: Callable[..., sa.Engine], audit: CapturedAudit, pool: type[sa.Pool]) -> None:
    engine = make_engine(poolclass=pool)
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with sessions.begin() as session:
        session.add(Tag(name="kept"))
    with sessions() as session:
        session.add(Tag(name="undone"))
        session.flush()
    assert outcomes(audit) == [("kept", "success"), ("undone", "failure")]


def test_a_pool_that_commits_what_is_left(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    engine = make_engine(pool_reset_on_return="commit")
    Base.metadata.create_all(engine)
    connection = engine.connect()
    connection.execute(tag.insert().values(name="left"))
    del connection
    gc.collect()
    with engine.connect() as again:
        stored = again.execute(sa.select(sa.func.count()).select_from(tag)).scalar()
    assert outcomes(audit) == [("left", "success" if stored else "failure")]


def test_engines_made_by_a_function(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, driver: str, tmp_path: Any
) -> None:
    if driver != "sqlite":
        return
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(tmp_path / "made.sqlite3"))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(tag.insert().values(name="kept"))
    assert outcomes(audit) == [("kept", "success")]
    engine.dispose()


def test_an_engine_whose_first_connection_fails_says_why(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    engine = make_engine()
    with (
        patch.object(
            engine.dialect,
            "initialize",
            lambda connection: connection.execute(sa.text("select nothing.there")),
        ),
        pytest.raises(DBAPIError),
    ):
        engine.connect()
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(tag.insert().values(name="kept"))
    assert outcomes(audit) == [("kept", "success")]


def test_uninstrument_leaves_no_trace() -> None:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper

    before = dict(vars(Connection))
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"]))

    def listened_to() -> bool:
        engine = sa.create_engine("sqlite://")
        return bool(list(engine.dialect.dispatch.handle_error) or list(engine.pool.dispatch.reset))

    for cleared in (False, True):
        SQLAlchemyAuditInstrumentor().instrument(config=config)
        assert vars(Connection)["_commit_impl"] is not before["_commit_impl"]
        assert listened_to()
        if cleared:
            Mapper.dispatch._clear()  # type: ignore[misc, call-arg]
        SQLAlchemyAuditInstrumentor().uninstrument()
        assert dict(vars(Connection)) == before
        assert not listened_to()


def test_statements_of_others_take_no_way_of_events(engine: sa.Engine, audit: CapturedAudit) -> None:
    # One listener to engines would have every statement of every engine go that way.
    assert not engine._has_events
    with engine.begin() as connection:
        assert not connection._has_events
        connection.execute(tag.insert().values(name="written"))
    assert outcomes(audit) == [("written", "success")]


def test_nobody_hears_of_a_statement_of_ours_that_the_database_refuses(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(tag.insert(), [{"name": "one"}, {"name": "two"}])
    refused = sa.text("nothing.there = 1")
    monkeypatch.setattr(Reader, "_locking", lambda self, statement, *rest: statement.where(refused))
    heard: list[object] = []
    event.listen(engine, "handle_error", heard.append)
    with engine.begin() as connection:
        connection.execute(tag.update().where(tag.c.name.startswith("t")).values(name="changed"))
    assert not heard
    record = audit.records[-1]
    assert record.bulk is not None
    assert (record.action, record.outcome, record.completeness) == ("UPDATE", "success", "count")
