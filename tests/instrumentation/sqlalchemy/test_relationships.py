"""Rows of many-to-many relationships name what stands at both ends, so that each end's history has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, ModelConfig, SQLAlchemyConfig
from otel_audit.testing import CapturedAudit


class Base(DeclarativeBase):
    pass


membership = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("user_id", sa.ForeignKey("m2m_user.id"), primary_key=True),
    sa.Column("group_id", sa.ForeignKey("m2m_group.id"), primary_key=True),
)
friendship = sa.Table(
    "friendship",
    Base.metadata,
    sa.Column("one_id", sa.ForeignKey("m2m_user.id"), primary_key=True),
    sa.Column("other_id", sa.ForeignKey("m2m_user.id"), primary_key=True),
)
keyless = sa.Table(
    "keyless",
    Base.metadata,
    sa.Column("user_id", sa.ForeignKey("m2m_user.id")),
    sa.Column("group_id", sa.ForeignKey("m2m_group.id")),
)
looked_at = sa.Table(
    "looked_at",
    Base.metadata,
    sa.Column("user_id", sa.ForeignKey("m2m_user.id"), primary_key=True),
    sa.Column("group_id", sa.ForeignKey("m2m_group.id"), primary_key=True),
)


class User(Base):
    __tablename__ = "m2m_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(10))
    groups: Mapped[list[Group]] = relationship(secondary=membership, back_populates="users")
    friends: Mapped[list[User]] = relationship(
        secondary=friendship,
        primaryjoin=lambda: User.id == friendship.c.one_id,
        secondaryjoin=lambda: User.id == friendship.c.other_id,
    )
    clubs: Mapped[list[Group]] = relationship(secondary=keyless)
    looks: Mapped[list[Group]] = relationship(secondary=looked_at, viewonly=True)
    shifts: Mapped[list[Shift]] = relationship(back_populates="user")
    shift_groups: Mapped[list[Group]] = relationship(secondary="m2m_shift", viewonly=True)


class Group(Base):
    __tablename__ = "m2m_group"
    id: Mapped[int] = mapped_column(primary_key=True)
    users: Mapped[list[User]] = relationship(secondary=membership, back_populates="groups")


class Shift(Base):
    """An object between two others, with something to say of its own."""

    __tablename__ = "m2m_shift"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("m2m_user.id"), primary_key=True)
    group_id: Mapped[int] = mapped_column(sa.ForeignKey("m2m_group.id"), primary_key=True)
    hours: Mapped[int | None]
    user: Mapped[User] = relationship(back_populates="shifts")


@pytest.fixture(params=("sqlite", "psycopg", "mysqldb"))
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config() -> AuditConfig:
    return AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.User", "tests.Group", "tests.Shift"]))


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([User(id=number, name=f"u{number}") for number in (1, 2, 3)])
        session.add_all([Group(id=number) for number in (1, 2, 3)])
        session.commit()
    return engine


@pytest.fixture
def session(engine: sa.Engine, audit: CapturedAudit) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def ends(record: AuditRecord) -> list[str]:
    return sorted(f"{end.type.removeprefix('tests.')}/{end.id}" for end in record.related)


def rows(audit: CapturedAudit, table: str) -> list[tuple[str, str, list[str]]]:
    """Return (action, outcome, ends) of the records of a table, and forget all."""
    found: list[tuple[str, str, list[str]]] = [
        (record.action, record.outcome, ends(record)) for record in audit if record.database.table == table
    ]
    audit.clear()
    return found


def test_append_remove_replace_and_clear_name_both_ends(session: Session, audit: CapturedAudit) -> None:
    user = session.get_one(User, 1)
    one, two, three = (session.get_one(Group, number) for number in (1, 2, 3))
    user.groups.append(one)
    session.commit()
    assert rows(audit, "membership") == [("CREATE", "success", ["Group/1", "User/1"])]
    user.groups.extend([two, three])
    session.commit()
    assert rows(audit, "membership") == [("CREATE", "success", ["Group/2", "Group/3", "User/1"])]
    user.groups.remove(two)
    session.commit()
    assert rows(audit, "membership") == [("DELETE", "success", ["Group/2", "User/1"])]
    user.groups = [two]
    session.commit()
    assert sorted(rows(audit, "membership")) == [
        ("CREATE", "success", ["Group/2", "User/1"]),
        ("DELETE", "success", ["Group/1", "Group/3", "User/1"]),
    ]
    user.groups.clear()
    session.commit()
    assert rows(audit, "membership") == [("DELETE", "success", ["Group/2", "User/1"])]


def test_it_is_the_same_from_the_other_side_and_once_from_both(
    session: Session, audit: CapturedAudit
) -> None:
    group = session.get_one(Group, 2)
    group.users.extend([session.get_one(User, 1), session.get_one(User, 3)])
    session.commit()
    assert rows(audit, "membership") == [("CREATE", "success", ["Group/2", "User/1", "User/3"])]
    one, three = session.get_one(User, 1), session.get_one(User, 3)
    one.groups.remove(group)
    group.users.remove(three)
    session.commit()
    assert sorted(rows(audit, "membership")) == [
        ("DELETE", "success", ["Group/2", "User/1"]),
        ("DELETE", "success", ["Group/2", "User/3"]),
    ]


def test_new_objects_and_those_that_are_deleted(session: Session, audit: CapturedAudit) -> None:
    user = User(id=9, name="new", groups=[Group(id=9)])
    session.add(user)
    session.commit()
    assert rows(audit, "membership") == [("CREATE", "success", ["Group/9", "User/9"])]
    session.delete(user)
    session.commit()
    assert rows(audit, "membership") == [("DELETE", "success", ["Group/9", "User/9"])]


def test_what_is_rolled_back_has_failed(session: Session, audit: CapturedAudit) -> None:
    user = session.get_one(User, 1)
    user.groups.append(session.get_one(Group, 1))
    session.flush()
    session.rollback()
    assert rows(audit, "membership") == [("CREATE", "failure", ["Group/1", "User/1"])]


def test_a_class_related_with_itself(session: Session, audit: CapturedAudit) -> None:
    one, two, three = (session.get_one(User, number) for number in (1, 2, 3))
    one.friends.append(two)
    session.commit()
    assert rows(audit, "friendship") == [("CREATE", "success", ["User/1", "User/2"])]
    two.friends.append(two)
    three.friends.append(one)
    session.commit()
    assert sorted(rows(audit, "friendship")) == [
        ("CREATE", "success", ["User/1", "User/3"]),
        ("CREATE", "success", ["User/2"]),
    ]
    one.friends.clear()
    session.commit()
    assert rows(audit, "friendship") == [("DELETE", "success", ["User/1", "User/2"])]


def test_a_table_between_that_has_no_primary_key(session: Session, audit: CapturedAudit) -> None:
    user = session.get_one(User, 1)
    user.clubs.extend([session.get_one(Group, 1), session.get_one(Group, 2)])
    session.commit()
    assert rows(audit, "keyless") == [("CREATE", "success", ["Group/1", "Group/2", "User/1"])]
    user.clubs.clear()
    session.commit()
    assert rows(audit, "keyless") == [("DELETE", "success", ["Group/1", "Group/2", "User/1"])]


def test_statements_of_the_application_on_the_table_between(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.begin() as connection:
        connection.execute(
            membership.insert(), [{"user_id": 1, "group_id": 1}, {"user_id": 2, "group_id": 1}]
        )
        connection.execute(membership.delete().where(membership.c.group_id == 1))
    both = ["Group/1", "User/1", "User/2"]
    assert rows(audit, "membership") == [("CREATE", "success", both), ("DELETE", "success", both)]


def test_a_relationship_that_is_only_viewed_owns_no_rows(engine: sa.Engine, audit: CapturedAudit) -> None:
    with engine.begin() as connection:
        connection.execute(looked_at.insert().values(user_id=1, group_id=1))
    assert list(audit) == []


def test_an_object_between_two_others_is_itself(session: Session, audit: CapturedAudit) -> None:
    session.add(Shift(user_id=1, group_id=2, hours=8))
    session.commit()
    record = audit.one()
    assert str(record.target) == "tests.Shift/[1,2]"
    assert {change.field for change in record.changes} == {"hours"}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.User"])), 1),
        (AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.Group"])), 1),
        (AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.Shift"])), 0),
        (AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["membership"])), 1),
        (AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.*", "!membership"])), 0),
        (
            AuditConfig(
                sqlalchemy=SQLAlchemyConfig(
                    models=["tests.*"], model={"membership": ModelConfig(fields={"group_id": "mask"})}
                )
            ),
            1,
        ),
    ],
    ids=["owner", "other owner", "neither", "table", "not the table", "redacted"],
)
@pytest.mark.parametrize("driver", ["sqlite"], indirect=True)
def test_the_owner_decides_unless_the_table_is_named(
    session: Session, audit: CapturedAudit, found: int, config: AuditConfig
) -> None:
    user = session.get_one(User, 1)
    user.groups.append(session.get_one(Group, 1))
    session.commit()
    named = [each for _, _, each in rows(audit, "membership")]
    redacted = bool(config.sqlalchemy.model)
    assert named == [["User/1"] if redacted else ["Group/1", "User/1"]] * found


def test_every_part_of_many_rows_names_the_ends_of_its_own(session: Session, audit: CapturedAudit) -> None:
    session.add_all([Group(id=number) for number in range(10, 1510)])
    session.commit()
    audit.clear()
    user = session.get_one(User, 1)
    user.groups.extend(session.scalars(sa.select(Group).where(Group.id >= 10)).all())
    session.commit()
    parts: list[Any] = [record for record in audit if record.database.table == "membership"]
    assert {end for part in parts for end in ends(part)} == {"User/1"} | {
        f"Group/{number}" for number in range(10, 1510)
    }
    assert all(len(part.related) == part.bulk.count + 1 for part in parts)
