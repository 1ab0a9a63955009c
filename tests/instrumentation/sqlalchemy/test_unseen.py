"""What we ask of the database nobody hears of, and tables in an odd state cost no detail."""

from __future__ import annotations

import decimal
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.declarative import DeferredReflection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Base, Shipment, Tag
from tests.instrumentation.sqlalchemy.told import told


@pytest.fixture(params=["sqlite", "psycopg", "mysqldb"])
def driver(request: pytest.FixtureRequest) -> str:
    """One driver of each database."""
    return str(request.param)


def test_echo_shows_the_statements_of_the_application_only(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(echo="debug")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Tag(name="a"), Tag(name="b")])
        session.commit()
        caplog.clear()
        caplog.set_level(logging.DEBUG, logger="sqlalchemy.engine")
        session.execute(sa.update(Tag).where(Tag.name == "a").values(name="c"))
        session.execute(sa.delete(Tag).where(Tag.name == "b"))
        session.commit()
    said = [
        each.getMessage()
        for each in caplog.records
        if each.name.startswith("sqlalchemy.engine") and each.levelno == logging.INFO
    ]
    statements = [each for each in said if each.startswith(("SELECT", "UPDATE", "DELETE", "SAVEPOINT"))]
    assert [each.partition(" ")[0] for each in statements] == ["UPDATE", "DELETE"]
    assert not [
        each for each in caplog.records if each.name.startswith("sqlalchemy") and "Col (" in each.getMessage()
    ]
    assert [row[0] for row in told(audit)][-2:] == ["UPDATE", "DELETE"]


class Uncached(sa.types.TypeDecorator[str]):
    """Says nothing of caching: SQLAlchemy warns of each statement that has it."""

    impl = sa.String(20)


class MoneyBase(DeclarativeBase):
    pass


class Purse(MoneyBase):
    __tablename__ = "purse"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
    owner: Mapped[str | None] = mapped_column(Uncached())


@pytest.mark.parametrize("how", ["always", "error"])
def test_our_statements_warn_of_nothing(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, how: Any
) -> None:
    engine = make_engine()
    MoneyBase.metadata.create_all(engine)
    purse: Any = Purse.__table__
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO purse (id, amount, owner) VALUES (1, 2.5, 'a')")
    audit.clear()
    # Another class each time: whether SQLAlchemy warns of a type, it remembers by the class.
    with warnings.catch_warnings(record=True) as caught, engine.begin() as connection:
        warnings.simplefilter(how)
        connection.execute(sa.text("SELECT 1"))
        connection.execute(purse.delete().where(purse.c.id == 1, purse.c.id < sa.literal_column("99")))
    assert not [each for each in caught if issubclass(each.category, SAWarning)]
    ((action, target, _, changes),) = told(audit)
    assert (action, target.partition("/")[2]) == ("DELETE", "1")
    assert changes["amount"] == ("2.50", None)


def test_the_application_is_warned_as_before(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session, pytest.warns(SAWarning, match="cartesian") as caught:
        session.execute(sa.select(Tag.name, Shipment.number)).all()
    assert caught[0].filename == __file__


def test_classes_that_are_reflected_later(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    engine = make_engine()

    class ReflectedBase(DeferredReflection, DeclarativeBase):
        pass

    name = f"gadget_{driver}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name VARCHAR(20))")
    gadget = type("Gadget", (ReflectedBase,), {"__tablename__": name, "__module__": __name__})
    with engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO {name} (id, name) VALUES (1, 'a')"))
    ReflectedBase.prepare(engine)
    with Session(engine) as session:
        session.add(gadget(id=2, name="b"))
        session.commit()
    first, second = audit.records
    assert (first.completeness, first.database.table) == ("statement", name)
    assert [(change.field, change.new) for change in second.changes] == [("name", "b")]
    assert not [each for each in caplog.records if each.name.startswith("otel_audit")]


def test_a_table_that_is_given_columns_later(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    table = sa.Table("growing", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE growing (id INTEGER PRIMARY KEY, name VARCHAR(20))")
        connection.execute(table.insert().values(id=1))
        table.append_column(sa.Column("name", sa.String(20)))
        connection.execute(table.insert().values(id=2, name="b"))
    assert [row[3] for row in told(audit)] == [{}, {"name": "b"}]


@pytest.fixture
def nameless() -> sa.Table:
    """A table without a name, which some build to compile fragments of SQL."""
    return sa.Table("", sa.MetaData(), sa.Column("id", sa.Integer))


def test_a_table_without_a_name(
    engine: sa.Engine, audit: CapturedAudit, nameless: sa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO unaudited (name) VALUES ('a')"))
        connection.execute(sa.text("INSERT INTO tag (name) VALUES ('a')"))
    assert [record.database.table for record in audit] == ["tag"]
    assert nameless.name == ""
    assert not [each for each in caplog.records if each.name.startswith("otel_audit")]
