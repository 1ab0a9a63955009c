"""SQL that the application wrote itself: one record per statement and table, of what the statement says."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, registry

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit, capture_audit
from tests import services
from tests.audited import audited
from tests.instrumentation.sqlalchemy.models import Base, Shipment, Tag, Unaudited
from tests.instrumentation.sqlalchemy.told import told

shipment: Any = Shipment.__table__
tag: Any = Tag.__table__
unaudited: Any = Unaudited.__table__

INSERT = sa.text("INSERT INTO tag (name) VALUES (:name)")


def said(audit: CapturedAudit) -> list[tuple[str, str, str, int | None]]:
    """Return (event, completeness, outcome, rows) of each record."""
    return [
        (
            record.event_name.removeprefix("tests."),
            record.completeness,
            record.outcome,
            record.bulk.count if record.bulk else None,
        )
        for record in audit
    ]


def query(sql: str) -> str:
    """Return a statement with its parameters as no driver writes them."""
    return re.sub(r"%\(\w+\)s(::\w+)?|%s|\?", "?", sql)


def tags(engine: sa.Engine, audit: CapturedAudit, *names: str) -> None:
    with engine.begin() as connection:
        connection.execute(tag.insert(), [{"name": name} for name in names])
    audit.clear()


def test_a_statement_is_on_record_with_its_text_and_rows(engine: sa.Engine, audit: CapturedAudit) -> None:
    tags(engine, audit, "a", "b", "c")
    with engine.begin() as connection:
        result = connection.execute(
            sa.text("UPDATE tag SET name = name || 'hunter2' WHERE name <> :name -- by hand")
            if engine.dialect.name != "mysql"
            else sa.text("UPDATE tag SET name = CONCAT(name, 'hunter2') WHERE name <> :name -- by hand"),
            {"name": "swordfish"},
        )
        assert result.rowcount == 3
        assert said(audit) == []
    record = audit.one()
    assert said(audit) == [("tag.update", "statement", "success", 3)]
    assert record.action == "UPDATE"
    assert query(record.database.query).endswith(" WHERE name <> ?")
    assert record.database.table == "tag"
    assert record.database.transaction
    assert record.target is not None
    assert (record.target.type, record.target.id) == ("tests.Tag", "")
    audit.assert_no_secrets("hunter2", "swordfish")


def test_every_way_to_send_text(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT, {"name": "a"})
        connection.execute(INSERT, [{"name": "b"}, {"name": "c"}])
        connection.exec_driver_sql("update tag set name = 'd' where name = 'a'")
    with Session(engine) as session:
        session.execute(sa.text("DELETE FROM tag WHERE name = :name"), {"name": "d"})
        session.connection().exec_driver_sql("INSERT INTO tag (name) VALUES ('e'), ('f')")
        session.commit()
    assert said(audit) == [
        ("tag.create", "statement", "success", 1),
        ("tag.create", "statement", "success", 2),
        ("tag.update", "statement", "success", 1),
        ("tag.delete", "statement", "success", 1),
        ("tag.create", "statement", "success", 2),
    ]


def test_text_whose_rows_are_fetched(engine: sa.Engine, audit: CapturedAudit) -> None:
    if engine.dialect.name == "mysql":
        return  # UPDATE returns nothing there
    tags(engine, audit, "a", "b")
    with Session(engine) as session:
        assert session.execute(sa.text("UPDATE tag SET name = name || '!' RETURNING name")).all()
        columns = sa.text("DELETE FROM tag WHERE name = 'a!' RETURNING id, name").columns(
            tag.c.id, tag.c.name
        )
        assert [row.name for row in session.execute(columns)] == ["a!"]
        entities = sa.select(Tag).from_statement(sa.text("UPDATE tag SET name = 'z' RETURNING id, name"))
        assert [each.name for each in session.scalars(entities)] == ["z"]
        session.commit()
    counts = [None, None, None] if engine.dialect.name == "sqlite" else [2, 1, 1]
    verbs = ["update", "delete", "update"]
    assert said(audit) == [
        (f"tag.{verb}", "statement", "success", count) for verb, count in zip(verbs, counts, strict=True)
    ]


def test_what_matches_nothing_or_only_reads_or_is_not_audited_is_none(
    engine: sa.Engine, audit: CapturedAudit
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE tag SET name = 'x' WHERE id = 0"))
        connection.execute(sa.text("SELECT * FROM tag")).all()
        connection.execute(sa.text("INSERT INTO unaudited (name) SELECT name FROM tag"))
        connection.exec_driver_sql("UPDATE unaudited SET name = 'tag'")
        connection.execute(unaudited.insert().from_select(["name"], sa.select(tag.c.name)))
    assert said(audit) == []


def test_the_transaction_and_its_savepoints_decide(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.connect() as connection:
        connection.execute(INSERT, {"name": "kept"})
        with connection.begin_nested() as savepoint:
            connection.execute(INSERT, {"name": "inner"})
            savepoint.rollback()
        assert [outcome for _, _, outcome, _ in said(audit)] == ["failure"]
        connection.commit()
        connection.execute(INSERT, {"name": "undone"})
        connection.rollback()
    with pytest.raises(LookupError), engine.begin() as connection:
        connection.execute(INSERT, {"name": "raised"})
        raise LookupError
    assert [(outcome, rows) for _, _, outcome, rows in said(audit)] == [
        ("failure", 1),
        ("success", 1),
        ("failure", 1),
        ("failure", 1),
    ]
    assert audit.records[-1].error == "LookupError"
    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT name FROM tag")).all() == ["kept"]


def test_text_and_constructs_share_a_transaction(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Tag(name="a"))
        session.flush()
        session.execute(sa.text("UPDATE tag SET name = 'b'"))
        session.commit()
    assert [name for name, *_ in said(audit)] == ["tag.create", "tag.update"]
    assert len({record.database.transaction for record in audit}) == 1


def test_what_text_has_changed_is_no_old_value(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Tag(name="a"))
        session.commit()
        loaded = session.scalars(sa.select(Tag)).one()
        audit.clear()
        session.execute(sa.text("UPDATE tag SET name = 'b'"))
        loaded.name = "c"
        session.commit()
    assert told(audit)[-1][3] == {"name": ("b", "c")}


def test_a_refused_statement_is_a_failure(engine: sa.Engine, audit: CapturedAudit) -> None:
    tags(engine, audit, "a")
    for transaction in (False, True):
        with engine.connect() as connection:
            if not transaction:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            with pytest.raises(IntegrityError):
                connection.execute(INSERT, {"name": "a"})
            connection.rollback()
    assert said(audit) == [("tag.create", "statement", "failure", None)] * 2
    assert audit.records[-1].error.endswith(("IntegrityError", "UniqueViolation"))


def test_autocommit(make_engine: Callable[..., sa.Engine], audit: CapturedAudit) -> None:
    engine = make_engine(isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(INSERT, {"name": "a"})
        assert said(audit) == [("tag.create", "statement", "success", 1)]
        connection.execute(sa.text("DELETE FROM tag WHERE name = 'nobody'"))
        connection.rollback()  # means nothing
    assert said(audit) == [("tag.create", "statement", "success", 1)]


@pytest.mark.parametrize("how", ["text", "driver"])
def test_transactions_ended_by_text(engine: sa.Engine, audit: CapturedAudit, how: str) -> None:
    def send(connection: sa.Connection, sql: str) -> None:
        connection.execute(sa.text(sql)) if how == "text" else connection.exec_driver_sql(sql)

    # A driver that does not hear of the end sends no BEGIN again: what follows commits by itself.
    deaf = engine.dialect.driver == "psycopg2"
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="kept"))
        send(connection, "COMMIT")
        assert [row[2] for row in told(audit)] == ["success"]
        connection.execute(tag.insert().values(name="undone"))
        send(connection, "ROLLBACK")
        connection.execute(INSERT, {"name": "too"})
        connection.commit()
    with engine.connect() as connection:
        connection.execute(tag.insert().values(name="outer"))
        send(connection, "SAVEPOINT mine")
        connection.execute(INSERT, {"name": "inner"})
        send(connection, "ROLLBACK TO SAVEPOINT mine")
        connection.commit()
    kept = [(row[3].get("name"), row[2]) for row in told(audit)]
    assert kept == [
        ("kept", "success"),
        ("undone", "success" if deaf else "failure"),
        (None, "success"),
        (None, "failure"),
        ("outer", "success"),
    ]
    with engine.connect() as connection:
        names = set(connection.scalars(sa.select(tag.c.name)))
    assert names - {"undone"} == {"kept", "too", "outer"}
    assert ("undone" in names) == deaf


def test_a_transaction_of_text_under_autocommit(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    engine = make_engine(isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        for end, expected in (("COMMIT", "success"), ("ROLLBACK", "failure")):
            audit.clear()
            connection.execute(sa.text("BEGIN"))
            connection.execute(tag.insert().values(name=end))
            connection.execute(
                sa.text("UPDATE tag SET name = :new WHERE name = :name"), {"name": end, "new": f"{end}!"}
            )
            assert said(audit) == []
            connection.execute(sa.text(end))
            assert [outcome for _, _, outcome, _ in said(audit)] == [expected] * 2


def test_ddl_that_commits(engine: sa.Engine, audit: CapturedAudit) -> None:
    """MySQL commits before it creates a table, whoever compiled that."""
    create: Any
    with engine.connect() as connection:
        for number, create in enumerate(
            (
                sa.schema.CreateTable(sa.Table("first", sa.MetaData(), sa.Column("id", sa.Integer))),
                sa.text("CREATE TABLE second (id INTEGER)"),
            )
        ):
            audit.clear()
            connection.execute(tag.insert().values(name=f"tag {number}"))
            connection.execute(create)
            connection.rollback()
            expected = "success" if engine.dialect.name == "mysql" else "failure"
            assert [row[2] for row in told(audit)] == [expected]
            there = connection.scalar(sa.select(sa.func.count()).select_from(tag))
            assert there == (number + 1 if expected == "success" else 0)
            connection.rollback()


def test_two_phases_are_not_ended_by_what_sqlalchemy_sends_for_them(
    engine: sa.Engine, audit: CapturedAudit
) -> None:
    if engine.dialect.name == "sqlite":
        return  # has none
    with engine.connect() as connection:
        for end in ("commit", "rollback"):
            transaction = connection.begin_twophase()
            connection.execute(INSERT, {"name": end})
            transaction.prepare()
            getattr(transaction, end)()
    assert [outcome for _, _, outcome, _ in said(audit)] == ["success", "failure"]


# --- DML in WITH -----------------------------------------------------------------------------------


def with_deleted(where: str) -> Any:
    return tag.delete().where(tag.c.name == where).returning(tag.c.name).cte("gone")


def test_dml_in_a_cte(engine: sa.Engine, audit: CapturedAudit) -> None:
    if engine.dialect.name != "postgresql":
        return  # no other database has it
    tags(engine, audit, "a", "b", "c", "d")
    with engine.begin() as connection:
        for name in ("a", "b"):  # the second time compiled and cached
            gone = with_deleted(name)
            assert connection.scalars(sa.select(gone.c.name)).all() == [name]
        connection.execute(sa.select(shipment.c.id).add_cte(with_deleted("c"))).all()
        connection.execute(
            sa.text("WITH gone AS (DELETE FROM tag WHERE name = 'd' RETURNING 1) SELECT * FROM gone")
        ).all()
    assert said(audit) == [("tag.delete", "statement", "success", None)] * 4
    assert audit.records[0].database.query.startswith("WITH gone AS")


def test_dml_in_a_cte_beside_other_dml(engine: sa.Engine, audit: CapturedAudit) -> None:
    if engine.dialect.name != "postgresql":
        return
    tags(engine, audit, "a", "b")
    with engine.begin() as connection:
        gone = with_deleted("a")
        moved = shipment.insert().from_select(["number", "st"], sa.select(gone.c.name, sa.literal("x")))
        connection.execute(moved)
        gone = with_deleted("b")
        connection.execute(unaudited.insert().from_select(["name"], sa.select(gone.c.name)))
    found = said(audit)
    assert sorted(found) == [
        ("shipment.create", "count", "success", 1),
        ("tag.delete", "statement", "success", None),
        ("tag.delete", "statement", "success", None),
    ]


# --- constructs that name an audited table and are none of its Table --------------------------------


def test_tables_by_name_only(engine: sa.Engine, audit: CapturedAudit) -> None:
    """As migrations have them, and data frames, and what was reflected once more."""
    light = sa.table("tag", sa.column("id"), sa.column("name"))
    with engine.begin() as connection:
        connection.execute(light.insert(), [{"name": "a"}, {"name": "b"}])
        connection.execute(light.update().values(name=light.c.name + "!"))
        connection.execute(light.delete())
        connection.execute(sa.table("unaudited", sa.column("name")).insert().values(name="x"))
    assert [(name, level) for name, level, *_ in said(audit)] == [
        ("tag.create", "statement"),
        ("tag.update", "statement"),
        ("tag.delete", "statement"),
    ]


def test_another_table_object_of_an_audited_class(make_engine: Callable[..., sa.Engine]) -> None:
    engine = make_engine()
    Base.metadata.create_all(engine)
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.Tag"]))
    with capture_audit(config) as audit:
        SQLAlchemyAuditInstrumentor().instrument(config=config)
        try:
            with engine.begin() as connection:
                reflected = sa.Table("tag", sa.MetaData(), autoload_with=connection)
                connection.execute(reflected.insert().values(name="a"))
        finally:
            SQLAlchemyAuditInstrumentor().uninstrument()
        assert said(audit) == [("tag.create", "statement", "success", 1)]


def test_a_table_that_nothing_but_the_configuration_names(make_engine: Callable[..., sa.Engine]) -> None:
    engine = make_engine()
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["ledger", "!ledger_old"]))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE ledger (id INTEGER)"))
        connection.execute(sa.text("CREATE TABLE ledger_old (id INTEGER)"))
    with capture_audit(config) as audit:
        SQLAlchemyAuditInstrumentor().instrument(config=config)
        try:
            with engine.begin() as connection:
                connection.execute(sa.text("INSERT INTO ledger VALUES (1)"))
                connection.execute(sa.text("INSERT INTO ledger_old VALUES (1)"))
        finally:
            SQLAlchemyAuditInstrumentor().uninstrument()
        assert said(audit) == [("ledger.create", "statement", "success", 1)]


def test_tables_made_later_and_mapped_later(engine: sa.Engine, audit: CapturedAudit, driver: str) -> None:
    name = f"late_{driver}"  # the classes of other tests are still there
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO tag (name) VALUES ('a')"))  # tables are known from here on
        connection.execute(sa.text(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name VARCHAR(9))"))
    audit.clear()
    metadata = sa.MetaData()
    table = sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True))
    with engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO {name} (id, name) VALUES (1, 'a')"))

    class LateBase(DeclarativeBase):
        pass

    LateBase.metadata = metadata

    class Late(LateBase):
        __table__ = table

    assert isinstance(Late.__table__, sa.Table)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {name} SET name = 'b'"))
    first, second = (record.event_name for record in audit)
    assert first == f"{name}.create"
    assert second.endswith(".late.update")


# --- what it costs ---------------------------------------------------------------------------------


def test_a_statement_that_names_no_audited_table_is_looked_up_once(
    engine: sa.Engine, audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_audit.capture.sql import sql_text

    looked: list[str] = []
    look = sql_text.SqlTexts._look

    def counted(self: Any, sql: str, system: str) -> Any:
        looked.append(sql)
        return look(self, sql, system)

    monkeypatch.setattr(sql_text.SqlTexts, "_look", counted)
    with engine.begin() as connection:
        for _ in range(3):
            connection.execute(sa.text("INSERT INTO unaudited (name) VALUES (:n)"), {"n": "x"})
            connection.execute(sa.text("SELECT name FROM unaudited")).all()
            connection.execute(unaudited.insert().values(name="x"))
    assert len([sql for sql in looked if sql.startswith("INSERT INTO unaudited (name)")]) <= 2
    assert not [sql for sql in looked if sql.startswith("SELECT name FROM unaudited")]


@pytest.mark.parametrize("driver", ["sqlite"], indirect=True)
def test_a_table_that_is_made_while_others_are_in_use_is_the_only_one_decided_about(
    engine: sa.Engine, audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_audit.capture.table_policy import TablePolicy

    decided: list[str] = []
    decide = TablePolicy.decide

    def counted(self: Any, subject: Any, *owners: Any) -> Any:
        decided.append(subject.label)
        return decide(self, subject, *owners)

    metadata = sa.MetaData()
    with engine.begin() as connection:
        connection.execute(sa.text("PRAGMA user_version"))
        monkeypatch.setattr(TablePolicy, "decide", counted)
        for number in range(20):
            sa.Table(f"made_{number}", metadata, sa.Column("id", sa.Integer, primary_key=True))
            connection.execute(sa.text("PRAGMA user_version"))
    assert decided == [f"made_{number}" for number in range(20)]


def test_a_fault_of_ours_costs_the_record_and_is_counted(
    engine: sa.Engine, audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_audit.capture.sql import raw_sql

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(raw_sql.RawTables, "read", broken)
    with engine.begin() as connection:
        connection.execute(INSERT, {"name": "a"})
        assert connection.scalar(sa.text("SELECT count(*) FROM tag")) == 1
    assert said(audit) == []
    assert "capture of SQLAlchemy failed in raw SQL" in caplog.text
    assert "1 change(s) are not recorded" in caplog.text


def test_listeners_of_the_application_see_no_other_statements(
    engine: sa.Engine, audit: CapturedAudit
) -> None:
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    with engine.begin() as connection:
        connection.execute(INSERT, {"name": "a"})
        with pytest.raises(DBAPIError):
            connection.execute(sa.text("INSERT INTO tag (nothing) VALUES (1)"))
    assert len(seen) == 2


def test_asyncpg_does_not_hear_of_a_commit_by_text(
    audit: CapturedAudit, postgresql_server: services.PostgreSQLServer
) -> None:
    async def work(url: sa.URL) -> list[str]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with engine.connect() as connection:
            await connection.execute(INSERT, {"name": "first"})
            await connection.execute(sa.text("COMMIT"))
            await connection.execute(INSERT, {"name": "second"})
            await connection.rollback()
            await connection.execute(INSERT, {"name": "third"})
            await connection.rollback()
            names = list(await connection.scalars(sa.select(tag.c.name).order_by(tag.c.id)))
        await engine.dispose()
        return names

    with postgresql_server.database() as name:
        query = {"host": postgresql_server.host, "port": str(postgresql_server.port)}
        url = sa.URL.create("postgresql+asyncpg", username=postgresql_server.user, database=name, query=query)
        kept = asyncio.run(work(url))
    outcomes = [outcome for _, _, outcome, _ in said(audit)]
    assert len(kept) == outcomes.count("success")
    assert outcomes == ["success", "success" if "second" in kept else "failure", "failure"]


def test_tables_that_another_thread_is_making(
    engine: sa.Engine, audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    """As automap does it: they stand in the metadata before they have as much as a name."""
    half: Any = sa.Table.__new__(sa.Table)
    other = registry()
    other.metadata._add_table("half", None, half)
    done = threading.Event()

    def make() -> None:
        for number in range(300):
            sa.Table(
                f"made_{number}", other.metadata, sa.Column("id", sa.ForeignKey("tag.id"), primary_key=True)
            )
        done.set()

    maker = threading.Thread(target=make)
    maker.start()
    with engine.begin() as connection:
        written = 0
        while not done.is_set() or not written:
            connection.execute(sa.text(f"INSERT INTO tag (name) VALUES ('{written}')"))
            written += 1
        connection.execute(sa.text("DELETE FROM tag"))
    maker.join()
    assert len(said(audit)) == written + 1
    assert "failed" not in caplog.text


def test_a_table_without_a_name_is_called_as_sql_has_it() -> None:
    """SQLite lets one make it."""
    engine = sa.create_engine("sqlite://")
    table = sa.Table(sa.quoted_name("", True), sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit, engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), {"id": 1})
        connection.commit()
        record = audit.one()
    assert (record.event_name, record.outcome, str(record.target)) == ('"".create', "success", '""/1')
