"""Alembic: a migration is a record, bound to the outcome of its transaction; what it writes is its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import otel_audit
from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.testing import CapturedAudit

ENV = """
import sqlalchemy as sa
from alembic import context

if context.is_offline_mode():
    context.configure(url=context.config.attributes["url"], literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = sa.create_engine(context.config.attributes["url"])
    with engine.connect() as connection:
        context.configure(connection=connection, **context.config.attributes["options"])
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()
"""
ASYNC_ENV = """
import asyncio

from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine


def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(context.config.attributes["url"].set(drivername="sqlite+aiosqlite"))
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
"""
HEAD = """
"{message}"
import sqlalchemy as sa
from alembic import op
from sqlalchemy.orm import Session

revision = {revision!r}
down_revision = {down!r}
branch_labels = depends_on = None

parcel = sa.Table(
    "crate",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("note", sa.String(20)),
)
"""
CREATE = """
def upgrade():
    op.create_table(
        "crate",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("note", sa.String(20)),
    )

def downgrade():
    op.drop_table("crate")
"""
FILL = """
def upgrade():
    op.bulk_insert(parcel, [{"id": 1, "note": "a"}, {"id": 2, "note": "b"}])
    op.execute("UPDATE crate SET note = 'c' WHERE id = 2")
    with Session(bind=op.get_bind()) as session:
        session.execute(parcel.update().where(parcel.c.id == 1).values(note="d"))
        session.flush()

def downgrade():
    op.execute(parcel.delete())
"""
FAILS = """
def upgrade():
    op.bulk_insert(parcel, [{"id": 3, "note": "x"}])
    raise LookupError("the migration is wrong")

def downgrade():
    raise LookupError("neither way")
"""
OFFLINE = """
def upgrade():
    op.bulk_insert(parcel, [{"id": 1, "note": "a"}])
    op.execute("UPDATE crate SET note = 'b'")
"""
DDL_BETWEEN = """
def upgrade():
    op.bulk_insert(parcel, [{"id": 3, "note": "x"}])
    op.create_table("other", sa.Column("id", sa.Integer, primary_key=True))
    op.bulk_insert(parcel, [{"id": 4, "note": "y"}])
    raise LookupError("too late for the first row on some databases")
"""
NOTHING = """
def upgrade():
    pass

def downgrade():
    pass
"""


class Project:
    """A directory of migrations, and the commands a person types in it."""

    def __init__(self, directory: Path, url: sa.URL) -> None:
        (directory / "versions").mkdir()
        self.env = directory / "env.py"
        self.env.write_text(ENV)
        self._versions = directory / "versions"
        self.output = StringIO()
        self.config = Config(output_buffer=self.output, stdout=StringIO())
        self.config.set_main_option("script_location", str(directory))
        self.config.set_main_option("path_separator", "os")
        self.config.attributes.update(url=url, options={})
        self.write("a1", None, CREATE, "the table")
        self.write("b2", "a1", FILL, "what is in it")

    def write(self, revision: str, down: Any, body: str, message: str = "more") -> None:
        head = textwrap.dedent(HEAD).format(revision=revision, down=down, message=message)
        (self._versions / f"{revision}_x.py").write_text(head + body)


@pytest.fixture(params=("sqlite", "psycopg", "mysqldb"))
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path, url: sa.URL) -> Project:
    directory = tmp_path / "migrations"
    directory.mkdir()
    return Project(directory, url)


@pytest.fixture
def config() -> AuditConfig:
    return AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"], reads=["*"]))


def migrations(audit: CapturedAudit) -> list[tuple[str, str, str]]:
    """Return (revision, direction, outcome) of the records of migrations."""
    return [
        (str(record.target).partition("/")[2], str(record.attributes["direction"]), record.outcome)
        for record in audit
        if record.action == "MIGRATE"
    ]


def data(audit: CapturedAudit) -> list[AuditRecord]:
    return [record for record in audit if record.action != "MIGRATE"]


def test_an_upgrade_is_a_record_per_migration(project: Project, audit: CapturedAudit, driver: str) -> None:
    command.upgrade(project.config, "head")
    assert migrations(audit) == [("a1", "upgrade", "success"), ("b2", "upgrade", "success")]
    first, second = audit.find(action="MIGRATE")
    assert (first.event_name, str(first.target)) == ("alembic.migration.migrate", "alembic.Migration/a1")
    assert (first.attributes["down_revision"], second.attributes["down_revision"]) == ([], ["a1"])
    assert (first.attributes["message"], first.attributes["migration"]) == ("the table", "a1")
    duration: Any = first.attributes["duration"]
    assert 0 <= duration < 60
    assert first.database.table == "alembic_version"
    assert first.database.system == {"sqlite": "sqlite", "psycopg": "postgresql"}.get(driver, "mariadb")
    assert (first.actor.type, first.actor.id) == ("system", "alembic upgrade")


def test_what_a_migration_writes_is_its_own(project: Project, audit: CapturedAudit) -> None:
    command.upgrade(project.config, "head")
    written = data(audit)
    assert {record.database.table for record in written} == {"crate"}, "no row of alembic_version"
    assert [(record.action, record.outcome) for record in written] == [
        ("CREATE", "success"),
        ("UPDATE", "success"),
        ("UPDATE", "success"),
    ]
    for record in written:
        assert (record.actor.type, record.actor.id) == ("system", "alembic upgrade")
        assert record.request.view == "alembic.Migration/b2"


@pytest.mark.parametrize("driver", ["sqlite"], indirect=True)
def test_migrations_on_an_asynchronous_engine(project: Project, audit: CapturedAudit) -> None:
    project.env.write_text(ASYNC_ENV)
    command.upgrade(project.config, "head")
    assert migrations(audit) == [("a1", "upgrade", "success"), ("b2", "upgrade", "success")]
    assert {record.actor.id for record in audit} == {"alembic upgrade"}
    assert len(data(audit)) == 3


def test_a_downgrade_is_one_too(project: Project, audit: CapturedAudit) -> None:
    command.upgrade(project.config, "head")
    audit.clear()
    command.downgrade(project.config, "base")
    assert migrations(audit) == [("b2", "downgrade", "success"), ("a1", "downgrade", "success")]
    assert {record.actor.id for record in audit} == {"alembic downgrade"}
    assert [record.action for record in data(audit)] == ["DELETE"]


def test_a_migration_that_fails(project: Project, audit: CapturedAudit, driver: str) -> None:
    project.write("c3", "b2", FAILS)
    with pytest.raises(LookupError):
        command.upgrade(project.config, "head")
    failed = audit.one(action="MIGRATE", target="alembic.Migration/c3")
    assert (failed.outcome, failed.error) == ("failure", "LookupError")
    others = {name: outcome for name, _, outcome in migrations(audit) if name != "c3"}
    # PostgreSQL has one transaction for all; the others commit each.
    expected = "failure" if driver == "psycopg" else "success"
    assert others == {"a1": expected, "b2": expected}
    last = [record for record in data(audit) if record.request.view.endswith("c3")]
    assert [(record.action, record.outcome) for record in last] == [("CREATE", "failure")]
    if driver == "psycopg":
        assert {record.outcome for record in audit} == {"failure"}


def test_what_a_ddl_statement_has_committed_is_committed(
    project: Project, audit: CapturedAudit, driver: str, make_engine: Callable[..., sa.Engine]
) -> None:
    command.upgrade(project.config, "head")
    audit.clear()
    project.write("c3", "b2", DDL_BETWEEN)
    with pytest.raises(LookupError):
        command.upgrade(project.config, "head")
    with make_engine().connect() as connection:
        kept = connection.execute(sa.text("SELECT id FROM crate WHERE id > 2 ORDER BY id")).scalars().all()
    assert kept == ([3] if driver == "mysqldb" else [])
    assert migrations(audit) == [("c3", "upgrade", "failure")]
    found = [(record.action, str(record.target), record.outcome) for record in data(audit)]
    assert found == [
        ("CREATE", "crate/3", "success" if kept else "failure"),
        ("CREATE", "crate/4", "failure"),
        ("READ", "crate", "success"),  # by this test
    ]


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)
def test_a_transaction_for_each_migration(project: Project, audit: CapturedAudit) -> None:
    project.config.attributes["options"] = {"transaction_per_migration": True}
    project.write("c3", "b2", FAILS)
    with pytest.raises(LookupError):
        command.upgrade(project.config, "head")
    assert sorted(migrations(audit)) == [
        ("a1", "upgrade", "success"),
        ("b2", "upgrade", "success"),
        ("c3", "upgrade", "failure"),
    ]


def test_sql_that_is_only_written_down_is_no_migration(project: Project, audit: CapturedAudit) -> None:
    project.write("z9", "a1", OFFLINE)
    command.upgrade(project.config, "z9", sql=True)
    assert "CREATE TABLE crate" in project.output.getvalue()
    assert "INSERT INTO crate" in project.output.getvalue()
    assert list(audit) == []


def test_several_heads_and_their_merge(project: Project, audit: CapturedAudit) -> None:
    project.write("c3", "b2", NOTHING)
    project.write("d4", "b2", NOTHING)
    command.upgrade(project.config, "heads")
    assert sorted(name for name, *_ in migrations(audit)) == ["a1", "b2", "c3", "d4"]
    project.write("e5", ("c3", "d4"), NOTHING, "merged")
    audit.clear()
    command.upgrade(project.config, "head")
    record = audit.one()
    assert (str(record.target), record.attributes["down_revision"]) == (
        "alembic.Migration/e5",
        ["c3", "d4"],
    )


def test_a_stamp_says_that_nothing_was_run(project: Project, audit: CapturedAudit) -> None:
    command.stamp(project.config, "b2")
    record = audit.one()
    assert migrations(audit) == [("b2", "stamp", "success")]
    assert "duration" not in record.attributes
    audit.clear()
    command.stamp(project.config, "base")
    record = audit.one()
    assert (str(record.target), record.attributes["down_revision"]) == ("alembic.Migration/base", ["b2"])


def test_looking_is_no_migration(project: Project, audit: CapturedAudit) -> None:
    command.upgrade(project.config, "head")
    audit.clear()
    command.current(project.config)
    command.history(project.config)
    command.upgrade(project.config, "head")
    assert list(audit) == []


def test_who_is_known_to_migrate_is_the_actor(project: Project, audit: CapturedAudit) -> None:
    with otel_audit.context(actor="ann", reason="CHG-7"):
        command.upgrade(project.config, "head")
    assert {(record.actor.id, record.reason) for record in audit} == {("ann", "CHG-7")}
    audit.clear()
    otel_audit.record("tests.afterwards", "NOTE")
    assert audit.one().actor.id != "alembic upgrade"


@pytest.mark.parametrize(
    "config",
    [AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["alembic_version"]))],
    ids=["asked for"],
)
def test_the_table_of_versions_is_recorded_if_it_is_asked_for(project: Project, audit: CapturedAudit) -> None:
    command.upgrade(project.config, "head")
    assert {record.database.table for record in data(audit)} == {"alembic_version"}


@pytest.mark.parametrize(
    "config",
    [AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"], failures=False))],
    ids=["no failures"],
)
def test_no_failure_is_recorded_if_none_is_to_be(project: Project, audit: CapturedAudit, driver: str) -> None:
    project.write("c3", "b2", FAILS)
    with pytest.raises(LookupError):
        command.upgrade(project.config, "head")
    assert {outcome for *_, outcome in migrations(audit)} == (set() if driver == "psycopg" else {"success"})


@pytest.mark.parametrize("broken", ["Migration", "MigrationWrite", "_plan"])
@pytest.mark.parametrize("driver", ["sqlite"], indirect=True)
def test_a_fault_of_ours_costs_the_record_only(
    project: Project,
    audit: CapturedAudit,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    make_engine: Callable[..., sa.Engine],
) -> None:
    from otel_audit.instrumentation.sqlalchemy import migrations as module

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("our fault")

    monkeypatch.setattr(module, broken, fail)
    command.upgrade(project.config, "head")
    assert audit.pipeline.health.capture_failures["migration"] > 0
    assert len(data(audit)) == 3
    with make_engine().connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "b2"
