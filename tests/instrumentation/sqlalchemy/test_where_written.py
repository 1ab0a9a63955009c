"""Where a record says it was written: the database of each bind, the schema of each table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told

SCHEMA = "lock_basin"


class BoundBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Bollard(BoundBase):
    __tablename__ = "bollard"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]


class Pontoon(BoundBase):
    __tablename__ = "pontoon"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]


class SchemaBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Sluice(SchemaBase):
    __tablename__ = "sluice"
    __table_args__ = {"schema": SCHEMA}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    gates: Mapped[list[Gate]] = relationship(cascade="all, delete-orphan")


class Gate(SchemaBase):
    __tablename__ = "sluice_gate"
    __table_args__ = {"schema": SCHEMA}

    id: Mapped[int] = mapped_column(primary_key=True)
    sluice_id: Mapped[int] = mapped_column(sa.ForeignKey(Sluice.id))


gauge = sa.Table(
    "sluice_gauge",
    SchemaBase.metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("level", sa.Integer),
    schema=SCHEMA,
)
tide = sa.Table(
    "sluice_tide",
    SchemaBase.metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("level", sa.Integer),
)


def place(record: AuditRecord) -> tuple[str, str, str]:
    """Return which class, in which database: a file is named without its directory."""
    assert record.target is not None
    return (
        record.target.type.removeprefix("tests."),
        record.database.system,
        record.database.namespace.rpartition("/")[2],
    )


# --- binds ------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sa.Engine]:
    """A second database, in a file."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/other.sqlite3")
    BoundBase.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def first(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """The database of the driver."""
    engine = make_engine()
    BoundBase.metadata.create_all(engine)
    return engine


def first_place(first: sa.Engine, driver: str) -> tuple[str, str]:
    system = {"sqlite": "sqlite", "psycopg": "postgresql", "pymysql": "mariadb"}[driver]
    return system, str(first.url.database).rpartition("/")[2]


def write_both(session: Session) -> None:
    for number in (1, 2):
        session.add_all([Bollard(id=number, name="b"), Pontoon(id=number, name="p")])
    session.flush()
    model: Any
    for model in (Bollard, Pontoon):
        session.get_one(model, 1).name = "changed"
        session.flush()
        session.execute(sa.update(model).where(model.id == 2).values(name="moved"))
        session.execute(sa.insert(model).values(id=3, name="core"))
        session.execute(sa.delete(model).where(model.id == 3))
        session.delete(session.get_one(model, 1))
        session.flush()


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_each_class_of_a_session_is_written_to_the_database_it_is_bound_to(
    first: sa.Engine, other: sa.Engine, audit: CapturedAudit, driver: str, outcome: str
) -> None:
    with Session(binds={Bollard: first, Pontoon: other}) as session:
        write_both(session)
        if outcome == "success":
            session.commit()
        else:
            session.rollback()
    assert {place(record) for record in audit} == {
        ("Bollard", *first_place(first, driver)),
        ("Pontoon", "sqlite", "other.sqlite3"),
    }
    for name in ("Bollard", "Pontoon"):
        rows = [row for row in told(audit) if row[1].startswith(name)]
        verbs = ["CREATE", "CREATE", "UPDATE", "UPDATE", "CREATE", "DELETE", "DELETE"]
        assert [row[0] for row in rows] == verbs
    assert {record.outcome for record in audit} == {outcome}


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
def test_get_bind_decides_by_statement_and_the_record_names_what_it_chose(
    first: sa.Engine, other: sa.Engine, audit: CapturedAudit, driver: str
) -> None:
    chosen: list[Any] = []

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **options: Any) -> Any:
            flushed = self._flushing and mapper is not None and mapper.class_ is Bollard
            engine = first if flushed or isinstance(clause, sa.Update) else other
            chosen.append(engine)
            return engine

    with Routing() as session:
        session.add_all([Bollard(id=1, name="b"), Pontoon(id=1, name="p")])
        session.flush()
        session.execute(sa.insert(Bollard).values(id=1, name="elsewhere"))
        session.execute(sa.update(Bollard).where(Bollard.id == 1).values(name="moved"))
        session.execute(sa.delete(Bollard).where(Bollard.id == 1))
        session.commit()
    assert first in chosen
    assert other in chosen
    here, there = first_place(first, driver), ("sqlite", "other.sqlite3")
    found = sorted((record.action, *place(record)) for record in audit)
    assert found == sorted(
        [
            ("CREATE", "Bollard", *here),
            ("CREATE", "Pontoon", *there),
            ("CREATE", "Bollard", *there),
            ("UPDATE", "Bollard", *here),
            ("DELETE", "Bollard", *there),
        ]
    )
    changes = {row[0]: row[3] for row in told(audit) if row[0] != "CREATE"}
    assert changes == {"UPDATE": {"name": ("b", "moved")}, "DELETE": {"name": ("elsewhere", None)}}


