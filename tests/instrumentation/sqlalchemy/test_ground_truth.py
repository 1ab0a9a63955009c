"""Every row that was written is on record, every record is true: told by the database's own triggers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, SpoolConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests import services
from tests.attack.effort import counted, effort
from tests.audited import audited
from tests.instrumentation.sqlalchemy import truth
from tests.instrumentation.sqlalchemy.workload import OPERATIONS, Work, fill
from tests.instrumentation.sqlalchemy.zoo import Base

pytestmark = pytest.mark.timeout(600)

READY = list(OPERATIONS)
FRESH = [name for name in READY if name != "stale_objects"]
"""Without what an object may have loaded before another session wrote its row: then ``as_loaded`` differs."""


def captured(**settings: Any) -> AbstractContextManager[CapturedAudit]:
    config = AuditConfig(
        sqlalchemy=SQLAlchemyConfig(models=["*", f"!{truth.LOG}"], **settings),
        spool=SpoolConfig(max_bytes=8 * 1024**3),
        record_tests=True,
    )
    return audited(SQLAlchemyAuditInstrumentor(), config)


@contextmanager
def prepared(url: str, marks: truth.Marks, **options: Any) -> Iterator[Engine]:
    """Make the tables, the triggers and the first rows of a new database."""
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        with_real_transactions(engine)
    marks.watch(engine)
    try:
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
        with Session(engine) as session:
            fill(session)
        with engine.begin() as connection:
            truth.install(connection)
        yield engine
    finally:
        engine.dispose()


def with_real_transactions(engine: Engine) -> None:
    """Begin them as SQLAlchemy's documentation recommends: pysqlite begins them too late for savepoints."""

    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))


def judged(works: Sequence[Work], engine: Engine, records: Sequence[AuditRecord]) -> truth.Verdict:
    """Hold the trail against the truth, mark by mark."""
    with engine.connect() as connection:
        happened = truth.truth(connection)
    assert {record.outcome for record in records} <= {"success", "failure"}
    claimed, lesser = truth.trail(records)
    verdict = truth.Verdict(cascades_fire=engine.dialect.name not in ("mysql", "mariadb"))
    did = {mark: operation for work in works for mark, operation in work.did.items()}
    for mark in sorted({*happened, *claimed, *lesser}):
        name = did[mark].name if mark in did else f"nobody's ({mark!r})"
        verdict.compare(
            f"{name} [{mark}]", happened.get(mark, []), claimed.get(mark, []), lesser.get(mark, [])
        )
    return verdict


def check(works: Sequence[Work], engine: Engine, records: Sequence[AuditRecord], *, what: str) -> None:
    """Require that nothing is wrong, missing or less than it should be; count what was tried."""
    verdict = judged(works, engine, records)
    wrong = "\n".join(verdict.wrong[:20])
    assert not verdict.wrong, f"{len(verdict.wrong)} of {verdict.rows} rows wrong:\n{wrong}"
    for (name, level), rows in verdict.lesser.items():
        operation = OPERATIONS.get(name.split(" [")[0])
        assert operation is not None, (name, level)
        assert level == operation.level or (level == "count" and operation.counted), (name, level, rows)
    for (name, column), times in verdict.unknown.items():
        operation = OPERATIONS.get(name.split(" [")[0])
        assert operation is not None, (name, column)
        assert column.rpartition(".")[2] in operation.unknown, (name, column, times)
    counted(f"{what}: operations", sum(work.ran.total() for work in works))
    counted(f"{what}: transactions tried again", sum(work.retried for work in works))
    counted(f"{what}: rows compared", verdict.rows)
    counted(f"{what}: values compared", verdict.values)
    for (name, level), rows in verdict.lesser.items():
        counted(f"{what}: rows of {name.split(' [')[0]} told as {level}", rows)
    assert verdict.rows > 0


def seeds(rounds: int) -> Iterator[str]:
    """Name each round: the same few always, other ones in an attack."""
    given = os.environ.get("ATTACK_SEED", "")
    first = given or (str(random.SystemRandom().randrange(10**6)) if rounds > 10 else "0")
    yield from (f"{first}.{number}" for number in range(rounds))


TRANSACTIONS = 25


def run(engine: Engine, work: Work) -> None:
    for _ in range(TRANSACTIONS):
        if work.chance(0.2):
            work.alone(engine)
        else:
            work.transaction(Session(engine, expire_on_commit=work.chance()))


def sqlite_url(tmp_path: Path, driver: str) -> str:
    return f"sqlite+{driver}:///{tmp_path / 'zoo.sqlite3'}"


