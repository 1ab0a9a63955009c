"""A task is cancelled while the database works for it: what is on record is what is in the table."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Base, Tag
from tests.instrumentation.sqlalchemy.told import told
from tests.services import wait_until

tag: Any = Tag.__table__

Work: TypeAlias = Callable[[AsyncEngine], Awaitable[None]]

WAITS = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM pg_advisory_xact_lock(1);
  RETURN NULL;
{handler} END $$;
CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON tag DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.name LIKE 'slow%') EXECUTE FUNCTION wait();
"""
"""A COMMIT that waits for whoever holds the lock."""
GOES_ON = "EXCEPTION WHEN query_canceled THEN RETURN NULL;"
"""And does not care to be cancelled."""


# --- the work of a task ----------------------------------------------------------------------------------


async def insert_that_waits(engine: AsyncEngine) -> None:
    """The application's own statement waits: for the end of another one's row of the same key."""
    async with engine.begin() as connection:
        await connection.execute(tag.insert().values(name="taken"))


async def insert_that_waits_by_a_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Tag(name="before"))
        await session.flush()
        session.add(Tag(name="taken"))
        await session.commit()


async def insert_that_waits_as_text(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text("INSERT INTO tag (name) VALUES ('taken')"))


async def update_that_waits(engine: AsyncEngine) -> None:
    """What waits is perhaps our own statement, which reads the old values."""
    async with engine.begin() as connection:
        await connection.execute(tag.insert().values(name="before"))
        await connection.execute(tag.update().where(tag.c.name.startswith("first")).values(name="changed"))


async def savepoint_that_waits(engine: AsyncEngine) -> None:
    """The task goes on: what it does after it was cancelled does not commit what is gone."""
    async with engine.connect() as connection:
        await connection.execute(tag.insert().values(name="before"))
        with contextlib.suppress(asyncio.CancelledError, sa.exc.DBAPIError):
            async with connection.begin_nested():
                await connection.execute(tag.insert().values(name="taken"))
        try:
            await connection.execute(tag.insert().values(name="after"))
            await connection.commit()
        except (sa.exc.PendingRollbackError, sa.exc.InvalidRequestError):
            await connection.rollback()
        raise asyncio.CancelledError


async def autocommit_that_waits(engine: AsyncEngine) -> None:
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(tag.insert().values(name="before"))
        await connection.execute(tag.insert().values(name="taken"))


async def commit_that_waits(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(tag.insert().values(name="before"))
        await connection.execute(tag.insert().values(name="slow"))


async def commit_that_waits_by_a_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([Tag(name="before"), Tag(name="slow")])


STATEMENTS: list[Work] = [
    insert_that_waits,
    insert_that_waits_by_a_session,
    insert_that_waits_as_text,
    update_that_waits,
    savepoint_that_waits,
    autocommit_that_waits,
]
COMMITS: list[Work] = [commit_that_waits, commit_that_waits_by_a_session]


# --- how it is cancelled -----------------------------------------------------------------------------------


def by_cancel(task: asyncio.Task[None], limit: asyncio.Timeout) -> None:
    task.cancel()


def by_timeout(task: asyncio.Task[None], limit: asyncio.Timeout) -> None:
    limit.reschedule(0)


def by_cancelling_twice(task: asyncio.Task[None], limit: asyncio.Timeout) -> None:
    """As an impatient supervisor does: the second one comes while the driver cleans up."""
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, task.cancel)


Cancels: TypeAlias = Callable[[asyncio.Task[None], asyncio.Timeout], None]


async def cancelled(
    work: Awaitable[None],
    cancel: Cancels,
    waits: Callable[[], Awaitable[None]],
    let_go: Callable[[], object],
) -> None:
    """Cancel a task once it waits for the database; then let go of what it waited for."""

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await work

    limits: list[asyncio.Timeout] = []
    task = asyncio.create_task(limited())
    await waits()
    cancel(task, limits[0])
    await asyncio.sleep(0.05)
    let_go()
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await task


