"""G5: a key that is a secret stays one, in its own table and wherever another table refers to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.testing import CapturedAudit

SECRET = "q8Zr3vTt0nLw5yKx2bHd"
UUID = uuid.UUID("4f1f2a34-93c6-4a0b-8a8e-2a1c5b7d9e01")


class Base(DeclarativeBase):
    """The classes of this file."""


class Login(Base):
    __tablename__ = "login"

    session_key: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Visit(Base):
    __tablename__ = "visit"

    id: Mapped[int] = mapped_column(primary_key=True)
    login_id: Mapped[str] = mapped_column(sa.ForeignKey("login.session_key"))


class Step(Base):
    """Refers to a secret by a key that is one itself."""

    __tablename__ = "step"

    login_id: Mapped[str] = mapped_column(sa.ForeignKey("login.session_key"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class MagicLink(Base):
    __tablename__ = "link"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]


class Credential(Base):
    """Its secret stands beside its key, which so is what it seems to be."""

    __tablename__ = "credential"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    password: Mapped[str]


class Card(Base):
    __tablename__ = "card"

    id: Mapped[int] = mapped_column(primary_key=True)


class Payment(Base):
    __tablename__ = "payment"

    id: Mapped[int] = mapped_column(primary_key=True)
    card: Mapped[int] = mapped_column(sa.ForeignKey("card.id"))


@pytest.fixture
def driver() -> str:
    """One database: keys are judged before any is asked."""
    return "sqlite"


@pytest.fixture
def session(make_engine: Any, audit: CapturedAudit) -> Iterator[Session]:
    """A session whose database has the tables."""
    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def _written(session: Session, audit: CapturedAudit, *objects: Any) -> list[Any]:
    for each in objects:
        session.add(each)
        session.flush()
    session.commit()
    for each in objects:
        session.delete(each)
    session.commit()
    assert len(audit.records) == 2 * len(objects)
    return audit.records


@pytest.mark.parametrize(
    "objects",
    [
        [Login(session_key=SECRET, name="Ann")],
        [Login(session_key=SECRET, name="Ann"), Visit(id=1, login_id=SECRET)],
        [Login(session_key=SECRET, name="Ann"), Step(login_id=SECRET, number=7)],
    ],
    ids=lambda objects: type(objects[-1]).__name__,
)
def test_a_secret_key_is_on_no_record(session: Session, audit: CapturedAudit, objects: list[Any]) -> None:
    for record in _written(session, audit, *map(_copy, objects)):
        assert SECRET not in msgspec.json.encode(record).decode()
        assert record.completeness == "full"


def test_the_uuid_of_what_is_called_a_secret_is_one(session: Session, audit: CapturedAudit) -> None:
    for record in _written(session, audit, MagicLink(id=UUID, name="for Ann")):
        assert str(UUID) not in msgspec.json.encode(record).decode()


def test_a_uuid_beside_the_secret_is_a_key_like_others(session: Session, audit: CapturedAudit) -> None:
    for record in _written(session, audit, Credential(id=UUID, password=SECRET)):
        assert record.target is not None
        assert record.target.id == str(UUID)
        assert SECRET not in msgspec.json.encode(record).decode()


def test_a_foreign_key_called_like_a_secret_shows_the_number_of_a_row(
    session: Session, audit: CapturedAudit
) -> None:
    records = _written(session, audit, Card(id=3), Payment(id=1, card=3))
    changes = [change for record in records for change in record.changes if change.field == "card"]
    assert {change.new for change in changes if change.new} == {3}


def test_a_reference_to_a_table_that_is_not_there_costs_nothing(
    session: Session, audit: CapturedAudit
) -> None:
    lost = sa.Table(
        "lost", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("token", sa.Text)
    )
    lost.append_constraint(sa.ForeignKeyConstraint(["token"], ["nowhere.id"]))
    session.execute(sa.text("CREATE TABLE lost (id INTEGER PRIMARY KEY, token TEXT)"))
    session.execute(sa.insert(lost).values(id=1, token=SECRET))
    session.commit()
    (record,) = audit.records
    assert record.completeness == "full"
    assert SECRET not in msgspec.json.encode(record).decode()


def _copy(each: Any) -> Any:
    return type(each)(**{key: value for key, value in vars(each).items() if not key.startswith("_")})
