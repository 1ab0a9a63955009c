"""Rows that the database changes because those they refer to have other keys now: ``ON UPDATE CASCADE``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.test_cascades import Auditing
from tests.instrumentation.sqlalchemy.told import told


class Named(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class Warden(Named):
    """Has a key that means something, and may change."""

    __tablename__ = "warden"

    name: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str | None]


class Badge(Named):
    """Follows its keeper, and is followed by its locker."""

    __tablename__ = "badge"

    id: Mapped[int] = mapped_column(primary_key=True)
    keeper: Mapped[str] = mapped_column(sa.ForeignKey("warden.name", onupdate="CASCADE"), unique=True)


class Locker(Named):
    """Refers to what a rule changes."""

    __tablename__ = "locker"

    id: Mapped[int] = mapped_column(primary_key=True)
    badge: Mapped[str] = mapped_column(sa.ForeignKey("badge.keeper", onupdate="CASCADE"))


class Parking(Named):
    """Loses its keeper."""

    __tablename__ = "parking"

    id: Mapped[int] = mapped_column(primary_key=True)
    keeper: Mapped[str | None] = mapped_column(sa.ForeignKey("warden.name", onupdate="SET NULL"))


class Turn(Named):
    """What refers to the keeper is part of its own key."""

    __tablename__ = "turn"

    keeper: Mapped[str] = mapped_column(sa.ForeignKey("warden.name", onupdate="CASCADE"), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Swap(Named):
    """Refers to a key that follows."""

    __tablename__ = "swap"
    __table_args__ = (
        sa.ForeignKeyConstraint(["keeper", "day"], ["turn.keeper", "turn.day"], onupdate="CASCADE"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    keeper: Mapped[str]
    day: Mapped[int]


class Rung(Named):
    """Refers to its own kind."""

    __tablename__ = "rung"

    code: Mapped[str] = mapped_column(primary_key=True)
    below: Mapped[str | None] = mapped_column(sa.ForeignKey("rung.code", onupdate="CASCADE"))


warden: Any = Warden.__table__


@pytest.fixture(params=["sqlite", "psycopg", "mysqldb"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    Named.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Warden(name="ann"), Warden(name="bob")])
        session.flush()
        session.add_all([Badge(id=1, keeper="ann"), Badge(id=2, keeper="bob")])
        session.add_all([Parking(id=1, keeper="ann"), Parking(id=2, keeper="bob")])
        session.flush()
        session.add_all([Locker(id=1, badge="ann"), Locker(id=2, badge="bob")])
        session.commit()
    return engine


@pytest.fixture(params=[["*"]])
def auditing(request: pytest.FixtureRequest, engine: sa.Engine) -> Iterator[Auditing]:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=[*request.param]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield Auditing(engine, captured)


WAYS: dict[str, Callable[[Session], Any]] = {
    "flush": lambda session: setattr(session.get_one(Warden, "ann"), "name", "eve"),
    "by key": lambda session: session.execute(
        sa.update(Warden).where(Warden.name == "ann").values(name="eve")
    ),
    "by where": lambda session: session.execute(
        sa.update(Warden).where(Warden.name.like("a%")).values(name="eve")
    ),
    "core": lambda session: session.connection().execute(
        warden.update().where(warden.c.name == sa.bindparam("who")), [{"who": "ann", "name": "eve"}]
    ),
    "expression": lambda session: session.execute(
        sa.update(Warden).where(Warden.name == "ann").values(name=sa.func.replace(Warden.name, "ann", "eve"))
    ),
}
FOLLOWED = [
    ("UPDATE", "Badge/1", "success", {"keeper": ("ann", "eve")}),
    ("UPDATE", "Locker/1", "success", {"badge": ("ann", "eve")}),
    ("UPDATE", "Parking/1", "success", {"keeper": ("ann", None)}),
]


def followers(audit: CapturedAudit) -> list[Any]:
    return sorted((row for row in told(audit) if not row[1].startswith("Warden")), key=lambda row: row[1])


@pytest.mark.parametrize("way", WAYS)
def test_they_are_told_as_updates_of_their_own(auditing: Auditing, way: str) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        WAYS[way](session)
        session.flush()
        assert told(audit) == []
        session.commit()
        assert session.scalars(sa.select(Badge.keeper).order_by(Badge.id)).all() == ["eve", "bob"]
    assert followers(audit) == FOLLOWED
    assert {(record.completeness, record.outcome) for record in audit} == {("full", "success")}
    assert len({record.database.transaction for record in audit}) == 1


@pytest.mark.parametrize("auditing", [["tests.Locker"], ["tests.Locker", "tests.Parking"]], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_audited_leads_to_what_is(auditing: Auditing, way: str) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        WAYS[way](session)
        session.flush()
        session.rollback()
        WAYS[way](session)
        session.commit()
    wanted = {row[1] for row in told(audit)}
    assert "Locker/1" in wanted
    assert wanted <= {"Locker/1", "Parking/1"}
    both = [(*row[:2], outcome, row[3]) for row in FOLLOWED for outcome in ("failure", "success")]
    assert followers(audit) == sorted((row for row in both if row[1] in wanted), key=lambda row: row[1])


def test_rows_that_keep_their_keys_lead_nowhere(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.execute(sa.update(Warden).values(note="x"))
        session.execute(sa.update(Warden).where(Warden.name == "ann").values(name="ann", note="y"))
        session.get_one(Warden, "bob").note = "z"
        session.commit()
    assert followers(audit) == []
    assert told(audit)


KNOWN_WAYS = [way for way in WAYS if way != "expression"]


@pytest.mark.parametrize("way", KNOWN_WAYS)
def test_rows_whose_own_key_follows_are_told_by_the_key_they_had(auditing: Auditing, way: str) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.add_all([Turn(keeper="ann", day=1), Turn(keeper="ann", day=2), Turn(keeper="bob", day=1)])
        session.flush()
        session.add_all([Swap(id=7, keeper="ann", day=1), Swap(id=8, keeper="bob", day=1)])
        session.commit()
        audit.clear()
        WAYS[way](session)
        session.commit()
        turns = session.execute(sa.select(Turn.keeper, Turn.day).order_by(Turn.keeper, Turn.day)).all()
        assert [tuple(turn) for turn in turns] == [("bob", 1), ("eve", 1), ("eve", 2)]
    (changed,) = [record for record in audit if record.event_name == "tests.turn.update"]
    assert (changed.completeness, changed.outcome, changed.old_values) == ("full", "success", "exact")
    assert changed.bulk is not None
    assert changed.bulk.keys == ['["ann",1]', '["ann",2]']
    assert [(each.field, each.old, each.new) for each in changed.bulk.columns] == [
        ("keeper", ["ann", "ann"], ["eve", "eve"])
    ]
    assert [row for row in told(audit) if row[1].startswith("Swap")] == [
        ("UPDATE", "Swap/7", "success", {"keeper": ("ann", "eve")})
    ]


def test_what_a_rolled_back_update_gave_other_keys_failed(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.add(Turn(keeper="ann", day=1))
        session.commit()
        audit.clear()
        session.execute(sa.update(Warden).where(Warden.name == "ann").values(name="eve"))
        session.rollback()
    outcomes = {record.event_name: record.outcome for record in audit}
    assert "tests.turn.update" in outcomes
    assert set(outcomes.values()) == {"failure"}


def test_a_key_that_only_the_database_can_make_is_said(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        WAYS["expression"](session)
        session.commit()
        assert not [record for record in audit if record.event_name == "tests.turn.update"], "has no rows"
        session.add(Turn(keeper="eve", day=1))
        session.commit()
        audit.clear()
        session.execute(sa.update(Warden).where(Warden.name == "eve").values(name=sa.func.lower("IVY")))
        session.commit()
        assert session.scalars(sa.select(Turn.keeper)).all() == ["ivy"]
    assert {record.event_name: record.completeness for record in audit if "turn" in record.event_name} == {
        "tests.turn.update": "statement"
    }


def test_keys_that_several_sets_of_parameters_hand_on(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.add_all([Turn(keeper="ann", day=1), Turn(keeper="bob", day=1)])
        session.commit()
        audit.clear()
        statement = warden.update().where(warden.c.name == sa.bindparam("who"))
        session.connection().execute(
            statement, [{"who": "bob", "name": "cyd"}, {"who": "ann", "name": "bob"}]
        )
        session.commit()
        assert sorted(session.scalars(sa.select(Turn.keeper))) == ["bob", "cyd"]
        (changed,) = [record for record in audit if record.event_name == "tests.turn.update"]
        assert changed.completeness == "full"
        assert changed.bulk is not None
        columns = [(each.field, each.old, each.new) for each in changed.bulk.columns]
        assert columns == [("keeper", ["ann", "bob"], ["bob", "cyd"])]
        audit.clear()
        session.connection().execute(
            statement, [{"who": "cyd", "name": "dan"}, {"who": "dan", "name": "eli"}]
        )
        session.commit()
        assert sorted(session.scalars(sa.select(Turn.keeper))) == ["bob", "eli"]
    (said,) = [record for record in audit if record.event_name == "tests.turn.update"]
    assert said.completeness == "statement", "which key it had in between does not tell which it has"


@pytest.mark.parametrize("driver", ["sqlite", "psycopg"], indirect=True)  # InnoDB refuses such an UPDATE
def test_a_row_that_refers_to_its_own_kind_follows_with_both_changes(auditing: Auditing) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.add_all([Rung(code="r"), Rung(code="s", below="r"), Rung(code="t", below="s")])
        session.commit()
        audit.clear()
        session.execute(sa.update(Rung).where(Rung.code == "r").values(code="q"))
        session.commit()
        assert session.get_one(Rung, "s", populate_existing=True).below == "q"
    assert sorted(told(audit), key=str) == [
        ("UPDATE", "Rung/r", "success", {"code": ("r", "q")}),
        ("UPDATE", "Rung/s", "success", {"below": ("r", "q")}),
    ]
    with Session(engine) as session:
        audit.clear()
        table: Any = Rung.__table__
        session.connection().execute(
            table.update().where(table.c.code == sa.bindparam("who")),
            [{"who": "s", "code": "s2"}, {"who": "q", "code": "q2"}],
        )
        session.commit()
        rows = {(each.code, each.below) for each in session.scalars(sa.select(Rung))}
        assert rows == {("q2", None), ("s2", "q2"), ("t", "s2")}
    assert {record.completeness for record in audit} == {"full"}
    followed = [row for row in flat(audit) if row[1] == "below"]
    assert sorted(followed) == [("s", "below", "q", "q2"), ("t", "below", "s", "s2")]


def flat(audit: CapturedAudit) -> list[tuple[Any, ...]]:
    """Return each change of each row: the key, the field, old and new."""
    found = []
    for record in audit:
        if record.bulk is None:
            found += [
                (record.target and record.target.id, each.field, each.old, each.new)
                for each in record.changes
            ]
            continue
        for each in record.bulk.columns:
            rows = zip(record.bulk.keys, each.old or (), each.new or (), strict=True)
            found += [(key, each.field, old, new) for key, old, new in rows]
    return found


@pytest.mark.parametrize(
    ("sql", "follow"),
    [
        ("UPDATE warden SET name = 'eve' WHERE name = 'ann'", True),
        ("UPDATE warden SET note = 'x' WHERE name = 'ann'", False),
        ("update warden set note = 'x', name='eve' where note is null and name = 'ann'", True),
        ("UPDATE warden SET name = 'eve' WHERE name = 'nobody'", False),
    ],
)
def test_what_follows_an_update_by_text_is_said(auditing: Auditing, sql: str, follow: bool) -> None:
    engine, audit = auditing
    with Session(engine) as session:
        session.execute(sa.text(sql))
        session.commit()
    names = {record.event_name for record in audit} - {"tests.warden.update"}
    kinds = ("badge", "locker", "parking", "swap", "turn")
    assert names == ({f"tests.{kind}.update" for kind in kinds} if follow else set())
    assert {record.completeness for record in audit} <= {"statement"}