CANCELLED = pytest.mark.parametrize("cancel", [by_cancel, by_timeout, by_cancelling_twice])
CANCELLED_ONCE = pytest.mark.parametrize("cancel", [by_cancel, by_timeout])
"""Twice, aiosqlite and SQLAlchemy wait for ever for each other, with us or without."""
DRIVERS_OF_SERVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


# --- the databases -----------------------------------------------------------------------------------------


class Server:
    """PostgreSQL, asked by connections of the test's own, past SQLAlchemy and us."""

    def __init__(self, url: sa.URL) -> None:
        where = {**url.query, "user": url.username, "dbname": url.database}
        self.connection: Any = psycopg2.connect(**where)
        self.connection.autocommit = True
        self.other: Any = psycopg2.connect(**where)
        self._mine = f"{self.connection.info.backend_pid}, {self.other.info.backend_pid}"

    def run(self, statement: str, *, other: bool = False) -> list[Any]:
        with (self.other if other else self.connection).cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def names(self) -> set[str]:
        return {name for (name,) in self.run("SELECT name FROM tag")}

    def busy(self, what: str = "state <> 'idle'") -> bool:
        """Say whether the connections of the application do something: then nothing is decided yet."""
        others = (
            f"datname = current_database() AND backend_type = 'client backend' AND pid NOT IN ({self._mine})"
        )
        return bool(self.run(f"SELECT 1 FROM pg_stat_activity WHERE {others} AND {what}"))

    async def someone_waits(self) -> None:
        async with asyncio.timeout(30):
            while not self.busy("wait_event_type = 'Lock'"):  # noqa: ASYNC110 - the server says so to nobody
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.connection.close()
        self.other.close()


