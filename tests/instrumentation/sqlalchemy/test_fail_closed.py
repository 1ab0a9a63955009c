"""``on_error``: a write whose record cannot be kept goes through and is counted, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.errors import AuditError, SpoolError
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.instrumentation.sqlalchemy.writes import insert
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told

Policy = Literal["fail_open", "fail_closed"]


class LockerBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Davit(LockerBase):
    __tablename__ = "davit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]


def flush(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add(Davit(id=1, name="new"))
        session.get_one(Davit, 8).name = "changed"
        session.delete(session.get_one(Davit, 9))
        session.flush()
        session.commit()


def statements(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        session.execute(sa.insert(Davit).values(id=1, name="new"))
        session.execute(sa.update(Davit).where(Davit.id == 8).values(name="changed"))
        session.execute(sa.delete(Davit).where(Davit.id == 9))


def core(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(Davit), [{"id": 1, "name": "new"}])
        connection.execute(sa.update(Davit).where(Davit.id == 8), {"name": "changed"})
        connection.execute(sa.text("DELETE FROM davit WHERE id = 9"))


def savepoint(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        with connection.begin_nested():
            connection.execute(sa.insert(Davit).values(id=1, name="new"))
        connection.execute(sa.update(Davit).where(Davit.id == 8).values(name="changed"))
        connection.execute(sa.delete(Davit).where(Davit.id == 9))


def autocommit(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.insert(Davit).values(id=1, name="new"))
        connection.execute(sa.update(Davit).where(Davit.id == 8).values(name="changed"))
        connection.execute(sa.delete(Davit).where(Davit.id == 9))


WAYS = [flush, statements, core, savepoint, autocommit]
BEFORE = [(8, "old"), (9, "gone")]
AFTER = [(1, "new"), (8, "changed")]


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """An engine whose database has the table, with two rows."""
    engine = make_engine()
    LockerBase.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(Davit), [{"id": key, "name": name} for key, name in BEFORE])
    return engine


def stored(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(Davit.id, Davit.name).order_by(Davit.id))]


@contextmanager
def auditing(policy: Policy) -> Iterator[CapturedAudit]:
    config = AuditConfig(on_error=policy, sqlalchemy=SQLAlchemyConfig(models=["tests.Davit"]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield captured


def fill_disk(monkeypatch: pytest.MonkeyPatch, audit: CapturedAudit) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise SpoolError("the disk is full")

    for method in ("append", "intend"):
        monkeypatch.setattr(audit.pipeline.spool, method, full)


@pytest.mark.parametrize("way", WAYS)
def test_fail_closed_refuses_the_commit_and_the_connection_can_be_used_again(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, way: Callable[[sa.Engine], None]
) -> None:
    with auditing("fail_closed") as audit:
        with monkeypatch.context() as patch:
            fill_disk(patch, audit)
            with pytest.raises(SpoolError, match="the disk is full"):
                way(engine)
            assert stored(engine) == BEFORE
        audit.clear()
        way(engine)
        assert {row[2] for row in told(audit)} == {"success"}
    assert stored(engine) == AFTER


@pytest.mark.parametrize("way", WAYS)
def test_fail_open_lets_the_write_through_and_counts_what_is_lost(
    engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    way: Callable[[sa.Engine], None],
) -> None:
    with auditing("fail_open") as audit, monkeypatch.context() as patch:
        fill_disk(patch, audit)
        way(engine)
        assert stored(engine) == AFTER
        assert audit.pipeline.health.dropped == 3
        assert "the disk is full" in caplog.text


def break_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("capture is broken")

    monkeypatch.setattr(insert, "_keys", broken)


@pytest.mark.parametrize("way", WAYS)
def test_fail_closed_refuses_what_capture_itself_could_not_do(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, way: Callable[[sa.Engine], None]
) -> None:
    with auditing("fail_closed") as audit:
        break_capture(monkeypatch)
        with pytest.raises(AuditError, match=r"capture is broken.*fail_closed"):
            way(engine)
        assert audit.pipeline.health.capture_failures["create"] == 1
    if way is not autocommit:  # there it was committed before it could be read
        assert stored(engine) == BEFORE


@pytest.mark.parametrize("way", WAYS)
def test_fail_open_counts_what_capture_itself_could_not_do(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, way: Callable[[sa.Engine], None]
) -> None:
    with auditing("fail_open") as audit:
        break_capture(monkeypatch)
        way(engine)
        assert sum(audit.pipeline.health.capture_failures.values()) == 1
    assert stored(engine) == AFTER
    (created,) = audit.find(action="CREATE")
    assert created.completeness == "count"


@pytest.mark.parametrize("driver", ["sqlite", "asyncpg"], indirect=True)
@pytest.mark.parametrize("policy", ["fail_open", "fail_closed"])
def test_asynchronous_sessions(
    url: sa.URL, monkeypatch: pytest.MonkeyPatch, driver: str, policy: Policy
) -> None:
    async def work(audit: CapturedAudit) -> list[Any]:
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite") if driver == "sqlite" else url)
        async with engine.begin() as connection:
            await connection.run_sync(LockerBase.metadata.create_all)
        with monkeypatch.context() as patch:
            fill_disk(patch, audit)
            async with AsyncSession(engine) as session:
                session.add(Davit(id=1, name="new"))
                if policy == "fail_closed":
                    with pytest.raises(SpoolError, match="the disk is full"):
                        await session.commit()
                else:
                    await session.commit()
        async with AsyncSession(engine) as session:
            found = list((await session.scalars(sa.select(Davit.id))).all())
        await engine.dispose()
        return found

    with auditing(policy) as audit:
        assert asyncio.run(work(audit)) == ([1] if policy == "fail_open" else [])


@pytest.mark.parametrize("first", ["nothing", "insert"])
def test_what_the_release_of_a_savepoint_commits_is_on_record_as_committed(
    engine: sa.Engine, first: str
) -> None:
    """SQLite's driver begins no transaction before a savepoint, so that its release is a COMMIT."""
    with auditing("fail_open") as audit, engine.connect() as connection:
        if first == "insert":
            connection.execute(sa.insert(Davit).values(id=1, name="first"))
        with connection.begin_nested(), connection.begin_nested():
            connection.execute(sa.insert(Davit).values(id=2, name="new"))
        connection.rollback()
        kept = (2, "new") in stored(engine)
        outcomes = {record.target.id: record.outcome for record in audit if record.target is not None}
    assert kept is (engine.dialect.name == "sqlite" and first == "nothing")
    assert outcomes["2"] == ("success" if kept else "failure")
