"""What the SQLAlchemy benchmarks write: a table that is audited, one that is not, and how they are filled."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import URL, Boolean, Engine, Integer, Numeric, String, create_engine, event, insert
from sqlalchemy.orm import DeclarativeBase, mapped_column


class Base(DeclarativeBase):
    pass


def columns() -> dict[str, Any]:
    """Return the columns of a table, as an ordinary one has them; the database makes the key."""
    return {
        "id": mapped_column(Integer, primary_key=True),
        "title": mapped_column(String(100), nullable=False),
        "body": mapped_column(String(400), nullable=False),
        "price": mapped_column(Numeric(10, 2), nullable=False),
        "stock": mapped_column(Integer, nullable=False),
        "active": mapped_column(Boolean, nullable=False),
        "note": mapped_column(String(100)),
    }


Article: Any = type("Article", (Base,), {"__tablename__": "bench_article", **columns()})
Unaudited: Any = type("Unaudited", (Base,), {"__tablename__": "bench_unaudited", **columns()})


def values(number: int) -> dict[str, Any]:
    """Return the values of one row."""
    return {
        "title": f"Article {number}",
        "body": f"What there is to say about article {number}. " * 4,
        "price": Decimal(number % 1000) / 100 + 1,
        "stock": number,
        "active": number % 2 == 0,
        "note": None,
    }


def connect(entry: dict[str, Any]) -> Engine:
    """Return an engine for the database of a ``DATABASES`` entry."""
    if entry["ENGINE"].endswith("sqlite3"):
        engine = create_engine(f"sqlite:///{entry['NAME']}")

        def connected(connection: Any, record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")

        event.listen(engine, "connect", connected)
        return engine
    place = {"host": entry["HOST"], "port": entry["PORT"]}
    return create_engine(
        URL.create("postgresql+psycopg", username=entry["USER"], database=entry["NAME"], query=place)
    )


def fill(engine: Any, model: Any, count: int) -> None:
    """Make ``count`` rows the only ones."""
    table = model.__table__
    with engine.begin() as connection:
        connection.execute(table.delete())
        if count:
            rows = [{"id": number, **values(number)} for number in range(1, count + 1)]
            connection.execute(insert(table), rows)
    with engine.begin() as connection:
        if count and engine.dialect.name == "postgresql":
            # Not ALTER SEQUENCE: after a change of the schema, what is known of tables is asked anew.
            connection.exec_driver_sql(f"SELECT setval('{table.name}_id_seq', {count + 1}, false)")
