"""Rules of ``[[policy]]`` about changes lower what ``[sqlalchemy] models`` says."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from tests.audited import audited
from tests.instrumentation.sqlalchemy.models import Base, Parcel, Shipment, Tag

CONFIG = msgspec.convert(
    {
        "sqlalchemy": {"models": ["*"]},
        "policy": [
            {"model": "*.Tag", "level": "none"},
            {"model": ["*.Shipment", "parcel"], "level": "metadata"},
        ],
    },
    AuditConfig,
)


def test_none_makes_no_record_and_metadata_has_no_value(
    make_engine: Callable[..., sa.Engine],
) -> None:
    engine = make_engine()
    Base.metadata.create_all(engine)
    with audited(SQLAlchemyAuditInstrumentor(), CONFIG) as audit:
        with Session(engine) as session:
            shipment = Shipment(number="Vbefore")
            session.add_all([Tag(name="t"), shipment])
            session.commit()
            session.add(Parcel(shipment_id=shipment.id, note="Vbefore"))
            shipment.number = "Vafter"
            session.commit()
            session.execute(sa.update(Shipment).values(number="Vbulk"))
            session.execute(sa.insert(Parcel), [{"note": "Vbulk"}, {"note": "Vbulk"}])
            session.execute(sa.text("UPDATE parcel SET note = :note"), {"note": "Vafter"})
            session.execute(sa.update(Tag).values(name="x"))
            session.execute(sa.delete(Parcel))
            session.commit()
        seen = [(record.action, record.target.type.rpartition(".")[2]) for record in audit if record.target]
        assert ("CREATE", "Shipment") in seen
        assert ("UPDATE", "Shipment") in seen
        assert ("DELETE", "Parcel") in seen
        assert "Tag" not in {name for _, name in seen}
        updated = next(record for record in audit if record.changed_fields == ["number"])
        assert updated.changes[0] == type(updated.changes[0])("number")
        assert all(record.image == {} for record in audit)
        audit.assert_no_secrets("Vbefore", "Vafter", "Vbulk")
