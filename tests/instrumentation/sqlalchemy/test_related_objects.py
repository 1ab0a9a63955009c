"""Objects of mapped classes that the application names as related."""

from __future__ import annotations

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.targets import target_of
from tests.audited import audited


class Base(DeclarativeBase):
    pass


class NotedParcel(Base):
    __tablename__ = "noted_parcel"
    depot: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


def test_they_are_called_as_their_own_records_are() -> None:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"]))
    engine = create_engine("sqlite://")
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured, Session(engine) as session:
        Base.metadata.create_all(engine)
        parcel = NotedParcel(depot="BER", number=4)
        session.add(parcel)
        pending = target_of(parcel)
        session.commit()  # expires it: naming it must not load it again
        stored = target_of(parcel)
        assert target_of(NotedParcel(depot="BER")) is None
        assert captured.one(action="CREATE").target == pending == stored
    assert target_of(parcel) is None, "nobody knows SQLAlchemy any longer"
