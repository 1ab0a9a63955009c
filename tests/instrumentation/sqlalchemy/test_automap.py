"""Classes that automap makes of what the database has: chosen by their tables, recorded like others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import Session

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told

TABLES = (
    "CREATE TABLE windlass (id INTEGER PRIMARY KEY, name VARCHAR(30), teeth INTEGER DEFAULT 12)",
    (
        "CREATE TABLE windlass_chain (id INTEGER PRIMARY KEY, length INTEGER, "
        "windlass_id INTEGER NOT NULL, FOREIGN KEY (windlass_id) REFERENCES windlass (id))"
    ),
    "CREATE TABLE capstan (id INTEGER PRIMARY KEY, name VARCHAR(30))",
)


@pytest.fixture(params=["sqlite", "psycopg", "pymysql"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def audit() -> Iterator[CapturedAudit]:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["windlass", "windlass_*"]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield captured


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    with engine.begin() as connection:
        for table in TABLES:
            connection.exec_driver_sql(table)
    return engine


@pytest.fixture
def classes(engine: sa.Engine) -> Iterator[Any]:
    """The classes, made of the database once it is there and, as in applications, after audit has started."""
    base: Any = automap_base()
    base.prepare(autoload_with=engine)
    yield base.classes
    base.registry.dispose()


def rows(audit: CapturedAudit) -> list[Any]:
    """Return (table, action, key, changes) of each record; a change is (old, new), None where it is unset."""
    found = []
    for record in audit:
        assert record.target is not None
        assert (record.outcome, record.completeness) == ("success", "full")
        changes = {change.field: (change.old or None, change.new or None) for change in record.changes}
        found.append((record.database.table, record.action, record.target.id, changes))
    return found


def test_a_class_is_chosen_by_its_table(audit: CapturedAudit, engine: sa.Engine, classes: Any) -> None:
    with Session(engine) as session:
        windlass = classes.windlass(id=1, name="fore", teeth=9)
        session.add_all([windlass, classes.capstan(id=1, name="aft")])
        session.commit()
        windlass.name = "stern"
        session.get_one(classes.capstan, 1).name = "bow"
        session.commit()
        session.delete(windlass)
        session.delete(session.get_one(classes.capstan, 1))
        session.commit()
    assert rows(audit) == [
        ("windlass", "CREATE", "1", {"name": (None, "fore"), "teeth": (None, 9)}),
        ("windlass", "UPDATE", "1", {"name": ("fore", "stern")}),
        ("windlass", "DELETE", "1", {"name": ("stern", None), "teeth": (9, None)}),
    ]


def test_relationships_and_statements_of_automapped_classes(
    audit: CapturedAudit, engine: sa.Engine, classes: Any
) -> None:
    chain = classes.windlass_chain
    with Session(engine) as session:
        windlass = classes.windlass(id=1, name="fore", teeth=9)
        session.add(windlass)
        session.flush()
        session.add(chain(id=5, length=100, windlass=windlass))
        session.commit()
        session.execute(sa.update(chain).where(chain.windlass_id == 1).values(length=chain.length + 1))
        session.execute(sa.delete(chain).where(chain.length > 100))
        session.execute(sa.insert(chain).values(id=6, length=7, windlass_id=1))
        session.commit()
    found = [(table, verb) for table, verb, _, _ in rows(audit)]
    assert found == [
        ("windlass", "CREATE"),
        *[("windlass_chain", verb) for verb in ("CREATE", "UPDATE", "DELETE", "CREATE")],
    ]
    assert [row[3] for row in told(audit)[1:]] == [
        {"length": 100, "windlass_id": 1},
        {"length": (100, 101)},
        {"length": (101, None), "windlass_id": (1, None)},
        {"length": 7, "windlass_id": 1},
    ]


def test_a_class_of_the_application_that_automap_completes(audit: CapturedAudit, engine: sa.Engine) -> None:
    base: Any = automap_base()

    class Windlass(base):
        __tablename__ = "windlass"

    base.prepare(autoload_with=engine)
    with Session(engine) as session:
        session.add(Windlass(id=2, name="spare"))
        session.commit()
        session.get_one(Windlass, 2).name = "used"
        session.commit()
    base.registry.dispose()
    assert [row[:2] for row in told(audit)] == [("CREATE", "Windlass/2"), ("UPDATE", "Windlass/2")]
    assert told(audit)[1][3] == {"name": ("spare", "used")}