def postgresql_url(server: services.PostgreSQLServer, name: str, driver: str) -> str:
    return f"postgresql+{driver}://{server.user}@/{name}?host={server.host}&port={server.port}"


def mariadb_url(server: services.MariaDBServer, name: str, driver: str) -> str:
    return f"mysql+{driver}://{server.user}@/{name}?unix_socket={server.host}&charset=utf8mb4"


@effort(2, 60)
@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_one_session_after_another_on_postgresql(
    postgresql_server: services.PostgreSQLServer, driver: str, old_values: str, rounds: int
) -> None:
    for seed in seeds(rounds):
        with postgresql_server.database() as name:
            marks = truth.Marks()
            with prepared(postgresql_url(postgresql_server, name, driver), marks) as engine:
                work = Work(seed, marks, only=READY if old_values == "exact" else FRESH)
                with captured(old_values=old_values, keys="always") as audit:
                    run(engine, work)
                    records = audit.records
                check([work], engine, records, what=f"{driver}, {old_values}")


@effort(2, 60)
@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
def test_one_session_after_another_on_sqlite(tmp_path: Path, old_values: str, rounds: int) -> None:
    for seed in seeds(rounds):
        marks = truth.Marks()
        (tmp_path / seed).mkdir()
        with prepared(sqlite_url(tmp_path / seed, "pysqlite"), marks) as engine:
            work = Work(seed, marks, only=READY if old_values == "exact" else FRESH)
            with captured(old_values=old_values, keys="always") as audit:
                run(engine, work)
                records = audit.records
            check([work], engine, records, what=f"sqlite, {old_values}")


@effort(1, 30)
@pytest.mark.parametrize("driver", ["pymysql", "mysqldb"])
def test_one_session_after_another_on_mariadb(
    mariadb_server: services.MariaDBServer, driver: str, rounds: int
) -> None:
    for seed in seeds(rounds):
        with mariadb_server.database() as name:
            marks = truth.Marks()
            with prepared(mariadb_url(mariadb_server, name, driver), marks) as engine:
                work = Work(seed, marks, only=READY)
                with captured(old_values="exact", keys="always") as audit:
                    run(engine, work)
                    records = audit.records
                check([work], engine, records, what=driver)


async def interleaved(url: str, works: Sequence[Work], **options: Any) -> None:
    """Let tasks take turns on one loop, at every await, each in sessions of its own."""
    engine = create_async_engine(url, **options)
    if engine.dialect.name == "sqlite":
        with_real_transactions(engine.sync_engine)
        works[0].marks.watch(engine.sync_engine)

    async def task(work: Work) -> None:
        for _ in range(TRANSACTIONS):
            async with AsyncSession(engine, expire_on_commit=work.chance()) as session:
                await session.run_sync(work.transaction)

    try:
        await asyncio.gather(*map(task, works))
    finally:
        await engine.dispose()


@effort(2, 60)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("tasks", [2, 3])
def test_tasks_that_take_turns_on_one_loop(
    postgresql_server: services.PostgreSQLServer, driver: str, tasks: int, rounds: int
) -> None:
    for seed in seeds(rounds):
        with postgresql_server.database() as name:
            postgresql_server.execute(
                f"ALTER DATABASE {name} SET lock_timeout = '500ms'",
                f"ALTER DATABASE {name} SET deadlock_timeout = '50ms'",
            )
            marks = truth.Marks()
            with prepared(postgresql_url(postgresql_server, name, "psycopg"), marks) as engine:
                works = [Work(f"{seed}{chr(97 + number)}", marks, only=READY) for number in range(tasks)]
                with captured(old_values="exact", keys="always") as audit:
                    asyncio.run(interleaved(postgresql_url(postgresql_server, name, driver), works))
                    records = audit.records
                check(works, engine, records, what=f"{tasks} tasks, {driver}")


@effort(1, 60)
@pytest.mark.parametrize("tasks", [1, 2])
def test_tasks_that_take_turns_with_one_file(tmp_path: Path, tasks: int, rounds: int) -> None:
    """One of them has the write lock; the others are refused where they cannot wait for it."""
    for seed in seeds(rounds):
        marks = truth.Marks()
        (tmp_path / seed).mkdir()
        with prepared(sqlite_url(tmp_path / seed, "pysqlite"), marks) as engine:
            works = [Work(f"{seed}{chr(97 + number)}", marks, only=READY) for number in range(tasks)]
            url, options = sqlite_url(tmp_path / seed, "aiosqlite"), {"connect_args": {"timeout": 0.3}}
            with captured(old_values="exact", keys="always") as audit:
                asyncio.run(interleaved(url, works, **options))
                records = audit.records
            check(works, engine, records, what=f"{tasks} tasks, aiosqlite")
