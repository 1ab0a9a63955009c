"""What is counted of FastAPI: ``python -m benchmarks.instructions.fastapi_work KIND [JOB…]``.

A POST whose endpoint updates one row by SQLAlchemy, as the user that a dependency has found, under
OpenTelemetry's instrumentation of both. It is done twice uncounted, then three times counted, each ten times,
on one event loop. No thread sends: it would be counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy.orm import Session

from benchmarks.fastapi_application import application_on
from benchmarks.instructions.counter import Counter
from benchmarks.pipelines import without_sender
from benchmarks.sqlalchemy_tables import Article, Base, connect, values
from otel_audit.config.model import SQLAlchemyConfig

_POST: Final = "FastAPI POST"
_REQUESTS: Final = 10
_WARM = 2
_COUNTED = 3

Message = MutableMapping[str, Any]


async def _post(application: FastAPI, number: int) -> None:
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    path = f"/articles/{number}"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"example.test"), (b"user-agent", b"bench"), (b"content-length", b"0")],
        "client": ("198.51.100.7", 50000),
        "server": ("127.0.0.1", 8000),
    }
    await application(scope, receive, send)
    if answers[0]["status"] != 200:
        raise RuntimeError(f"the page answered {answers[0]['status']}")


def _count(application: FastAPI) -> None:
    counter = Counter()
    loop = asyncio.new_event_loop()

    async def all_of_them() -> None:
        for number in range(1, _REQUESTS + 1):
            await _post(application, number)

    for repeat in range(_WARM + _COUNTED):
        if repeat < _WARM:
            loop.run_until_complete(all_of_them())
        else:
            counter(_POST, lambda: loop.run_until_complete(all_of_them()))
    loop.close()


def main(kind: str, names: list[str]) -> None:
    """Count the only job in a process of one ``kind``: otel, or otel audited."""
    engine = connect(json.loads(os.environ["BENCH_DATABASE"]))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Article(**values(number)) for number in range(_REQUESTS))
        session.commit()
    trace.set_tracer_provider(TracerProvider())
    SQLAlchemyInstrumentor().instrument(engine=engine)
    application = application_on(engine)
    FastAPIInstrumentor.instrument_app(application)
    if kind == "otel":
        _count(application)
        return

    from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
    from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor

    section = SQLAlchemyConfig(models=["bench_article"])
    with without_sender(instrument=False, sqlalchemy=section) as pipeline:
        SQLAlchemyAuditInstrumentor().instrument()
        StarletteAuditInstrumentor().instrument()
        before = pipeline.health.emitted
        _count(application)
        if pipeline.health.emitted <= before:
            raise RuntimeError("nothing was recorded: what was counted is no figure")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
