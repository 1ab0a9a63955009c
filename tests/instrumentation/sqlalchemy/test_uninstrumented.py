"""After ``uninstrument()``, SQLAlchemy and Alembic are what they were, attribute by attribute."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import alembic.op  # noqa: F401  # so that its modules are there
import pytest
import sqlalchemy as sa
from sqlalchemy.event import registry
from sqlalchemy.orm import Session

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from tests.instrumentation.sqlalchemy.models import Base, Shipment

LIBRARIES = ("sqlalchemy", "alembic")


def attributes() -> dict[str, Any]:
    """Return each function of the libraries by where it stands: of modules, of their classes."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in LIBRARIES:
            continue
        for key, value in list(vars(module).items()):
            found[f"{name}:{key}"] = value if inspect.isroutine(value) else None
            if isinstance(value, type) and value.__module__.partition(".")[0] in LIBRARIES:
                members = vars(value).items()
                found |= {f"{name}:{key}.{member}": what for member, what in members if is_code(what)}
    return {place: value for place, value in found.items() if value is not None}


def is_code(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, property | staticmethod | classmethod)


def listeners() -> set[Any]:
    """Return the listeners that SQLAlchemy knows."""
    return {key for key, where in registry._key_to_collection.items() if where}


@pytest.mark.parametrize("engine_first", [True, False])
def test_every_function_is_the_one_it_was_and_nothing_of_ours_listens(engine_first: bool) -> None:
    engine = sa.create_engine("sqlite://")

    def work() -> None:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            shipment = Shipment(number="one")
            session.add(shipment)
            session.commit()
            session.refresh(shipment)
            session.delete(shipment)
            session.commit()

    work()  # what SQLAlchemy itself makes at first use is there
    before, heard = attributes(), listeners()
    assert len(before) > 5000
    SQLAlchemyAuditInstrumentor().instrument(
        config=AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"], reads=["*"]))
    )
    try:
        changed = {place for place, value in attributes().items() if before.get(place) is not value}
        assert len(changed) > 20
        ours = listeners() - heard
        assert ours
        if not engine_first:
            engine = sa.create_engine("sqlite://")
        work()
    finally:
        SQLAlchemyAuditInstrumentor().uninstrument()
    after = attributes()
    assert {place for place in before if after.get(place) is not before[place]} == set()
    assert {place for place in changed if place not in before and place in after} == set()
    assert not ours & listeners()