# --- schemas ----------------------------------------------------------------------------------------


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine], driver: str, tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine whose database has the schema and its tables; a schema of MariaDB's is a database."""
    engine = make_engine()
    if driver == "sqlite":
        event.listen(
            engine, "connect", lambda each, _: each.execute(f"ATTACH '{tmp_path}/basin.db' AS {SCHEMA}")
        )
    else:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
    SchemaBase.metadata.create_all(engine)
    yield engine
    if driver == "pymysql":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {SCHEMA}")


def namespaces(engine: sa.Engine, driver: str) -> tuple[str, str]:
    """Return what records must call the connection's own schema, and the other."""
    own = str(engine.url.database)
    return own, SCHEMA if driver == "pymysql" else f"{own}|{SCHEMA}"


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
def test_a_mapped_table_of_a_schema(engine: sa.Engine, audit: CapturedAudit, driver: str) -> None:
    with Session(engine) as session:
        sluice = Sluice(id=1, name="a", gates=[Gate(id=5)])
        session.add(sluice)
        session.commit()
        sluice.name = "b"
        session.commit()
        session.execute(sa.update(Sluice).values(name="c"))
        session.execute(sa.text(f"UPDATE {SCHEMA}.sluice SET name = 'd'"))
        session.commit()
        session.delete(sluice)
        session.commit()
    rows = [(record.database.table, record.database.namespace) for record in audit]
    assert set(rows) == {(table, namespaces(engine, driver)[1]) for table in ("sluice", "sluice_gate")}
    recorded = told(record for record in audit if record.completeness == "full")
    assert recorded == [
        ("CREATE", "Sluice/1", "success", {"name": "a"}),
        ("CREATE", "Gate/5", "success", {"sluice_id": 1}),
        ("UPDATE", "Sluice/1", "success", {"name": ("a", "b")}),
        ("UPDATE", "Sluice/1", "success", {"name": ("b", "c")}),
        ("DELETE", "Gate/5", "success", {"sluice_id": (1, None)}),
        ("DELETE", "Sluice/1", "success", {"name": ("d", None)}),
    ]


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
@pytest.mark.parametrize(
    ("pattern", "own", "other"),
    [
        (f"{SCHEMA}.sluice_gauge", False, True),
        ("sluice_gauge", False, True),
        (f"{SCHEMA}.*", False, True),
        ("sluice_tide", True, False),
        ("sluice_*", True, True),
    ],
)
def test_patterns_name_a_table_with_its_schema_or_without(
    engine: sa.Engine, driver: str, pattern: str, own: bool, other: bool
) -> None:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=[pattern]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit, engine.begin() as connection:
        for table in (tide, gauge):
            connection.execute(sa.insert(table).values(id=1, level=2))
            connection.execute(sa.update(table).where(table.c.id == 1).values(level=3))
            connection.execute(sa.delete(table))
    here, there = namespaces(engine, driver)
    wanted = [("sluice_tide", here)] * own + [(f"{SCHEMA}.sluice_gauge", there)] * other
    for name, namespace in wanted:
        records = [record for record in audit if record.database.namespace == namespace]
        assert {record.database.table for record in records} == {name.rpartition(".")[2]}
        assert told(records) == [
            ("CREATE", f"{name}/1", "success", {"level": 2}),
            ("UPDATE", f"{name}/1", "success", {"level": (2, 3)}),
            ("DELETE", f"{name}/1", "success", {"level": (3, None)}),
        ]
    assert len(audit.records) == 3 * len(wanted)


old_tide = sa.Table(
    "sluice_tide", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), schema=SCHEMA
)


