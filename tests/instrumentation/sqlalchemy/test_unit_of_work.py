"""What a flush writes: inserts, updates and deletes of mapped objects, told as they are stored."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from otel_audit.audit_record import Target
from otel_audit.config.model import AuditConfig, ModelConfig, SQLAlchemyConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import (
    Animal,
    Dog,
    Engineer,
    Everything,
    Mood,
    Pair,
    Parcel,
    Point,
    Shipment,
    Tag,
    Unaudited,
    Versioned,
)
from tests.instrumentation.sqlalchemy.told import told


def test_an_insert_an_update_and_a_delete(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        shipment = Shipment(number="A1", weight=3)
        session.add(shipment)
        session.commit()
        shipment.weight = 4
        session.commit()
        session.delete(shipment)
        session.commit()
    assert told(audit) == [
        ("CREATE", "Shipment/1", "success", {"number": "A1", "status": "new", "weight": 3}),
        ("UPDATE", "Shipment/1", "success", {"weight": (3, 4)}),
        (
            "DELETE",
            "Shipment/1",
            "success",
            {"number": ("A1", None), "status": ("new", None), "weight": (4, None)},
        ),
    ]
    assert {record.event_name for record in audit} == {
        f"tests.shipment.{verb}" for verb in ("create", "update", "delete")
    }
    assert {record.database.table for record in audit} == {"shipment"}


def test_many_objects_of_one_flush(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add_all([Shipment(number=f"N{number}") for number in range(5)])
        session.commit()
        shipments = session.scalars(sa.select(Shipment).order_by(Shipment.id)).all()
        for shipment in shipments:
            shipment.weight = shipment.id
        session.commit()
        for shipment in session.scalars(sa.select(Shipment)).all():
            session.delete(shipment)
        session.commit()
    rows = told(audit)
    assert [row[3]["number"] for row in rows if row[0] == "CREATE"] == [f"N{number}" for number in range(5)]
    assert [(row[1], row[3]) for row in rows if row[0] == "UPDATE"] == [
        (f"Shipment/{key}", {"weight": (None, key)}) for key in range(1, 6)
    ]
    assert [row[1] for row in rows if row[0] == "DELETE"] == [f"Shipment/{key}" for key in range(1, 6)]
    assert {record.completeness for record in audit} == {"full"}


def test_nothing_is_recorded_of_a_flush_that_changes_nothing(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Shipment(number="A", weight=1))
        session.commit()
        audit.clear()
        shipment = session.get_one(Shipment, 1)
        shipment.weight = 1
        session.commit()
        shipment.weight = 1  # expired: an UPDATE is sent that changes nothing
        session.commit()
        session.get_one(Shipment, 1).weight = 2
        session.rollback()
    assert told(audit) == []


def test_old_values_nobody_has_loaded_are_read(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Shipment(number="A", weight=1))
        session.commit()
        shipment = session.get_one(Shipment, 1)
        session.expire(shipment, ["weight"])
        shipment.weight = 9
        session.commit()
    (record,) = audit.find(action="UPDATE")
    assert told([record])[0][3] == {"weight": (1, 9)}
    assert record.old_values == "exact"


def test_values_are_recorded_as_they_will_be_read(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        thing = Everything(
            mood=Mood.CALM,
            price=decimal.Decimal("1.239"),
            day=datetime.date(2026, 11, 29),
            data={"a": [1]},
            tracked={"n": 1},
            backwards="  abc ",
            secret_text="attack at dawn",
            point=Point(1, 2),
            flag=True,
            blob=b"\x00\x01",
        )
        session.add(thing)
        session.commit()
        created = told(audit)[0][3]
        assert created["mood"] == "CALM"
        assert created["price"] == "1.24"
        assert created["day"] == "2026-11-29"
        assert created["data"] == {"a": [1]}
        assert created["backwards"] == "abc"
        assert created["secret_text"] == "[redacted]"
        assert (created["x"], created["y"], created["flag"]) == (1, 2, True)
        audit.clear()
        assert thing.tracked is not None
        thing.tracked["n"] = 2
        thing.mood = Mood.ANGRY
        thing.point = Point(1, 5)
        thing.backwards = "abc"
        thing.secret_text = "retreat"
        session.commit()
    (updated,) = told(audit)
    assert updated[3] == {
        "tracked": ({"n": 1}, {"n": 2}),
        "mood": ("CALM", "ANGRY"),
        "y": (2, 5),
        "secret_text": ("[redacted]", "[redacted]"),
    }
    assert "attack" not in str(list(audit))


def test_what_the_database_makes_is_recorded_where_it_is_told(
    engine: sa.Engine, audit: CapturedAudit, driver: str
) -> None:
    with Session(engine) as session:
        session.add(Everything(x=3))
        session.commit()
    (created,) = told(audit)
    if driver not in ("mysqldb", "pymysql"):  # no RETURNING for a single INSERT there
        assert (created[3]["served"], created[3]["doubled"]) == (7, 6)
    assert created[3]["x"] == 3


def test_an_expression_as_a_value(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Shipment(number="A", weight=1))
        session.commit()
        shipment: Any = session.get_one(Shipment, 1)
        shipment.weight = Shipment.weight + 5
        session.commit()
        assert shipment.weight == 6
    assert told(audit)[1][3] == {"weight": (1, 6)}


def test_version_counters_and_columns_set_by_themselves_make_no_change_alone(
    engine: sa.Engine, audit: CapturedAudit
) -> None:
    with Session(engine) as session:
        session.add(Versioned(title="a"))
        session.commit()
        row = session.get_one(Versioned, 1)
        row.title = "b"
        session.commit()
    assert told(audit)[1][3] == {"title": ("a", "b"), "version": (1, 2), "touched": (None, 5)}


def test_composite_keys(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add_all([Pair(left=1, right="x"), Pair(left=1, right="y")])
        session.commit()
        session.get_one(Pair, (1, "x")).value = "new"
        session.commit()
        session.get_one(Pair, (1, "x")).right = "z"
        session.commit()
    rows = told(audit)
    assert [row[1] for row in rows] == ['Pair/[1,"x"]', 'Pair/[1,"y"]', 'Pair/[1,"x"]', 'Pair/[1,"x"]']
    assert rows[3][3] == {"right": ("x", "z")}


def test_an_inherited_class_writes_a_row_of_each_table(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Engineer(name="Ann", language="c"))
        session.commit()
        engineer = session.scalars(sa.select(Engineer)).one()
        engineer.name, engineer.language = "Anna", "rust"
        session.commit()
        session.delete(engineer)
        session.commit()
    assert [(row[0], row[1]) for row in told(audit)] == [
        ("CREATE", "Person/1"),
        ("CREATE", "Engineer/1"),
        ("UPDATE", "Person/1"),
        ("UPDATE", "Engineer/1"),
        ("DELETE", "Engineer/1"),
        ("DELETE", "Person/1"),
    ]
    assert told(audit)[3][3] == {"language": ("c", "rust")}


def test_classes_that_share_a_table_are_called_after_the_first(
    engine: sa.Engine, audit: CapturedAudit
) -> None:
    with Session(engine) as session:
        session.add_all([Dog(name="Rex", trick="sit"), Animal(name="Tom")])
        session.commit()
        dog = session.scalars(sa.select(Dog)).one()
        dog.trick = "roll"
        session.commit()
    assert {row[1].partition("/")[0] for row in told(audit)} == {"Animal"}
    assert told(audit)[-1][3] == {"trick": ("sit", "roll")}


def test_rows_of_a_relationship_name_what_they_relate(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        shipment = Shipment(number="A", tags=[Tag(name="red"), Tag(name="blue")])
        session.add(shipment)
        session.commit()
        shipment.tags.remove(shipment.tags[0])
        session.commit()
    added, removed = [record for record in audit if record.database.table == "shipment_tag"]
    assert (added.action, removed.action) == ("CREATE", "DELETE")
    assert added.target is not None
    assert added.target.type == "shipment_tag"
    assert set(added.related) == {
        Target("tests.Shipment", "1"),
        Target("tests.Tag", "1"),
        Target("tests.Tag", "2"),
    }
    assert set(removed.related) == {Target("tests.Shipment", "1"), Target("tests.Tag", "1")}


def test_cascades_of_the_orm(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Shipment(number="A", parcels=[Parcel(note="a"), Parcel(note="b")]))
        session.commit()
        audit.clear()
        session.delete(session.get_one(Shipment, 1))
        session.commit()
    assert [(row[0], row[1]) for row in told(audit)] == [
        ("DELETE", "Parcel/1"),
        ("DELETE", "Parcel/2"),
        ("DELETE", "Shipment/1"),
    ]


def test_what_is_not_audited_makes_no_record(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Unaudited(name="x"))
        session.commit()
    assert told(audit) == []


@pytest.mark.parametrize(
    "config",
    [AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"], old_values="exact"))],
    ids=["exact"],
)
def test_exact_old_values_are_those_of_the_row(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Shipment(number="A", weight=1))
        session.commit()
    with Session(engine) as stale, Session(engine) as other:
        shipment = stale.get_one(Shipment, 1)
        stale.rollback()  # the values stay: nothing expires without a commit
        other.get_one(Shipment, 1).weight = 5
        other.commit()
        shipment.weight = 7
        stale.commit()
    assert told(audit)[-1][3] == {"weight": (5, 7)}
    assert audit.records[-1].old_values == "exact"


@pytest.mark.parametrize(
    "config",
    [
        AuditConfig(
            sqlalchemy=SQLAlchemyConfig(
                models=["*"], model={"tests.Shipment": ModelConfig(snapshot=True, ignore=["weight"])}
            )
        )
    ],
    ids=["snapshot"],
)
def test_snapshots_and_ignored_fields(engine: sa.Engine, audit: CapturedAudit) -> None:
    with Session(engine) as session:
        session.add(Shipment(number="A", weight=1))
        session.commit()
        audit.clear()
        shipment = session.get_one(Shipment, 1)
        shipment.weight = 2
        session.commit()
        assert told(audit) == []
        shipment.number = "B"
        session.commit()
    (record,) = audit
    assert told([record])[0][3] == {"number": ("A", "B")}
    assert record.image == {"id": 1, "number": "B", "status": "new", "weight": 2}


def test_a_class_whose_table_has_no_key_of_its_own(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    """What the database makes and returns is converted once."""

    class Keyless(DeclarativeBase):
        pass

    class Note(Keyless):
        __tablename__ = "note"
        key = sa.Column(sa.Integer, nullable=False)
        written = sa.Column(sa.DateTime, server_default=sa.func.now())
        __mapper_args__ = {"primary_key": [key], "eager_defaults": True}

    engine = make_engine()
    Keyless.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Note(key=1))
        session.commit()
    (record,) = audit
    assert (record.action, record.bulk) == ("CREATE", None)
    assert record.target is not None
    assert record.target.id == "1"
    assert "written" in {change.field for change in record.changes}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"], indirect=True)
def test_numbers_in_jsonb_are_recorded_as_postgresql_reads_them(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    class Base(DeclarativeBase):
        """The class of this test."""

    class Reading(Base):
        __tablename__ = "reading"

        id = sa.Column(sa.Integer, primary_key=True)
        facts = sa.Column(JSONB)

    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Reading(id=1, facts=[1e22, -1e16, -0.0, 1.5]))
        session.commit()
        [change] = [change for change in audit.records[-1].changes if change.field == "facts"]
        assert repr(change.new) == "['10000000000000000000000', -10000000000000000, 0.0, 1.5]"
        audit.clear()
        session.execute(sa.update(Reading).where(Reading.id == 1).values(facts=[1e22, -1e16, 0.0, 1.5]))
        session.commit()
        assert [change for record in audit for change in record.changes] == []


def test_two_classes_of_one_name_are_told_apart_and_the_log_says_so(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    if driver != "sqlite":
        return
    engine = make_engine()

    def twin(table: str) -> Any:
        class Base(DeclarativeBase):
            """Of one of the two modules."""

        body = {
            "__tablename__": table,
            "id": mapped_column(sa.Integer, primary_key=True),
            "__module__": f"tests.{table}",
        }
        made = type("Twin", (Base,), body)
        Base.metadata.create_all(engine)
        return made

    first = twin("twin_one")
    with Session(engine) as session:
        session.add(first())
        session.commit()
        assert "another class of this name" not in caplog.text
        second = twin("twin_two")
        session.add_all([first(), second(), first()])
        session.commit()
        session.add_all([first(), second()])
        session.commit()
    labels = [record.target.type for record in audit if record.target is not None]
    assert labels[0] == "tests.Twin"
    assert set(labels[1:]) == {"tests.twin_one.Twin", "tests.twin_two.Twin"}
    warnings = [message for message in caplog.messages if "another class of this name" in message]
    assert [message.partition(":")[0] for message in sorted(warnings)] == sorted(set(labels[1:]))
    assert all("'tests.Twin'" in message for message in warnings)
