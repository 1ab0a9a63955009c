"""Rows that the database deletes or changes with others, by the rules of foreign keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told


@pytest.fixture(params=["sqlite", "psycopg", "mysqldb"])
def driver(request: pytest.FixtureRequest) -> str:
    """One driver of each database: what differs is theirs."""
    return str(request.param)


class Base(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Depot(Base):
    __tablename__ = "depot"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    shelves: Mapped[list[Shelf]] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Shelf(Base):
    """Goes with its depot; not audited in some tests, though what stands on it is."""

    __tablename__ = "shelf"

    id: Mapped[int] = mapped_column(primary_key=True)
    depot_id: Mapped[int] = mapped_column(sa.ForeignKey("depot.id", ondelete="CASCADE"))
    code: Mapped[str]


class Crate(Base):
    """Goes with its shelf."""

    __tablename__ = "crate_on_shelf"

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelf.id", ondelete="CASCADE"))
    label: Mapped[str]


class Driver(Base):
    """Stays, without a depot."""

    __tablename__ = "driver"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    depot_id: Mapped[int | None] = mapped_column(sa.ForeignKey("depot.id", ondelete="SET NULL"))


class Node(Base):
    """Refers to itself."""

    __tablename__ = "node"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("node.id", ondelete="CASCADE"))


class Route(Base):
    __tablename__ = "route"

    origin: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Stop(Base):
    """A foreign key of two columns."""

    __tablename__ = "stop"

    id: Mapped[int] = mapped_column(primary_key=True)
    origin: Mapped[str]
    number: Mapped[int]

    __table_args__ = (
        sa.ForeignKeyConstraint(["origin", "number"], ["route.origin", "route.number"], ondelete="CASCADE"),
    )


class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


class Letter(Base):
    """Refers to another column than the key."""

    __tablename__ = "letter"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(sa.ForeignKey("customer.email", ondelete="CASCADE"))


class Stamp(Base):
    """What a rule would do that the database does not have."""

    __tablename__ = "stamp"

    id: Mapped[int] = mapped_column(primary_key=True)
    letter_id: Mapped[int] = mapped_column(sa.ForeignKey("letter.id", ondelete="CASCADE"))


depot: Any = Depot.__table__


class Auditing(NamedTuple):
    engine: sa.Engine
    audit: CapturedAudit


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture(params=[["*"]])
def auditing(request: pytest.FixtureRequest, engine: sa.Engine) -> Iterator[Auditing]:
    """The records of a test; its parameter is what is audited, and settings of the section."""
    patterns, settings = [*request.param], {}
    if patterns and isinstance(patterns[-1], dict):
        settings = patterns.pop()
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=patterns, **settings))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield Auditing(engine, captured)


@contextmanager
def filled(auditing: Auditing) -> Iterator[Session]:
    """A session whose database has the rows, of which nothing is on record."""
    with Session(auditing.engine) as session:
        fill(session)
        session.commit()
        auditing.audit.clear()
        yield session


def fill(session: Session) -> None:
    session.add_all(
        [
            Depot(id=1, name="north"),
            Depot(id=2, name="south"),
            Customer(id=1, email="a"),
            Node(id=1, name="root"),
        ]
    )
    session.flush()
    session.add_all(
        [
            Shelf(id=1, depot_id=1, code="A"),
            Shelf(id=2, depot_id=1, code="B"),
            Shelf(id=3, depot_id=2, code="C"),
            Driver(id=1, name="Ann", depot_id=1),
            Letter(id=1, email="a"),
            Node(id=2, name="leaf", parent_id=1),
        ]
    )
    session.flush()
    session.add_all([Crate(id=1, shelf_id=1, label="x"), Crate(id=2, shelf_id=3, label="y")])
    session.add(Node(id=3, name="tip", parent_id=2))
    session.flush()


GONE = [
    ("DELETE", "Depot/1", "success", {"name": ("north", None)}),
    ("DELETE", "Shelf/1", "success", {"depot_id": (1, None), "code": ("A", None)}),
    ("DELETE", "Shelf/2", "success", {"depot_id": (1, None), "code": ("B", None)}),
    ("UPDATE", "Driver/1", "success", {"depot_id": (1, None)}),
    ("DELETE", "Crate/1", "success", {"shelf_id": (1, None), "label": ("x", None)}),
]


def by_target(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: (row[0], row[1]))


WAYS: dict[str, Callable[[Session], Any]] = {
    "flush": lambda session: session.delete(session.get_one(Depot, 1)),
    "by key": lambda session: session.execute(sa.delete(Depot).where(Depot.id == 1)),
    "by where": lambda session: session.execute(sa.delete(Depot).where(Depot.name == "north")),
    "core": lambda session: session.connection().execute(depot.delete().where(depot.c.name.like("nor%"))),
}


@pytest.mark.parametrize("way", WAYS)
def test_they_are_told_as_deletes_and_updates_of_their_own(auditing: Auditing, way: str) -> None:
    audit = auditing.audit
    with filled(auditing) as session:
        WAYS[way](session)
        session.flush()
        assert told(audit) == []
        session.commit()
        assert session.scalars(sa.select(Driver.depot_id)).all() == [None]
    assert by_target(told(audit)) == by_target(GONE)
    assert {record.completeness for record in audit} == {"full"}
    assert len({record.database.transaction for record in audit}) == 1


@pytest.mark.parametrize("way", WAYS)
def test_they_share_the_outcome(auditing: Auditing, way: str) -> None:
    audit = auditing.audit
    with filled(auditing) as session:
        WAYS[way](session)
        session.flush()
        session.rollback()
    assert by_target(told(audit)) == by_target([(a, b, "failure", d) for a, b, _, d in GONE])


@pytest.mark.parametrize("auditing", [["tests.Crate"], ["tests.Crate", "tests.Depot"]], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_audited_leads_to_what_is(auditing: Auditing, way: str) -> None:
    audit = auditing.audit
    with filled(auditing) as session:
        WAYS[way](session)
        session.commit()
    crates = [row for row in told(audit) if row[1].startswith("Crate")]
    assert crates == [GONE[-1]]
    assert not [row for row in told(audit) if row[1].startswith(("Shelf", "Driver"))]


def test_rows_that_refer_to_each_other(auditing: Auditing) -> None:
    audit = auditing.audit
    with filled(auditing) as session:
        session.execute(sa.delete(Node).where(Node.id == 1))
        session.commit()
        assert [row[1] for row in told(audit)] == ["Node/1", "Node/2", "Node/3"]
        fill_nodes(session)
        audit.clear()
        session.execute(sa.delete(Node).where(Node.name != "root"))
        session.execute(sa.delete(Node))
        session.commit()
    assert sorted(row[1] for row in told(audit)) == ["Node/1", "Node/2", "Node/3"]
    assert {row[0] for row in told(audit)} == {"DELETE"}


def fill_nodes(session: Session) -> None:
    for number, parent in ((1, None), (2, 1), (3, 2)):
        session.add(Node(id=number, name="root" if number == 1 else "n", parent_id=parent))
        session.flush()
    session.commit()


def test_keys_of_several_columns_and_keys_that_are_none(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.add_all([Route(origin="a", number=1), Route(origin="a", number=2)])
        session.add_all([Customer(id=1, email="c"), Customer(id=2, email="d")])
        session.flush()
        session.add_all([Stop(id=1, origin="a", number=1), Stop(id=2, origin="a", number=2)])
        session.add_all([Letter(id=1, email="c"), Letter(id=2, email="d")])
        session.commit()
        audit.clear()
        session.execute(sa.delete(Route).where(Route.number == 2))
        session.execute(sa.delete(Customer).where(Customer.email == "d"))
        session.delete(session.get_one(Customer, 1))
        session.commit()
    assert [row[1] for row in told(audit) if row[1].startswith(("Stop", "Letter"))] == [
        "Stop/2",
        "Letter/2",
        "Letter/1",
    ]


@pytest.mark.parametrize("auditing", [["*", {"max_bulk_rows": 1, "max_bulk_ids": 1}]], indirect=True)
def test_more_than_the_limit_is_said(auditing: Auditing) -> None:
    audit = auditing.audit
    with filled(auditing) as session:
        session.execute(sa.delete(Depot).where(Depot.id == 1))
        session.commit()
    found = {(record.event_name.removeprefix("tests."), record.completeness) for record in audit}
    assert found == {
        ("depot.delete", "full"),
        ("driver.update", "full"),
        ("shelf.delete", "statement"),
        ("crate.delete", "statement"),
    }


@pytest.mark.parametrize(
    "auditing", [["*"], ["*", "!tests.Depot"], ["*", "!tests.Depot", "!tests.Shelf"]], indirect=True
)
def test_what_follows_a_delete_by_text_is_said(auditing: Auditing, request: pytest.FixtureRequest) -> None:
    audit = auditing.audit
    with filled(auditing) as session:
        session.execute(sa.text("DELETE FROM depot WHERE id = 99"))
        session.execute(sa.text("UPDATE depot SET name = 'x' WHERE id = 99"))
        session.commit()
        assert told(audit) == []
        session.execute(sa.text("DELETE FROM depot WHERE id = 1"))
        session.commit()
    found = {(record.event_name.removeprefix("tests."), record.completeness) for record in audit}
    expected = {
        ("depot.delete", "statement"),
        ("shelf.delete", "statement"),
        ("crate.delete", "statement"),
        ("driver.update", "statement"),
    }
    excluded = {name.removeprefix("!tests.").lower() for name in request.node.callspec.params["auditing"]}
    assert found == {each for each in expected if each[0].partition(".")[0] not in excluded}
    assert {record.outcome for record in audit} == {"success"}


def test_what_the_database_does_not_do_is_not_told(auditing: Auditing) -> None:
    """The metadata says CASCADE, the table was made without it."""
    engine, audit = auditing
    with Session(engine) as session:
        fill(session)
        session.commit()
        Base.metadata.tables["stamp"].drop(engine)
        session.execute(sa.text("CREATE TABLE stamp (id INTEGER PRIMARY KEY, letter_id INTEGER)"))
        session.commit()
        session.add(Stamp(id=1, letter_id=1))
        session.commit()
        audit.clear()
        session.execute(sa.delete(Letter))
        session.commit()
    assert [row[1] for row in told(audit)] == ["Letter/1"]


def test_without_foreign_keys_sqlite_does_nothing(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, driver: str
) -> None:
    if driver != "sqlite":
        return
    engine = make_engine()
    Base.metadata.create_all(engine)
    with filled(Auditing(engine, audit)) as session:
        session.execute(sa.delete(Depot).where(Depot.id == 1))
        session.commit()
    assert [row[1] for row in told(audit)] == ["Depot/1"]


def test_a_delete_that_is_refused_tells_of_itself_only(auditing: Auditing) -> None:
    engine, audit = auditing
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE bar (id INTEGER PRIMARY KEY, depot_id INTEGER, "
            "FOREIGN KEY (depot_id) REFERENCES depot (id))"
        )
    with Session(engine) as session:
        fill(session)
        session.execute(sa.text("INSERT INTO bar VALUES (1, 1)"))
        session.commit()
        audit.clear()
        with pytest.raises(IntegrityError):
            session.execute(sa.delete(Depot).where(Depot.id == 1))
        session.rollback()
    assert [row[:3] for row in told(audit)] == [("DELETE", "Depot/1", "failure")]


def test_autocommit(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        fill(session)
        session.commit()
    audit.clear()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(depot.delete().where(depot.c.id == 1))
    assert by_target(told(audit)) == by_target(GONE)


def test_many_rows_of_one_statement(auditing: Auditing) -> None:
    engine, audit = auditing
    numbers = range(10, 1210)
    with Session(engine) as session:
        session.execute(sa.insert(Depot), [{"id": n, "name": "d"} for n in numbers])
        session.execute(sa.insert(Shelf), [{"id": n, "depot_id": n, "code": "s"} for n in numbers])
        session.commit()
        audit.clear()
        session.execute(sa.delete(Depot).where(Depot.name == "d"))
        session.commit()
    for kind in ("Depot", "Shelf"):
        rows = [row[1] for row in told(audit) if row[1].startswith(kind)]
        assert sorted(rows) == sorted(f"{kind}/{n}" for n in numbers)


def test_a_table_without_rules_costs_no_statement(
    auditing: Auditing, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_audit.instrumentation.sqlalchemy.writes.stored import rows

    engine, _ = auditing
    sent: list[str] = []
    execute = rows._Silent.execute
    driver = rows._Silent.exec_driver_sql
    monkeypatch.setattr(rows._Silent, "execute", lambda *a, **k: sent.append("execute") or execute(*a, **k))
    monkeypatch.setattr(rows._Silent, "exec_driver_sql", lambda *a, **k: sent.append(a[1]) or driver(*a, **k))
    with Session(engine) as session:
        session.add(Route(origin="z", number=9))
        session.add(Driver(id=5, name="Bo"))
        session.commit()
        one = session.scalars(sa.select(Driver).where(Driver.id == 5)).one()
        session.execute(sa.delete(Route))  # asks the catalog, once
        sent.clear()
        session.delete(one)
        session.flush()
        assert sent == []
        session.rollback()
