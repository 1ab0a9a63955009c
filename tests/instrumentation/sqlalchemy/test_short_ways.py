"""The short ways to make a record are taken, and make the same record as the general one."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any
from unittest import mock

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from otel_audit.audit_record import AuditRecord
from otel_audit.instrumentation.sqlalchemy.writes.stored import loaded
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Engineer, Everything, Person, Shipment


@pytest.fixture
def driver() -> str:
    """What is encoded does not depend on the database."""
    return "sqlite"


def _one_by_one(session: Session) -> None:
    shipment = Shipment(number="A1", weight=3)
    session.add(shipment)
    session.commit()
    shipment.weight = 4
    session.commit()
    session.delete(shipment)
    session.commit()


def _in_one_transaction(session: Session) -> None:
    for number in range(4):
        session.add(Shipment(number=f"N{number}", weight=number))
        session.flush()
    session.commit()
    for shipment in session.scalars(sa.select(Shipment)).all():
        shipment.weight = -1
        session.flush()
    for shipment in session.scalars(sa.select(Shipment)).all():
        session.delete(shipment)
        session.flush()
    session.commit()


@pytest.mark.parametrize("work", [_one_by_one, _in_one_transaction])
def test_a_row_takes_the_short_way_and_is_recorded_as_by_the_general_one(
    engine: sa.Engine, audit: CapturedAudit, work: Callable[[Session], None]
) -> None:
    general = AuditLogger.record
    made: list[str] = []

    def counted(logger: AuditLogger, event_name: str, *args: Any, **kwargs: Any) -> AuditRecord:
        made.append(event_name)
        return general(logger, event_name, *args, **kwargs)

    with mock.patch.object(AuditLogger, "record", counted), Session(engine) as session:
        work(session)
    short = [_as_kept(record) for record in audit]
    kinds = len({record["event_name"] for record in short})
    # Of a transaction with several, the first of each kind is made in the general way.
    assert len(made) <= (0 if work is _one_by_one else kinds)
    audit.clear()

    with (
        mock.patch.object(AuditLogger, "heads", return_value=None),
        mock.patch.object(AuditLogger, "lone_records", return_value=None),
        Session(engine) as session,
    ):
        work(session)
    assert short == [_as_kept(record) for record in audit]


def _as_kept(record: AuditRecord) -> dict[str, Any]:
    """Return all a record says but for what differs each time."""
    plain = msgspec.to_builtins(
        msgspec.structs.replace(
            record,
            id="",
            timestamp=0,
            observed_timestamp=0,
            database=msgspec.structs.replace(record.database, transaction=""),
        )
    )
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize(
    "amounts",
    [
        ["1", "2.5", None, "3.14159"],
        ["1E+40", "0.005", "-0"],  # one has more digits than are kept
        ["12", "1000000.125"],
    ],
)
def test_numbers_of_many_rows_are_rounded_as_that_of_one(
    engine: sa.Engine, audit: CapturedAudit, amounts: list[str | None]
) -> None:
    table: Any = Everything.__table__
    rows = [
        {"id": number, "price": None if amount is None else decimal.Decimal(amount)}
        for number, amount in enumerate(amounts)
    ]
    with engine.begin() as connection:
        for row in rows:
            connection.execute(sa.insert(table), row)
    alone = [_new(record, "price") for record in audit]
    audit.clear()
    with engine.begin() as connection:
        connection.execute(sa.delete(table))
        audit.clear()
        connection.execute(sa.insert(table), rows)
    [together] = [record for record in audit if record.action == "CREATE"]
    assert together.bulk is not None
    [column] = [column for column in together.bulk.columns if column.field == "price"]
    assert column.new == alone


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Person, Engineer]),
            st.lists(st.sampled_from(["loaded", "set", "deleted", "expired", "other"]), max_size=3),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_old_values_of_many_objects_are_those_of_each(
    objects: list[tuple[type[Person], list[str]]], alike: bool
) -> None:
    made = [_with_history(cls, objects[0][1] if alike else steps) for cls, steps in objects]
    states = [sa.inspect(each) for each in made]
    named = {Person: "name", Engineer: "name"}
    assert loaded._Values(states).of(named) == [
        state.committed_state["name"]
        if "name" in state.committed_state
        else state.dict.get("name", msgspec.UNSET)
        for state in states
    ]


def test_an_attribute_may_be_called_otherwise_in_another_class() -> None:
    made = [_with_history(Person, ["loaded"]), _with_history(Engineer, ["loaded"])]
    set_committed_value(made[1], "language", "c")
    states = [sa.inspect(each) for each in made]
    assert loaded._Values(states).of({Person: "name", Engineer: "language"}) == ["Ann", "c"]


def _with_history(cls: type[Person], steps: list[str]) -> Person:
    person = cls()
    for step in steps:
        if step == "loaded":
            set_committed_value(person, "name", "Ann")
        elif step == "set":
            person.name = "Bea"
        elif step == "deleted" and "name" in vars(person):
            del person.name
        elif step == "expired":
            vars(person).pop("name", None)
        elif step == "other":
            person.kind = "x"
    return person


def _new(record: AuditRecord, field: str) -> Any:
    return next(change.new for change in record.changes if change.field == field)
