"""The tables of the ground truth: every way to map a table that the workload writes."""

from __future__ import annotations

import datetime
import enum
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    Computed,
    Dialect,
    Enum,
    ForeignKey,
    Integer,
    Numeric,
    String,
    Table,
    Uuid,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, deferred, mapped_column, relationship
from sqlalchemy.types import TypeDecorator


class Base(DeclarativeBase):
    type_annotation_map = {str: String(60)}


class Cents(TypeDecorator[Decimal]):
    """An amount in Python, cents in the database."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value * 100)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value) / 100


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = "cross"


@dataclass
class Point:
    x: int | None
    y: int | None


_ticks = iter(range(1, 10**9))

keeper_label = Table(
    "keeper_label",
    Base.metadata,
    Column("keeper_id", ForeignKey("keeper.id"), primary_key=True),
    Column("label_code", ForeignKey("label.code"), primary_key=True),
)
keeper_friend = Table(  # as many applications have it: no primary key
    "keeper_friend",
    Base.metadata,
    Column("keeper_id", ForeignKey("keeper.id"), nullable=False),
    Column("friend_id", ForeignKey("keeper.id"), nullable=False),
)
stock = Table(  # no class
    "stock",
    Base.metadata,
    Column("sku", String(40), primary_key=True),
    Column("quantity", Integer, nullable=False),
    Column("place", String(40)),
    Column("touched", Integer, default=0, onupdate=lambda: next(_ticks)),
)


class Keeper(Base):
    __tablename__ = "keeper"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    rank: Mapped[int | None]
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=Decimal("1.50"))
    price: Mapped[Decimal | None] = mapped_column(Cents)
    active: Mapped[bool] = mapped_column(default=True)
    mood: Mapped[Mood] = mapped_column(Enum(Mood), default=Mood.CALM)
    since: Mapped[datetime.datetime | None]
    facts: Mapped[Any] = mapped_column(JSON, nullable=True)
    traits: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON()), default=dict)
    numbers: Mapped[list[int] | None] = mapped_column(
        ARRAY(Integer).with_variant(JSON(), "sqlite", "mysql", "mariadb")
    )
    wide: Mapped[int | None] = mapped_column("breadth")
    px: Mapped[int | None]
    py: Mapped[int | None]
    point: Mapped[Point] = composite("px", "py")
    story: Mapped[str | None] = deferred(mapped_column(String(200)))
    doubled: Mapped[int | None] = mapped_column(Integer, Computed("rank * 2", persisted=True))
    made: Mapped[str] = mapped_column(server_default="by the server")
    touched: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(_ticks))
    version: Mapped[int] = mapped_column()

    animals: Mapped[list[Creature]] = relationship(back_populates="keeper", cascade="all, delete-orphan")
    labels: Mapped[list[Label]] = relationship(secondary=keeper_label, back_populates="keepers")
    friends: Mapped[list[Keeper]] = relationship(
        secondary=keeper_friend,
        primaryjoin="Keeper.id == keeper_friend.c.keeper_id",
        secondaryjoin="Keeper.id == keeper_friend.c.friend_id",
        back_populates="friend_of",
    )
    # The rows that name it as a friend go with it, too.
    friend_of: Mapped[list[Keeper]] = relationship(
        secondary=keeper_friend,
        primaryjoin="Keeper.id == keeper_friend.c.friend_id",
        secondaryjoin="Keeper.id == keeper_friend.c.keeper_id",
        back_populates="friends",
    )

    __mapper_args__ = {"version_id_col": version}

    @hybrid_property
    def width(self) -> int | None:
        return self.wide

    @width.inplace.setter
    def _set_width(self, value: int | None) -> None:
        self.wide = value


class Creature(Base):
    __tablename__ = "animal"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    weight: Mapped[int | None]
    keeper_id: Mapped[int | None] = mapped_column(ForeignKey("keeper.id"))
    keeper: Mapped[Keeper | None] = relationship(back_populates="animals")
    visits: Mapped[list[Visit]] = relationship(back_populates="animal", cascade="all", passive_deletes=True)


class Visit(Base):
    """Gone with its animal, by a rule of the database."""

    __tablename__ = "visit"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    animal_id: Mapped[int] = mapped_column(ForeignKey("animal.id", ondelete="CASCADE"))
    animal: Mapped[Creature] = relationship(back_populates="visits")


class Label(Base):
    __tablename__ = "label"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    text: Mapped[str | None]
    keepers: Mapped[list[Keeper]] = relationship(secondary=keeper_label, back_populates="labels")


class Line(Base):
    __tablename__ = "line"

    order: Mapped[int] = mapped_column("order_no", primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column("line_no", primary_key=True, autoincrement=False)
    quantity: Mapped[int]
    note: Mapped[str | None]


class Member(Base):
    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Manager(Member):
    __tablename__ = "manager"

    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    level: Mapped[int]

    __mapper_args__ = {"polymorphic_identity": "manager"}


class Builder(Member):
    __tablename__ = "engineer"

    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    tongue: Mapped[str]

    __mapper_args__ = {"polymorphic_identity": "engineer"}


class Vehicle(Base):
    __tablename__ = "vehicle"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Car(Vehicle):
    doors: Mapped[int | None]

    __mapper_args__ = {"polymorphic_identity": "car"}


class Bike(Vehicle):
    gears: Mapped[int | None]

    __mapper_args__ = {"polymorphic_identity": "bike"}


class Sheet(Base):
    __tablename__ = "sheet"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Poster(Sheet):
    __tablename__ = "poster"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    size: Mapped[int]

    __mapper_args__ = {"concrete": True}


class Voucher(Base):
    __tablename__ = "voucher"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    count: Mapped[int]


class Tally(Base):
    """What upserts count."""

    __tablename__ = "tally"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    count: Mapped[int]
    note: Mapped[str | None]


WATCHED: list[Table] = list(Base.metadata.sorted_tables)
