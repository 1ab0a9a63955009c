"""Shipments and what is in them."""

from __future__ import annotations

import enum
from datetime import UTC, datetime

from sqlalchemy import DateTime, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What all tables have in common."""


class Status(enum.StrEnum):
    """How far a shipment has got."""

    REQUESTED = "requested"
    PACKED = "packed"


class Shipment(Base):
    """One parcel: what the shop has asked to send for an order."""

    __tablename__ = "shipment"

    id: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[int] = mapped_column("order_number", unique=True)
    recipient: Mapped[str] = mapped_column(String(100))
    address: Mapped[str] = mapped_column(String(200))
    note: Mapped[str] = mapped_column(String(200), default="")
    status: Mapped[Status] = mapped_column(default=Status.REQUESTED)
    tracking: Mapped[str | None] = mapped_column(String(40))
    requested_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    lines: Mapped[list[ShipmentLine]] = relationship(
        cascade="all, delete-orphan", order_by="ShipmentLine.id", lazy="selectin"
    )


class ShipmentLine(Base):
    """How many tins of one tea."""

    __tablename__ = "shipment_line"

    id: Mapped[int] = mapped_column(primary_key=True)
    shipment_id: Mapped[int] = mapped_column(ForeignKey("shipment.id"), index=True)
    tea: Mapped[str] = mapped_column(String(80))
    quantity: Mapped[int]