@asynccontextmanager
async def connected(url: sa.URL, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
def server(url: sa.URL) -> Iterator[Server]:
    """The server, with the tables and one row."""
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg2"))
    Base.metadata.create_all(engine)
    engine.dispose()
    server = Server(url)
    server.run("INSERT INTO tag (name) VALUES ('first')")
    yield server
    server.close()


def written(audit: CapturedAudit) -> dict[str, set[str]]:
    """Return the new names that records tell of, by outcome; text does not tell its values."""
    found: dict[str, set[str]] = {"success": set(), "failure": set(), "unknown": set()}
    for _, _, outcome, changes in told(audit):
        name = changes.get("name", "taken")
        found[outcome].add(name[1] if isinstance(name, tuple) else name)
    return found


def held_against(stored: set[str], audit: CapturedAudit, *, doubt: bool) -> None:
    """Require that what is stored is on record and what is not is not claimed; ``doubt`` may be left."""
    found = written(audit)
    new = stored - {"first"}
    assert found["success"] <= new, f"claimed: {found}, stored: {stored}"
    assert new <= found["success"] | found["unknown"], f"not recorded: {found}, stored: {stored}"
    assert not found["failure"] & new, f"denied: {found}, stored: {stored}"
    assert doubt or not found["unknown"], found


# --- PostgreSQL --------------------------------------------------------------------------------------------


@CANCELLED
@DRIVERS_OF_SERVERS
@pytest.mark.parametrize("work", STATEMENTS)
def test_a_statement_is_pending_on_a_server(
    url: sa.URL, audit: CapturedAudit, server: Server, work: Work, cancel: Cancels
) -> None:
    async def main() -> None:
        async with connected(url) as engine:
            server.run("INSERT INTO tag (name) VALUES ('taken')", other=True)
            server.run("UPDATE tag SET name = 'first' WHERE name = 'first'", other=True)
            await cancelled(work(engine), cancel, server.someone_waits, server.other.rollback)
            async with engine.begin() as connection:  # the pool is of use
                await connection.execute(tag.insert().values(name="next"))

    asyncio.run(main())
    wait_until(lambda: not server.busy(), 30, "the server is done")
    stored = server.names()
    assert stored >= {"first", "next"} | ({"before"} if work is autocommit_that_waits else set())
    held_against(stored, audit, doubt=work is autocommit_that_waits)
    assert "next" in written(audit)["success"]


@CANCELLED
@DRIVERS_OF_SERVERS
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("work", COMMITS)
def test_commit_is_pending_on_a_server(
    url: sa.URL, audit: CapturedAudit, server: Server, work: Work, cancel: Cancels, goes_on: bool
) -> None:
    """The answer never came: it may be that the server has committed all the same."""
    server.run(WAITS.format(handler=GOES_ON if goes_on else ""))

    async def main() -> None:
        async with connected(url) as engine:
            server.run("SELECT pg_advisory_lock(1)", other=True)
            await cancelled(work(engine), cancel, server.someone_waits, server.other.close)
            async with engine.begin() as connection:
                await connection.execute(tag.insert().values(name="next"))

    asyncio.run(main())
    wait_until(lambda: not server.busy(), 30, "the server is done")
    stored = server.names()
    if goes_on:
        assert {"before", "slow"} <= stored, "the server has heeded the cancellation"
    held_against(stored, audit, doubt=True)
    assert {"before", "slow"} <= set().union(*written(audit).values())


# --- SQLite: its thread works on, whoever is cancelled ------------------------------------------------------


@contextmanager
def file_of(url: sa.URL) -> Iterator[sqlite3.Connection]:
    """Connect to the file, in autocommit."""
    other = sqlite3.connect(str(url.database), isolation_level=None, timeout=10)
    try:
        yield other
    finally:
        other.close()


async def a_moment() -> None:
    """Long enough for a statement to wait for a lock of SQLite's: nobody can be asked."""
    await asyncio.sleep(0.2)


def sqlite_work(url: sa.URL, work: Work, cancel: Cancels, *locks: str) -> set[str]:
    """Run the work while another connection has locked the file; return what is stored in the end."""
    made = sa.create_engine(url)
    Base.metadata.create_all(made)
    made.dispose()
    threads = set(threading.enumerate())

    async def main() -> None:
        async with connected(url.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": 10}) as engine:
            with file_of(url) as other:
                for lock in locks:
                    other.execute(lock).fetchone()
                await cancelled(work(engine), cancel, a_moment, lambda: other.execute("ROLLBACK"))
            async with engine.begin() as connection:
                await connection.execute(tag.insert().values(name="next"))

    with file_of(url) as other:
        other.execute("INSERT INTO tag (name) VALUES ('first')")
    asyncio.run(main())
    wait_until(lambda: set(threading.enumerate()) <= threads, 30, "the threads of aiosqlite are done")
    with file_of(url) as other:
        return {name for (name,) in other.execute("SELECT name FROM tag")}


@CANCELLED_ONCE
@pytest.mark.parametrize("driver", ["sqlite"])
@pytest.mark.parametrize("work", STATEMENTS)
def test_a_statement_waits_for_the_write_lock(
    url: sa.URL, audit: CapturedAudit, work: Work, cancel: Cancels
) -> None:
    stored = sqlite_work(url, work, cancel, "BEGIN IMMEDIATE")
    assert stored >= {"first", "next"}
    held_against(stored, audit, doubt=work is autocommit_that_waits)


@CANCELLED_ONCE
@pytest.mark.parametrize("driver", ["sqlite"])
@pytest.mark.parametrize("work", COMMITS)
def test_commit_waits_for_a_reader(url: sa.URL, audit: CapturedAudit, work: Work, cancel: Cancels) -> None:
    """Without a WAL it does."""
    stored = sqlite_work(url, work, cancel, "BEGIN", "SELECT * FROM tag")
    held_against(stored, audit, doubt=True)
    assert {"before", "slow"} <= set().union(*written(audit).values())
