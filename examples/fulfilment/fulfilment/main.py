"""The service: ``uvicorn fulfilment.main:app``.

The shop says what to send for an order (``PUT``) or that nothing is to be sent (``DELETE``); those who pack
see what is open, and say what they have packed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

import otel_audit
from fulfilment.accounts import a_packer, the_shop
from fulfilment.database import Session, create_tables, engine
from fulfilment.models import Shipment, ShipmentLine, Status
from otel_audit import Target


class Line(BaseModel):
    """How many tins of one tea."""

    model_config = ConfigDict(from_attributes=True)
    tea: str = Field(max_length=80)
    quantity: int = Field(gt=0)


class Wanted(BaseModel):
    """What the shop wants to be sent for an order."""

    recipient: str = Field(max_length=100)
    address: str = Field(max_length=200)
    note: str = Field("", max_length=200)
    lines: list[Line] = Field(min_length=1)


class Parcel(BaseModel):
    """One shipment as others see it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    order: int
    recipient: str
    address: str
    note: str
    status: Status
    tracking: str | None
    lines: list[Line]


class Packed(BaseModel):
    """What those who pack say of a parcel."""

    tracking: str = Field(min_length=1, max_length=40)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Create the tables before the first request, close the connections after the last."""
    await create_tables()
    yield
    await engine.dispose()


app = FastAPI(title="Kettle & Leaf: fulfilment", lifespan=lifespan)


@app.put("/orders/{order}/shipment", dependencies=[Depends(the_shop)])
async def request_shipment(order: int, wanted: Wanted, session: Session) -> Parcel:
    """Send this for an order; asked again, send it to the new address."""
    async with session.begin():
        shipment = await session.scalar(select(Shipment).where(Shipment.order == order))
        is_new = shipment is None
        if shipment is None:
            lines = [ShipmentLine(tea=line.tea, quantity=line.quantity) for line in wanted.lines]
            shipment = Shipment(order=order, lines=lines)
            session.add(shipment)
        elif shipment.status is not Status.REQUESTED:
            raise HTTPException(409, f"The parcel of order {order} is {shipment.status} already.")
        shipment.recipient = wanted.recipient
        shipment.address = wanted.address
        shipment.note = wanted.note
    tell_of_order("ACCEPT" if is_new else "REDIRECT", shipment)
    return Parcel.model_validate(shipment)


@app.delete("/orders/{order}/shipment", status_code=204, dependencies=[Depends(the_shop)])
async def cancel_shipment(order: int, session: Session) -> None:
    """Send nothing for an order, if it is not too late."""
    async with session.begin():
        shipment = await session.scalar(select(Shipment).where(Shipment.order == order))
        if shipment is None:
            return
        if shipment.status is not Status.REQUESTED:
            raise HTTPException(409, f"The parcel of order {order} is {shipment.status} already.")
        await session.delete(shipment)
    tell_of_order("CANCEL", shipment)


@app.get("/shipments", dependencies=[Depends(a_packer)])
async def open_shipments(session: Session) -> list[Parcel]:
    """List what is to be packed, the oldest first."""
    found: Sequence[Shipment] = (
        await session.scalars(
            select(Shipment).where(Shipment.status == Status.REQUESTED).order_by(Shipment.id)
        )
    ).all()
    return [Parcel.model_validate(each) for each in found]


@app.post("/shipments/{number}/pack", dependencies=[Depends(a_packer)])
async def pack(number: int, packed: Packed, session: Session) -> Parcel:
    """Say that a parcel is packed, and what the carrier calls it."""
    async with session.begin():
        shipment = await session.get(Shipment, number)
        if shipment is None:
            raise HTTPException(404, f"There is no shipment {number}.")
        shipment.status = Status.PACKED
        shipment.tracking = packed.tracking
    tell_of_order("PACK", shipment)
    return Parcel.model_validate(shipment)


def tell_of_order(action: str, shipment: Shipment) -> None:
    """Record what happened to the shop's order, so that it stands in the history of the order, too.

    Changes of shipments are recorded without our doing. That they concern an order of the shop, only this
    application knows; it says so once they are committed.
    """
    otel_audit.record(
        f"fulfilment.order.{action.lower()}",
        action,
        target=Target("shop.Order", str(shipment.order)),
        related=[Target("fulfilment.Shipment", str(shipment.id))],
        message=f"shipment {shipment.id}",
    )
