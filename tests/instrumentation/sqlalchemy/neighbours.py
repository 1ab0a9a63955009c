"""One process beside another library: ``python -m tests.instrumentation.sqlalchemy.neighbours NAME ORDER``.

ORDER is when we instrument: ``before`` or ``after`` the neighbour is set up, or ``never``. Prints JSON: the
records, and what the neighbour saw.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from sqlalchemy import Engine, create_engine, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column
from sqlalchemy.pool import StaticPool

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.testing import capture_audit

CONFIG = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*.Article"]), record_tests=True)


class Beside(NamedTuple):
    """What a neighbour needs: a model, an engine, and how to ask what it saw.

    ``session`` makes the session; ``add`` puts an object into it, as the neighbour's users do.
    """

    model: type[Any]
    engine: Engine
    saw: Callable[[], list[Any]] = list
    session: Callable[[Engine], Any] = Session
    add: Callable[[Any, Any], object] = lambda session, row: session.add(row)
    create: Callable[[], object] | None = None


def engine_of(**options: Any) -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool, **options)


def article(base: type[Any], **attributes: Any) -> type[Any]:
    """Make the model."""
    columns = {
        "__annotations__": {"id": Mapped[int], "title": Mapped[str], "number": Mapped[int]},
        "id": mapped_column(primary_key=True),
    }
    names = {"__module__": __name__, "__tablename__": "article"}
    return type("Article", (base,), {**names, **columns, **attributes})


def declarative() -> type[Any]:
    class Base(DeclarativeBase):
        pass

    return Base


def nobody() -> Beside:
    return Beside(article(declarative()), engine_of())


def echo() -> Beside:
    """Every statement is logged."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = re.sub(r"^\[.*?\] ", "", record.getMessage())
            lines.append(" ".join(message.split()))

    logger = logging.getLogger("sqlalchemy.engine.Engine")
    logger.addHandler(Lines())
    logger.propagate = False
    logger.handlers = [handler for handler in logger.handlers if isinstance(handler, Lines)]
    engine = engine_of(echo=True)
    logger.handlers = [handler for handler in logger.handlers if isinstance(handler, Lines)]
    return Beside(article(declarative()), engine, lambda: lines)


def continuum() -> Beside:
    """SQLAlchemy-Continuum keeps versions."""
    from sqlalchemy_continuum import make_versioned

    make_versioned(user_cls=None)
    model = article(declarative(), __versioned__={})
    configure_mappers()
    engine = engine_of()

    def versions() -> list[Any]:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT id, title, operation_type FROM article_version"))
            return sorted(map(list, rows))

    return Beside(model, engine, versions)


def utils() -> Beside:
    """SQLAlchemy-Utils coerces what is assigned, and computes before a flush."""
    from sqlalchemy_utils import EmailType, force_auto_coercion, observes

    force_auto_coercion()

    def computed(self: Any, title: str) -> None:
        self.address = f"{title.replace(' ', '.')}@EXAMPLE.ORG"

    model = article(
        declarative(),
        address=mapped_column("address", EmailType, nullable=True),
        compute=observes("title")(computed),
    )
    engine = engine_of()

    def addresses() -> list[Any]:
        with engine.connect() as connection:
            return [row[0] for row in connection.execute(text("SELECT address FROM article ORDER BY id"))]

    return Beside(model, engine, addresses)


def opentelemetry() -> Beside:
    """OpenTelemetry's own instrumentation makes a span per statement."""
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine = engine_of()
    SQLAlchemyInstrumentor().instrument(engine=engine, tracer_provider=provider)

    def spans() -> list[Any]:
        return [
            [span.name, (span.attributes or {}).get("db.statement")] for span in exporter.get_finished_spans()
        ]

    return Beside(article(declarative()), engine, spans)


def flask() -> Beside:
    """Flask-SQLAlchemy, which records queries."""
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy
    from flask_sqlalchemy.record_queries import get_recorded_queries

    database = SQLAlchemy(model_class=declarative())
    application = Flask("beside")
    application.config |= {
        "SQLALCHEMY_DATABASE_URI": "sqlite://",
        "SQLALCHEMY_RECORD_QUERIES": True,
    }
    database.init_app(application)
    application.app_context().push()
    return Beside(
        article(database.Model),
        database.engine,
        lambda: [" ".join(query.statement.split()) for query in get_recorded_queries() if query.statement],
        lambda engine: database.session(),
        create=database.create_all,
    )


def sqlmodel() -> Beside:
    """SQLModel's classes and its session."""
    import sqlmodel as library

    class Article(library.SQLModel, table=True):
        id: int | None = library.Field(default=None, primary_key=True)
        title: str
        number: int

    return Beside(Article, engine_of(), session=library.Session)


def advanced_alchemy() -> Beside:
    """advanced-alchemy's base with its own columns, and its repository."""
    from advanced_alchemy.base import BigIntAuditBase
    from advanced_alchemy.repository import SQLAlchemySyncRepository

    class Article(BigIntAuditBase):
        __tablename__ = "article"
        title: Mapped[str]
        number: Mapped[int]

    class Articles(SQLAlchemySyncRepository[Article]):
        model_type = Article

    return Beside(
        Article,
        engine_of(),
        add=lambda session, row: Articles(session=session).add(row),
        create=None,
    )


def work(beside: Beside) -> None:
    """Write by the unit of work and by statements, commit and roll back."""
    model, engine = beside.model, beside.engine
    with beside.session(engine) as session:
        for number in (1, 2, 3):
            beside.add(session, model(title=f"article {number}", number=number))
        session.commit()
    with beside.session(engine) as session:
        one = session.get(model, 1)
        one.title = "changed"
        session.delete(session.get(model, 2))
        session.commit()
    with beside.session(engine) as session:
        session.execute(update(model).where(model.number > 2).values(number=33))
        session.commit()
    with beside.session(engine) as session:
        session.scalars(select(model).order_by(model.id)).first().title = "undone"
        session.flush()
        session.rollback()


def main(name: str, order: str) -> None:
    from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor

    with ExitStack() as stack:
        audit = stack.enter_context(capture_audit(CONFIG))
        stack.callback(lambda: order != "never" and SQLAlchemyAuditInstrumentor().uninstrument())
        if order == "before":
            SQLAlchemyAuditInstrumentor().instrument(config=CONFIG)
        beside: Beside = globals()[name]()
        (beside.create or (lambda: beside.model.metadata.create_all(beside.engine)))()
        if order == "after":
            SQLAlchemyAuditInstrumentor().instrument(config=CONFIG)
        work(beside)
        records = [
            [
                record.action,
                str(record.target).rpartition(".")[2],
                record.outcome,
                record.completeness,
                list(record.bulk.keys) if record.bulk else [],
                sorted(
                    [change.field, *(None if v is UNKNOWN else v for v in (change.old, change.new))]
                    for change in record.changes
                    if change.field in ("title", "number")
                ),
            ]
            for record in audit.records
        ]
        sys.stdout.write(json.dumps({"records": records, "saw": beside.saw()}) + "\n")


if __name__ == "__main__":
    from msgspec import UNSET as UNKNOWN

    main(sys.argv[1], sys.argv[2])
