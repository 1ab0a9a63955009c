"""Another connection holds SQLite's write lock: a write waits once, as without us, and is recorded whole."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Base, Tag
from tests.instrumentation.sqlalchemy.told import told

tag: Any = Tag.__table__
WRITES: Final = ("INSERT", "UPDATE", "DELETE")


def update(session: Session) -> None:
    session.execute(sa.update(tag).where(tag.c.name == "one").values(name="two"))


def update_of_an_object(session: Session) -> None:
    session.get_one(Tag, 1).name = "two"
    session.flush()


def delete(session: Session) -> None:
    session.execute(sa.delete(tag).where(tag.c.name == "one"))


def delete_of_an_object(session: Session) -> None:
    session.delete(session.get_one(Tag, 1))
    session.flush()


def upsert(session: Session) -> None:
    statement = insert(tag).values(id=1, name="two")
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"name": "two"}))


def insert_or_nothing(session: Session) -> None:
    session.execute(insert(tag).values(id=2, name="two").on_conflict_do_nothing())


ONE_TO_TWO: Final = [("UPDATE", "Tag/1", "success", {"name": ("one", "two")})]
GONE: Final = [("DELETE", "Tag/1", "success", {"name": ("one", None)})]
MADE: Final = [("CREATE", "Tag/2", "success", {"name": "two"})]
JOBS: Final = {
    update: ONE_TO_TWO,
    update_of_an_object: ONE_TO_TWO,
    delete: GONE,
    delete_of_an_object: GONE,
    upsert: ONE_TO_TWO,
    insert_or_nothing: MADE,
}


class Locked:
    """Holds the write lock of a file until the second statement of a connection that wants to write."""

    def __init__(self, path: str) -> None:
        self._holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._holder.execute("BEGIN IMMEDIATE")
        self.tries = 0

    def watch(self, connection: Any) -> None:
        connection.set_trace_callback(self._seen)

    def _seen(self, sql: str) -> None:
        if sql.startswith(WRITES):
            self.tries += 1
            if self.tries == 2:
                self.end()

    def end(self) -> None:
        if self._holder.in_transaction:
            self._holder.execute("ROLLBACK")

    def close(self) -> None:
        self._holder.close()


@pytest.fixture
def driver() -> str:
    return "sqlite"


@pytest.fixture
def locked(url: sa.URL, make_engine: Callable[..., sa.Engine], audit: CapturedAudit) -> Iterator[Locked]:
    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Tag(id=1, name="one"))
        session.commit()
    engine.dispose()
    audit.clear()
    made = Locked(str(url.database))
    yield made
    made.close()


def twice(session: Session, job: Callable[[Session], None], locked: Locked) -> None:
    """Do a job while the lock is held, then once more."""
    with pytest.raises(OperationalError, match="database is locked"):
        job(session)
    session.rollback()
    assert locked.tries == 1
    locked.end()
    job(session)
    session.commit()


@pytest.mark.parametrize("job", JOBS)
def test_a_write_that_waits_in_vain_is_refused_at_once_and_whole_when_tried_again(
    url: sa.URL, make_engine: Callable[..., sa.Engine], audit: CapturedAudit, locked: Locked, job: Any
) -> None:
    engine = make_engine(connect_args={"timeout": 0})
    sa.event.listen(engine, "connect", lambda connection, record: locked.watch(connection))
    with Session(engine) as session:
        twice(session, job, locked)
    assert [row for row in told(audit) if row[2] == "success"] == JOBS[job]


@pytest.mark.parametrize("job", JOBS)
def test_so_it_is_with_aiosqlite(url: sa.URL, audit: CapturedAudit, locked: Locked, job: Any) -> None:
    async def work() -> None:
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": 0})
        sa.event.listen(
            engine.sync_engine,
            "connect",
            lambda connection, record: locked.watch(connection.driver_connection._conn),
        )
        async with AsyncSession(engine) as session:
            await session.run_sync(twice, job, locked)
        await engine.dispose()

    asyncio.run(work())
    assert [row for row in told(audit) if row[2] == "success"] == JOBS[job]
