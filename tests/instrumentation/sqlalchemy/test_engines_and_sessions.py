"""Engines, sessions and mappings of every kind: shards, translated schemas, scopes, dialects never tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import registry as dialects
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    registry,
    scoped_session,
    sessionmaker,
)

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told


class SeaBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Buoy(SeaBase):
    __tablename__ = "buoy"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    light: Mapped[str | None]


class Shoal(SeaBase):
    """Is not audited."""

    __tablename__ = "shoal"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    depth: Mapped[int | None]


CONFIG = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*", "!tests.Shoal"]))


@pytest.fixture
def audit() -> Iterator[CapturedAudit]:
    with audited(SQLAlchemyAuditInstrumentor(), CONFIG) as captured:
        yield captured


@pytest.fixture
def driver() -> str:
    return "sqlite"


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    SeaBase.metadata.create_all(engine)
    return engine


ROWS = [
    ("CREATE", "Buoy/1", "success", {"light": "red"}),
    ("UPDATE", "Buoy/1", "success", {"light": ("red", "green")}),
    ("DELETE", "Buoy/1", "success", {"light": ("green", None)}),
]


def write(session: Any) -> None:
    session.add(Buoy(id=1, light="red"))
    session.commit()
    session.execute(sa.update(Buoy).where(Buoy.id == 1).values(light="green"))
    session.commit()
    session.delete(session.get(Buoy, 1))
    session.commit()


def shard_of(record: AuditRecord) -> str:
    return Path(record.database.namespace).stem


def test_each_shard_is_told_by_its_own_database(tmp_path: Path, audit: CapturedAudit) -> None:
    shards = {name: sa.create_engine(f"sqlite:///{tmp_path}/{name}.sqlite3") for name in ("odd", "even")}

    def of(number: int) -> str:
        return "odd" if number % 2 else "even"

    def chosen(mapper: Any, primary_key: Any, **_: Any) -> Any:
        return [of(primary_key[0])]

    session = ShardedSession(
        shards=shards,
        shard_chooser=lambda mapper, instance, clause=None: (
            of(instance.id) if instance is not None else "odd"
        ),
        identity_chooser=chosen,
        execute_chooser=lambda context: list(shards),
    )
    for shard in shards.values():
        SeaBase.metadata.create_all(shard)
    with session:
        session.add_all([Buoy(id=number, light="red") for number in (1, 2, 3)])
        session.commit()
        audit.clear()
        session.get_one(Buoy, 1).light = "green"
        session.delete(session.get_one(Buoy, 2))
        session.commit()
        one = sorted((shard_of(row), row.target.id) for row in audit if row.target is not None)
        assert one == [("even", "2"), ("odd", "1")]
        audit.clear()
        session.execute(
            sa.update(Buoy).values(light="white"), execution_options={"synchronize_session": False}
        )
        session.commit()
        session.execute(
            sa.update(Buoy).values(light="black"), execution_options={"synchronize_session": False}
        )
        session.rollback()
    found = [(row.database.namespace.rpartition("/")[2], row.outcome, row.completeness) for row in audit]
    assert sorted(found) == [("odd.sqlite3", "failure", "full"), ("odd.sqlite3", "success", "full")]
    for shard in shards.values():
        shard.dispose()


@pytest.mark.parametrize("driver", ["sqlite", "psycopg"])
def test_a_translated_schema_is_the_one_on_record(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, driver: str, tmp_path: Path
) -> None:
    engine = make_engine()
    if driver == "sqlite":
        event.listen(
            engine, "connect", lambda each, _: each.execute(f"ATTACH '{tmp_path}/north.db' AS north")
        )
    else:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA north")
    translated = engine.execution_options(schema_translate_map={None: "north"})
    SeaBase.metadata.create_all(engine)
    SeaBase.metadata.create_all(translated)
    for each, schema in ((engine, None), (translated, "north")):
        with Session(each) as session:
            write(session)
            session.execute(sa.insert(Buoy), [{"id": number} for number in (5, 6)])
            session.execute(sa.delete(Buoy).where(Buoy.id > 4))
            session.commit()
        assert told(audit)[:3] == ROWS
        assert {record.completeness for record in audit} == {"full"}
        ends = {record.database.namespace.endswith("|north") for record in audit}
        assert ends == {schema is not None}
        audit.clear()


def test_scoped_sessions(engine: sa.Engine, audit: CapturedAudit) -> None:
    session = scoped_session(sessionmaker(engine))
    write(session)
    session.remove()
    assert told(audit) == ROWS


def test_asynchronous_scoped_sessions_of_tasks_that_take_turns(tmp_path: Path, audit: CapturedAudit) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/turns.sqlite3")
        async with engine.begin() as connection:
            await connection.run_sync(SeaBase.metadata.create_all)
        scoped: async_scoped_session[AsyncSession] = async_scoped_session(
            async_sessionmaker(engine), scopefunc=asyncio.current_task
        )

        async def task(number: int, *, keep: bool) -> None:
            for light in ("red", "green"):
                scoped.add(Buoy(id=number * 10 + len(light), light=light))
                await asyncio.sleep(0)
            await (scoped.commit() if keep else scoped.rollback())
            await scoped.remove()

        for keep in (True, False):
            await asyncio.gather(task(1 if keep else 3, keep=keep), task(2 if keep else 4, keep=keep))
        await engine.dispose()

    asyncio.run(main())
    done = sorted((record.outcome, record.bulk.keys) for record in audit if record.bulk is not None)
    assert done == [("success", ["13", "15"]), ("success", ["23", "25"])]


def test_dataclasses_and_classes_mapped_imperatively(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    class LagoonBase(MappedAsDataclass, DeclarativeBase):
        pass

    class Lagoon(LagoonBase):
        __tablename__ = "lagoon"

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="still")

    @dataclass
    class Atoll:
        id: int
        name: str

    mapped = registry()
    columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(30))
    mapped.map_imperatively(Atoll, sa.Table("atoll", mapped.metadata, *columns))
    engine = make_engine()
    LagoonBase.metadata.create_all(engine)
    mapped.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Lagoon(id=1), Atoll(1, "round")])
        session.commit()
        session.get_one(Lagoon, 1).name = "deep"
        session.get_one(Atoll, 1).name = "wide"
        session.commit()
    mapped.dispose()
    assert sorted((row for row in told(audit) if row[0] == "UPDATE"), key=str) == [
        ("UPDATE", "Atoll/1", "success", {"name": ("round", "wide")}),
        ("UPDATE", "Lagoon/1", "success", {"name": ("still", "deep")}),
    ]


class NeverTried(SQLiteDialect_pysqlite):
    """SQLite, by a name that nobody knows."""

    name = "nevertried"
    supports_statement_cache = True


def test_a_dialect_never_tried_loses_no_record_and_fails_no_statement(
    tmp_path: Path, audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    dialects.register("nevertried", __name__, "NeverTried")
    engine = sa.create_engine(f"nevertried:///{tmp_path}/never.db")
    SeaBase.metadata.create_all(engine)
    with Session(engine) as session:
        write(session)
        session.add_all([Buoy(id=number) for number in range(5, 8)])
        session.flush()
        session.execute(sa.update(Buoy).where(Buoy.id > 4).values(light="blue"))
        session.execute(sa.text("UPDATE buoy SET light = 'x'"))
        session.execute(sa.delete(Buoy))
        session.rollback()
    engine.dispose()
    found = [(row.action, row.outcome, row.database.system) for row in audit]
    assert found == [
        *[(verb, "success", "nevertried") for verb in ("CREATE", "UPDATE", "DELETE")],
        *[(verb, "failure", "nevertried") for verb in ("CREATE", "UPDATE", "UPDATE", "DELETE")],
    ]
    assert told(audit)[:3] == ROWS
    assert "capture of SQLAlchemy failed" not in caplog.text
    [said] = [message for message in caplog.messages if "not tested with the dialect 'nevertried'" in message]
    assert said.startswith("sqlalchemy.models: ")


# --- no harm: what others count ---------------------------------------------------------------------


def statistics(engine: sa.Engine, model: type[Buoy | Shoal]) -> list[tuple[str, str]]:
    """Do the same twice; return each statement of the application's, and how the cache knew it."""
    seen: list[tuple[str, str]] = []

    def after(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        seen.append((statement, context.cache_hit.name))

    event.listen(engine, "after_cursor_execute", after)
    column = "light" if model is Buoy else "depth"
    try:
        for _ in range(2):
            with Session(engine) as session:
                session.add_all([model(id=number) for number in range(1, 6)])
                session.commit()
                setattr(session.get_one(model, 1), column, 7)
                session.commit()
                session.execute(sa.update(model).where(model.id > 2).values({column: 8}))
                session.execute(sa.insert(model), [{"id": 11}, {"id": 12}])
                session.execute(sa.delete(model).where(model.id.in_([2, 3])))
                session.execute(sa.select(model).where(model.id == 4)).all()
                session.execute(sa.delete(model))
                session.commit()
    finally:
        event.remove(engine, "after_cursor_execute", after)
    return seen


@pytest.mark.parametrize("model", [Buoy, Shoal])
def test_the_cache_of_statements_knows_what_it_knows_without_us(
    make_engine: Callable[..., sa.Engine], model: type[Buoy | Shoal]
) -> None:
    plain, watched = make_engine(), make_engine()
    SeaBase.metadata.create_all(plain)
    without = statistics(plain, model)
    with audited(SQLAlchemyAuditInstrumentor(), CONFIG) as audit:
        assert statistics(watched, model) == without
        assert bool(audit.records) == (model is Buoy)
    assert {how for _, how in without} == {"CACHE_HIT", "CACHE_MISS"}
    if model is Shoal:  # and nothing else was sent, or is kept
        caches: list[Any] = [plain._compiled_cache, watched._compiled_cache]
        assert len(caches[0]) == len(caches[1])


def test_a_table_that_is_not_audited_costs_the_question_for_foreign_keys_once(
    make_engine: Callable[..., sa.Engine],
) -> None:
    def sent(engine: sa.Engine) -> list[str]:
        lines: list[str] = []

        def connected(driver: Any, record: Any) -> None:
            driver.set_trace_callback(lines.append)

        event.listen(engine, "connect", connected)
        engine.dispose()
        statistics(engine, Shoal)
        return lines

    plain, watched = make_engine(), make_engine()
    SeaBase.metadata.create_all(plain)
    without = sent(plain)
    with audited(SQLAlchemyAuditInstrumentor(), CONFIG) as audit:
        more = sent(watched)
        assert audit.records == []
    asked = [line for line in more if "sqlite_master" in line]
    assert len(asked) == 1
    # SQLite shows what its own functions send behind two dashes.
    assert [line for line in more if line not in asked and not line.startswith("--")] == without
