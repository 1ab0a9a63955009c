"""Cursors of the driver, reached through SQLAlchemy: what they write is on record as text is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Base, Tag
from tests.instrumentation.sqlalchemy.test_text import said

tag: Any = Tag.__table__


def mark(engine: sa.Engine) -> str:
    return "?" if engine.dialect.name == "sqlite" else "%s"


def test_a_cursor_of_an_open_connection(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.connect() as connection:
        for end in ("commit", "rollback"):
            transaction = connection.begin()
            cursor = connection.connection.cursor()
            cursor.execute(f"INSERT INTO tag (name) VALUES ({mark(engine)})", (end,))
            cursor.executemany(
                f"UPDATE tag SET name = {mark(engine)} WHERE name = {mark(engine)}",
                [(f"{end}!", end), (end, f"{end}!")],
            )
            cursor.execute("SELECT name FROM tag")
            assert (end,) in [tuple(row) for row in cursor.fetchall()]
            cursor.close()
            getattr(transaction, end)()
    assert said(audit) == [
        ("tag.create", "statement", "success", 1),
        ("tag.update", "statement", "success", 2),
        ("tag.create", "statement", "failure", 1),
        ("tag.update", "statement", "failure", 2),
    ]
    audit.assert_no_secrets("rollback")


def test_a_raw_connection(engine: sa.Engine, audit: CapturedAudit) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    for end in ("commit", "rollback", "close"):
        cursor.execute("INSERT INTO tag (name) VALUES ('" + end + "')")
        if end == "close":
            cursor.close()
        getattr(raw, end)()
    assert [outcome for _, _, outcome, _ in said(audit)] == ["success", "failure", "failure"]
    with engine.connect() as connection:
        assert connection.scalars(sa.select(tag.c.name)).all() == ["commit"]


def test_a_statement_the_driver_refuses(engine: sa.Engine, audit: CapturedAudit) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    with pytest.raises(Exception, match=r"nothing"):
        cursor.execute("INSERT INTO tag (nothing) VALUES (1)")
    raw.commit() if engine.dialect.name != "postgresql" else raw.rollback()
    raw.close()
    assert [outcome for _, _, outcome, _ in said(audit)] == ["failure"]


def test_transactions_by_text(make_engine: Callable[..., sa.Engine], audit: CapturedAudit) -> None:
    engine = make_engine()
    Base.metadata.create_all(engine)
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("INSERT INTO tag (name) VALUES ('a')")
    cursor.execute("COMMIT")
    assert [outcome for _, _, outcome, _ in said(audit)] == ["success"]
    raw.close()


def test_compositions_and_what_nobody_can_see(
    engine: sa.Engine, audit: CapturedAudit, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    if driver != "psycopg":
        return
    from psycopg import sql

    with engine.begin() as connection:
        taken: Any = connection.connection
        with taken.cursor() as cursor:
            cursor.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("tag")))
            cursor.execute(sql.SQL("INSERT INTO {} (name) VALUES ('a')").format(sql.Identifier("tag")))
            with cursor.copy("COPY tag (name) FROM STDIN") as copy:
                copy.write_row(("b",))
        assert connection.scalar(sa.select(sa.func.count()).select_from(tag)) == 2
    assert said(audit) == [("tag.create", "statement", "success", 1)]
    assert "create of tag by copy() of the driver's cursor; 1 change(s) are not recorded" in caplog.text


def test_the_cursor_is_one_of_the_drivers(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.connect() as connection:
        cursor: Any = connection.connection.cursor()
        taken: Any = connection.connection.dbapi_connection
        plain = taken.cursor()
        assert isinstance(cursor, type(plain))
        cursor.execute("SELECT 1")
        assert [tuple(row) for row in cursor] == [(1,)]
        assert not hasattr(cursor, "executescript") or engine.dialect.name == "sqlite"


def test_what_is_taken_back(engine: sa.Engine) -> None:
    from sqlalchemy.pool.base import _ConnectionFairy

    before = dict(vars(_ConnectionFairy))
    SQLAlchemyAuditInstrumentor().instrument()
    SQLAlchemyAuditInstrumentor().uninstrument()
    assert dict(vars(_ConnectionFairy)) == before


def test_who_takes_the_drivers_own_connection_is_counted(
    engine: sa.Engine, audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can see what is written by it."""
    with engine.connect() as connection:
        connection.execute(sa.select(tag.c.name))
        assert "driver connection" not in caplog.text
        taken: Any = connection.connection.driver_connection
        taken.cursor().execute("INSERT INTO tag (name) VALUES ('a')")
        taken.commit()
    assert said(audit) == []
    [line] = [line for line in caplog.records if "driver connection" in line.getMessage()]
    assert f"{__file__}:" in line.getMessage()
    assert "what it writes there is not recorded" in line.getMessage()
    assert line.levelname == "WARNING", "who listens, or registers a type, writes nothing"
    raw = engine.raw_connection()
    assert raw.driver_connection is not None
    raw.close()
    assert audit.pipeline.health.capture_failures["driver connection"] == 2


def test_taken_of_an_asynchronous_connection_it_is_counted_as_well(
    url: sa.URL, audit: CapturedAudit, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    if driver != "psycopg":
        return

    async def take() -> None:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            taken: Any = await connection.get_raw_connection()
            await taken.driver_connection.execute("SELECT 1")
        await engine.dispose()

    asyncio.run(take())
    assert "takes the driver's own connection" in caplog.text
