"""The FastAPI application that is measured: a POST updates one row, by the user that a dependency found."""

from __future__ import annotations

import json
import os

from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.orm import Session

import otel_audit
from benchmarks.sqlalchemy_tables import Article, connect


def application_on(engine: Engine) -> FastAPI:
    application = FastAPI()

    async def user() -> str:
        otel_audit.set_actor("ana")
        return "ana"

    @application.post("/articles/{number}")
    async def change(number: int, name: str = Depends(user)) -> dict[str, str]:
        with Session(engine) as session:
            article = session.get_one(Article, number)
            article.stock += 1
            session.commit()
        return {"changed by": name}

    return application


def application() -> FastAPI:
    """Return it on the database that the environment names: what a server is started with."""
    return application_on(connect(json.loads(os.environ["BENCH_DATABASE"])))
