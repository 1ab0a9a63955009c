"""Identity columns of PostgreSQL: records have the keys and values that the database has made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.told import told


class IdentityBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Turbine(IdentityBase):
    """Its keys are the database's alone."""

    __tablename__ = "turbine"

    id: Mapped[int] = mapped_column(sa.Identity(always=True, start=40, increment=5), primary_key=True)
    name: Mapped[str]


class Anemometer(IdentityBase):
    """Its keys are the database's where the application gives none."""

    __tablename__ = "anemometer"

    id: Mapped[int] = mapped_column(sa.Identity(start=40, increment=5), primary_key=True)
    name: Mapped[str]


class Rudder(IdentityBase):
    """Its key is the application's, a number beside it the database's."""

    __tablename__ = "rudder"

    code: Mapped[str] = mapped_column(primary_key=True)
    serial: Mapped[int] = mapped_column(sa.Identity(always=True, start=700))


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(make_engine: Callable[..., sa.Engine]) -> Iterator[Session]:
    """A session whose database has the tables."""
    engine = make_engine()
    IdentityBase.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def created(model: type[Turbine | Anemometer], *rows: tuple[int, str]) -> list[Any]:
    return [("CREATE", f"{model.__name__}/{key}", "success", {"name": name}) for key, name in rows]


def stored(session: Session, model: type[Turbine | Anemometer]) -> list[Any]:
    """Return what records must say of the rows that the table has."""
    rows = session.connection().execute(sa.select(model.id, model.name).order_by(model.id)).all()
    return created(model, *[(key, name) for key, name in rows])


@pytest.mark.parametrize("model", [Turbine, Anemometer])
def test_the_unit_of_work(session: Session, audit: CapturedAudit, model: type[Turbine | Anemometer]) -> None:
    one = model(name="one")
    session.add(one)
    session.commit()
    session.add_all([model(name="two"), model(name="three")])
    session.commit()
    assert told(audit) == stored(session, model)
    assert [record.completeness for record in audit] == ["full", "full"]
    audit.clear()
    one.name = "first"
    session.commit()
    session.delete(one)
    session.commit()
    assert told(audit) == [
        ("UPDATE", f"{model.__name__}/40", "success", {"name": ("one", "first")}),
        ("DELETE", f"{model.__name__}/40", "success", {"name": ("first", None)}),
    ]


@pytest.mark.parametrize("model", [Turbine, Anemometer])
def test_core_inserts_without_a_key(
    session: Session, audit: CapturedAudit, model: type[Turbine | Anemometer]
) -> None:
    session.execute(sa.insert(model).values(name="one"))
    session.connection().execute(sa.insert(model), [{"name": "two"}, {"name": "three"}])
    session.execute(
        sa.insert(model).values([{"name": "four"}, {"name": "five"}]).returning(model.id, model.name)
    )
    session.commit()
    assert sorted(told(audit)) == stored(session, model)
    assert [row[1].partition("/")[2] for row in stored(session, model)] == ["40", "45", "50", "55", "60"]
    assert {record.completeness for record in audit} == {"full"}


def test_keys_that_the_application_gives_are_those_on_record(session: Session, audit: CapturedAudit) -> None:
    session.add_all([Anemometer(id=3, name="three"), Anemometer(id=1, name="one")])
    session.commit()
    session.execute(sa.insert(Anemometer).values(id=7, name="seven"))
    session.connection().execute(
        sa.insert(Anemometer), [{"id": 9, "name": "nine"}, {"id": 8, "name": "eight"}]
    )
    session.add(Anemometer(name="made"))
    session.commit()
    assert sorted(told(audit), key=lambda row: int(row[1].partition("/")[2])) == stored(session, Anemometer)
    assert told(audit)[-1:] == created(Anemometer, (40, "made"))


@pytest.mark.parametrize("way", ["flush", "core"])
def test_a_key_that_the_database_refuses_is_a_failure(
    session: Session, audit: CapturedAudit, way: str
) -> None:
    with pytest.raises(DBAPIError, match="GENERATED ALWAYS"):
        if way == "flush":
            session.add(Turbine(id=3, name="three"))
            session.commit()
        else:
            session.execute(sa.insert(Turbine).values(id=3, name="three"))
    session.rollback()
    assert [row[:3] for row in told(audit)] == [("CREATE", "Turbine/3", "failure")]
    assert stored(session, Turbine) == []


def test_an_identity_beside_the_key_is_recorded_as_it_was_made(
    session: Session, audit: CapturedAudit
) -> None:
    session.add_all([Rudder(code="a"), Rudder(code="b")])
    session.commit()
    rows = session.connection().execute(sa.select(Rudder.code, Rudder.serial).order_by(Rudder.code)).all()
    assert sorted(serial for _, serial in rows) == [700, 701]
    assert told(audit) == [
        ("CREATE", f"Rudder/{code}", "success", {"serial": serial}) for code, serial in rows
    ]
