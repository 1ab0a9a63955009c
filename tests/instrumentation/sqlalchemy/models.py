"""Models of every kind that an application may map."""

from __future__ import annotations

import datetime
import decimal
import enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    composite,
    mapped_column,
    relationship,
)


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    CALM = "c"
    ANGRY = "a"


class Reversed(sa.types.TypeDecorator[str]):
    """Stores a text backwards."""

    impl = sa.String(50)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.strip()[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]


class EncryptedText(Reversed):
    """Hides what it stores, as its name says."""

    cache_ok = True


class Point:
    def __init__(self, x: int | None, y: int | None) -> None:
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int | None, int | None]:
        return self.x, self.y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    __hash__ = None  # type: ignore[assignment]


shipment_tag = sa.Table(
    "shipment_tag",
    Base.metadata,
    sa.Column("shipment_id", sa.ForeignKey("shipment.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30), unique=True)


class Shipment(Base):
    __tablename__ = "shipment"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(sa.String(20))
    status: Mapped[str] = mapped_column("st", sa.String(20), default="new")
    weight: Mapped[int | None]
    tags: Mapped[list[Tag]] = relationship(secondary=shipment_tag)
    parcels: Mapped[list[Parcel]] = relationship(back_populates="shipment", cascade="all, delete-orphan")
    label = column_property(number + sa.literal("!"))


class Parcel(Base):
    __tablename__ = "parcel"

    id: Mapped[int] = mapped_column(primary_key=True)
    shipment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shipment.id"))
    note: Mapped[str | None] = mapped_column(sa.Text)
    shipment: Mapped[Shipment | None] = relationship(back_populates="parcels")


class Everything(Base):
    """One column of each kind of value."""

    __tablename__ = "everything"

    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[Mood | None] = mapped_column(sa.Enum(Mood))
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(10, 2))
    day: Mapped[datetime.date | None]
    data: Mapped[Any] = mapped_column(sa.JSON, nullable=True)
    tracked: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    backwards: Mapped[str | None] = mapped_column(Reversed)
    secret_text: Mapped[str | None] = mapped_column("hidden", EncryptedText)
    x: Mapped[int | None]
    y: Mapped[int | None]
    point: Mapped[Point] = composite("x", "y")
    flag: Mapped[bool | None]
    blob: Mapped[bytes | None]
    served: Mapped[int | None] = mapped_column(server_default="7")
    doubled: Mapped[int | None] = mapped_column(sa.Computed("x * 2"))


class Versioned(Base):
    __tablename__ = "versioned"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(30))
    version: Mapped[int] = mapped_column()
    touched: Mapped[int | None] = mapped_column(onupdate=5)

    __mapper_args__ = {"version_id_col": version}


class Pair(Base):
    """A composite key, none of it made by the database."""

    __tablename__ = "pair"

    left: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    right: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    value: Mapped[str | None] = mapped_column(sa.String(10))


class Person(Base):
    """Joined inheritance."""

    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30))
    kind: Mapped[str] = mapped_column(sa.String(10))

    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "person"}


class Engineer(Person):
    __tablename__ = "engineer"

    id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"), primary_key=True)
    language: Mapped[str | None] = mapped_column(sa.String(30))

    __mapper_args__ = {"polymorphic_identity": "engineer"}


class Animal(Base):
    """Single-table inheritance."""

    __tablename__ = "animal"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30))
    kind: Mapped[str] = mapped_column(sa.String(10))

    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "animal"}


class Dog(Animal):
    trick: Mapped[str | None] = mapped_column(sa.String(30))

    __mapper_args__ = {"polymorphic_identity": "dog"}


class Unaudited(Base):
    __tablename__ = "unaudited"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(30))