def where(audit: CapturedAudit) -> list[tuple[str, str, str]]:
    """Return what was done, how much is known of it, and where."""
    return [(record.action, record.completeness, record.database.namespace) for record in audit]


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
@pytest.mark.parametrize("by_driver", [False, True], ids=["text", "cursor of the driver"])
def test_text_says_itself_in_which_schema_it_writes(
    engine: sa.Engine, audit: CapturedAudit, driver: str, by_driver: bool
) -> None:
    """Nobody has told of a second table of this name: it may be a tenant's, or an archive."""
    own, other = namespaces(engine, driver)
    texts = [
        "INSERT INTO sluice_tide VALUES (1, 2)",
        f"INSERT INTO {SCHEMA}.sluice_tide SELECT id FROM sluice_tide",
        "UPDATE sluice_tide SET level = 4",
    ]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {SCHEMA}.sluice_tide (id INTEGER PRIMARY KEY)")
        for text in texts:
            if by_driver:
                connection.connection.cursor().execute(text)
            else:
                connection.execute(sa.text(text))
    assert where(audit) == [
        ("CREATE", "statement", own),
        ("CREATE", "statement", other),
        ("UPDATE", "statement", own),
    ]


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
@pytest.mark.parametrize("known_by", ["Core", "text"])
def test_a_table_of_the_same_name_in_another_schema_is_another_one(
    engine: sa.Engine, driver: str, known_by: str
) -> None:
    """It is known, and not audited: what is written to it is none of the audited table's."""
    own, _ = namespaces(engine, driver)
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["sluice_tide", f"!{SCHEMA}.*"]))
    old_tide.create(engine)
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit, engine.begin() as connection:
        connection.execute(sa.insert(tide).values(id=1, level=2))
        copied = sa.insert(old_tide).from_select(["id"], sa.select(tide.c.id))
        connection.execute(copied)
        if known_by == "Core":
            connection.execute(sa.update(old_tide).values(id=3))
            connection.execute(sa.delete(old_tide))
        else:
            connection.execute(sa.text(f"UPDATE {SCHEMA}.sluice_tide SET id = 3"))
            connection.execute(sa.text(f"DELETE FROM {SCHEMA}.sluice_tide"))
        connection.execute(sa.text("DELETE FROM sluice_tide"))
    assert where(audit) == [("CREATE", "full", own), ("DELETE", "statement", own)]


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
def test_the_schema_that_is_meant_anyhow_may_be_named(engine: sa.Engine, driver: str) -> None:
    """Another object for the same table, and text, call it by its schema; the class does not."""
    with engine.connect() as connection:
        default = connection.dialect.default_schema_name
    again = sa.Table(
        "sluice_tide", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), schema=default
    )
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["sluice_tide", f"!{default}.*"]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit, engine.begin() as connection:
        connection.execute(sa.insert(tide).values(id=1, level=2))
        connection.execute(sa.update(again).values(id=3))
        connection.execute(sa.text(f"DELETE FROM {default}.sluice_tide"))
    assert [record.action for record in audit] == ["CREATE", "UPDATE", "DELETE"]


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "pymysql"], indirect=True)
def test_what_text_reads_is_told_with_the_schema_it_names(engine: sa.Engine, driver: str) -> None:
    own, other = namespaces(engine, driver)
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=[], reads=["sluice_tide", f"!{SCHEMA}.*"]))
    texts = ["SELECT * FROM sluice_tide", f"SELECT s.* FROM {SCHEMA}.sluice_tide AS s"]
    with engine.begin() as connection:
        connection.execute(sa.insert(tide).values(id=1, level=2))
        connection.exec_driver_sql(f"CREATE TABLE {SCHEMA}.sluice_tide (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql(f"INSERT INTO {SCHEMA}.sluice_tide VALUES (1)")
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit, engine.begin() as connection:
        for text in texts:
            connection.execute(sa.text(text)).all()
    assert [(record.action, record.database.namespace) for record in audit] == [
        ("READ", own),
        ("READ", other),
    ]
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit, engine.begin() as connection:
        told_of = sa.Table("sluice_tide", sa.MetaData(), sa.Column("id", sa.Integer), schema=SCHEMA)
        for text in texts:
            connection.execute(sa.text(text)).all()
        connection.execute(sa.select(told_of)).all()
    assert [(record.action, record.database.namespace) for record in audit] == [("READ", own)]
