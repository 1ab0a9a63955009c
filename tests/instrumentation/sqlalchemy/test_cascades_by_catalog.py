"""What the database does by foreign keys that only its catalog has: the metadata says nothing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.instrumentation.sqlalchemy.writes.cascades.rules import Rules
from tests.audited import audited
from tests.instrumentation.sqlalchemy.test_cascades import Auditing
from tests.instrumentation.sqlalchemy.told import told


class Bare(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Harbour(Bare):
    __tablename__ = "harbour"

    code: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str | None]


class Vessel(Bare):
    __tablename__ = "vessel"

    id: Mapped[int] = mapped_column(primary_key=True)
    harbour: Mapped[str | None]


class Sailor(Bare):
    """Goes with its cabin, which no class stands for."""

    __tablename__ = "sailor"

    id: Mapped[int] = mapped_column(primary_key=True)
    cabin: Mapped[int]


DDL = [
    "CREATE TABLE harbour (code VARCHAR(30) NOT NULL PRIMARY KEY, note VARCHAR(30))",
    """CREATE TABLE vessel (id INTEGER NOT NULL PRIMARY KEY, harbour VARCHAR(30),
       FOREIGN KEY (harbour) REFERENCES harbour (code) ON DELETE SET NULL ON UPDATE CASCADE)""",
    """CREATE TABLE cabin (id INTEGER NOT NULL PRIMARY KEY, vessel INTEGER,
       FOREIGN KEY (vessel) REFERENCES vessel (id) ON DELETE CASCADE)""",
    """CREATE TABLE sailor (id INTEGER NOT NULL PRIMARY KEY, cabin INTEGER,
       FOREIGN KEY (cabin) REFERENCES cabin (id) ON DELETE CASCADE)""",
    """CREATE TABLE mooring (id INTEGER NOT NULL PRIMARY KEY, harbour VARCHAR(30),
       FOREIGN KEY (harbour) REFERENCES harbour (code) ON DELETE CASCADE)""",
    "INSERT INTO harbour (code) VALUES ('kiel'), ('oslo')",
    "INSERT INTO vessel VALUES (1, 'kiel'), (2, 'oslo')",
    "INSERT INTO cabin VALUES (10, 1), (11, 1), (20, 2)",
    "INSERT INTO sailor VALUES (100, 10), (101, 11), (200, 20)",
    "INSERT INTO mooring VALUES (1, 'kiel')",
]


@pytest.fixture(params=["sqlite", "psycopg", "mysqldb"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    with engine.begin() as connection:
        for sql in DDL:
            connection.exec_driver_sql(sql)
    return engine


@pytest.fixture(params=[["*"]])
def auditing(request: pytest.FixtureRequest, engine: sa.Engine) -> Iterator[Auditing]:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=[*request.param]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield Auditing(engine, captured)


def test_rows_that_go_through_a_table_nobody_has_mapped(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.delete(session.get_one(Vessel, 1))
        session.commit()
        assert session.scalars(sa.select(Sailor.id)).all() == [200]
    assert sorted(told(audit), key=str) == [
        ("DELETE", "Sailor/100", "success", {"cabin": (10, None)}),
        ("DELETE", "Sailor/101", "success", {"cabin": (11, None)}),
        ("DELETE", "Vessel/1", "success", {"harbour": ("kiel", None)}),
    ]
    assert {record.completeness for record in audit} == {"full"}


@pytest.mark.parametrize("auditing", [["tests.Sailor", "tests.Vessel"]], indirect=True)
def test_what_is_not_audited_leads_to_what_is(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.execute(sa.delete(Harbour).where(Harbour.code == "kiel"))
        session.execute(sa.update(Harbour).where(Harbour.code == "oslo").values(code="bergen"))
        session.commit()
    assert told(audit) == [
        ("UPDATE", "Vessel/1", "success", {"harbour": ("kiel", None)}),
        ("UPDATE", "Vessel/2", "success", {"harbour": ("oslo", "bergen")}),
    ]


def test_text_is_followed_as_well(auditing: Auditing) -> None:
    engine, audit = auditing
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM vessel WHERE id = 1"))
        connection.connection.cursor().execute("DELETE FROM harbour WHERE code = 'oslo'")
    found = {(record.event_name.removeprefix("tests."), record.completeness) for record in audit}
    assert found == {
        ("vessel.delete", "statement"),
        ("sailor.delete", "statement"),
        ("harbour.delete", "statement"),
        ("vessel.update", "statement"),
    }


def test_the_catalog_is_asked_once_and_again_after_ddl(
    auditing: Auditing, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    ask = Rules._ask
    monkeypatch.setattr(Rules, "_ask", lambda *a: asked.append(a) or ask(*a))
    engine, audit = auditing
    with Session(engine) as session:
        session.add(Vessel(id=3))
        session.flush()
        session.execute(sa.update(Harbour).values(note="x"))
        assert asked == [], "nothing can follow"
        for number in (3, 4):
            session.execute(sa.delete(Vessel).where(Vessel.id == number))
        session.execute(sa.update(Harbour).where(Harbour.code == "nowhere").values(code="here"))
        assert len(asked) == 1
        session.execute(
            sa.text(
                "CREATE TABLE log_entry (id INTEGER PRIMARY KEY, sailor INTEGER, "
                "FOREIGN KEY (sailor) REFERENCES sailor (id) ON DELETE CASCADE)"
            )
        )
        session.execute(sa.text("INSERT INTO log_entry VALUES (1, 200)"))
        session.commit()
        entries = sa.Table("log_entry", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
        audit.clear()
        session.execute(sa.delete(Sailor).where(Sailor.id == 200))
        session.commit()
        assert len(asked) == 2
        assert session.execute(sa.select(entries)).all() == []
    assert {record.event_name: record.completeness for record in audit} == {
        "tests.sailor.delete": "full",
        "log_entry.delete": "statement",  # which rows, only a column that is not declared would tell
    }
