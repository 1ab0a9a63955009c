"""A small service whose workers are killed: each request writes a few rows in one transaction.

``SERVICE_DATABASE`` is its database, ``SERVICE_SPOOL`` the directory of the spool; nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import otel_audit
from otel_audit.config.model import AuditConfig, SinkConfig, SpoolConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from tests.instrumentation.sqlalchemy.zoo import Creature, Label
from tests.pipeline.spooling import NOWHERE

otel_audit.setup(
    AuditConfig(
        sqlalchemy=SQLAlchemyConfig(models=["tests.Creature", "tests.Label"]),
        spool=SpoolConfig(directory=os.environ["SERVICE_SPOOL"]),
        sink=SinkConfig(endpoint=NOWHERE),
    ),
    instrument=False,
)
SQLAlchemyAuditInstrumentor().instrument()

engine = create_async_engine(os.environ["SERVICE_DATABASE"])
app = FastAPI()


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as opened:
        yield opened


_SESSION = Depends(session)


@app.post("/animals")
async def admit(title: str, session: AsyncSession = _SESSION) -> list[int]:
    """Write three rows, by flushes and by Core."""
    animals = [Creature(title=f"{title}, first"), Creature(title=f"{title}, second")]
    session.add_all(animals)
    await session.flush()
    await session.execute(insert(Label).values(code=title, text="new"))
    await session.commit()
    return [animal.id for animal in animals]  # another session may have taken the id between


@app.post("/animals/{key}/{other}")
async def rename(key: int, other: int, title: str, session: AsyncSession = _SESSION) -> None:
    """Change one row by a flush, another by a statement."""
    animal = await session.get_one(Creature, key)
    animal.title = title
    await session.flush()
    await session.execute(update(Creature).where(Creature.id == other).values(title=f"{title}, too"))
    await session.commit()


@app.delete("/animals/{key}/{other}")
async def release(key: int, other: int, session: AsyncSession = _SESSION) -> None:
    animal = (await session.scalars(select(Creature).where(Creature.id == key))).one()
    await session.delete(animal)
    await session.flush()
    await session.execute(delete(Creature).where(Creature.id == other))
    await session.commit()
