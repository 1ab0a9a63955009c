"""The database: SQLite, or what FULFILMENT_DATABASE names, such as postgresql+asyncpg://user:password@host/name."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fulfilment.models import Base

HERE = Path(__file__).resolve().parent.parent
ADDRESS = os.environ.get("FULFILMENT_DATABASE") or f"sqlite+aiosqlite:///{HERE / 'fulfilment.sqlite3'}"

engine = create_async_engine(ADDRESS)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def create_tables() -> None:
    """Create the tables that are not there yet; a real service would use migrations."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def session() -> AsyncIterator[AsyncSession]:
    """Open a session for the length of a request."""
    async with sessions() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]
