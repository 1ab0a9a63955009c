"""Reads of sensitive tables: one per statement and table, with the rows and fields it displayed."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    close_all_sessions,
    defer,
    joinedload,
    load_only,
    mapped_column,
    selectinload,
    subqueryload,
    with_polymorphic,
)

from otel_audit import audit_models
from otel_audit.audit_record import AuditRecord
from otel_audit.capture import opt_in
from otel_audit.config.model import AuditConfig, ModelConfig, SQLAlchemyConfig
from otel_audit.errors import SpoolError
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.instrumentation.sqlalchemy.reads import plan, wrappers
from otel_audit.testing import CapturedAudit, capture_audit
from tests.instrumentation.sqlalchemy.models import (
    Base,
    Engineer,
    Everything,
    Pair,
    Parcel,
    Person,
    Reversed,
    Shipment,
    Tag,
)

SENSITIVE = ["tests.Shipment", "tests.Pair", "engineer"]
EVERY_FIELD = ["id", "number", "status", "weight"]
shipment: Any = Shipment.__table__


@pytest.fixture(params=("sqlite", "psycopg", "mysqldb"))
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests said of models in code, and afterwards what this one says."""
    monkeypatch.setattr(opt_in._State, "rules", ())


@pytest.fixture
def config() -> AuditConfig:
    return AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"], reads=SENSITIVE))


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """Three shipments, two with parcels, one with tags."""
    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        tags = [Tag(name="red"), Tag(name="blue")]
        session.add(Shipment(number="A", weight=1, tags=tags, parcels=[Parcel(note="p"), Parcel(note="q")]))
        session.add(Shipment(number="B", weight=2, parcels=[Parcel(note="r")]))
        session.add(Shipment(number="C", weight=3))
        session.add(Parcel(note="nobody's"))
        session.add(Engineer(name="Ann", language="c"))
        session.add(Person(name="Bob"))
        session.add(Pair(left=1, right="x", value="v"))
        session.commit()
    return engine


@pytest.fixture
def reads(engine: sa.Engine, audit: CapturedAudit) -> CapturedAudit:
    """The records, where reads of some tables are recorded."""
    return audit


@pytest.fixture
def session(engine: sa.Engine, reads: CapturedAudit) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def seen(audit: CapturedAudit) -> list[AuditRecord]:
    return [record for record in audit if record.action == "READ"]


def only(audit: CapturedAudit) -> AuditRecord:
    (record,) = seen(audit)
    audit.clear()
    return record


def keys(record: AuditRecord) -> list[str]:
    if record.bulk is not None:
        return sorted(record.bulk.keys)
    assert record.target is not None
    return [record.target.id]


def count(record: AuditRecord) -> tuple[int, str]:
    assert record.bulk is not None
    return record.bulk.count, record.completeness


# --- what is recorded ----------------------------------------------------------------------------


def test_get_names_the_object_and_its_fields(session: Session, reads: CapturedAudit, driver: str) -> None:
    found = session.get(Shipment, 1)
    record = only(reads)
    assert (record.event_name, record.action, record.outcome) == ("tests.shipment.read", "READ", "success")
    assert str(record.target) == "tests.Shipment/1"
    assert sorted(record.fields) == EVERY_FIELD
    assert (record.completeness, record.bulk) == ("full", None)
    assert record.database.table == "shipment"
    assert record.database.system == {"sqlite": "sqlite", "psycopg": "postgresql"}.get(driver, "mariadb")
    assert session.get(Shipment, 1) is found
    assert seen(reads) == [], "the session has it"


def test_a_list_is_one_record(session: Session, reads: CapturedAudit) -> None:
    assert len(session.scalars(sa.select(Shipment)).all()) == 3
    record = only(reads)
    assert str(record.target) == "tests.Shipment"
    assert (keys(record), count(record)) == (["1", "2", "3"], (3, "full"))


def test_a_query_that_finds_nothing_is_on_record(session: Session, reads: CapturedAudit) -> None:
    assert session.scalars(sa.select(Shipment).where(Shipment.number == "Z")).first() is None
    assert count(only(reads)) == (0, "full")


def test_what_is_deferred_is_read_when_it_is_loaded(session: Session, reads: CapturedAudit) -> None:
    found = session.scalars(
        sa.select(Shipment).options(load_only(Shipment.number)).where(Shipment.id == 1)
    ).one()
    assert sorted(only(reads).fields) == ["id", "number"]
    assert found.weight == 1
    record = only(reads)
    assert keys(record) == ["1"] or count(record) == (1, "count")
    assert "weight" in record.fields
    session.expunge_all()
    session.scalars(sa.select(Shipment).options(defer(Shipment.status))).all()
    assert sorted(only(reads).fields) == ["id", "number", "weight"]


def test_columns_name_their_fields(engine: sa.Engine, session: Session, reads: CapturedAudit) -> None:
    other = aliased(Shipment)
    for statement in (
        sa.select(Shipment.id, Shipment.status),
        sa.select(shipment.c.id.label("key"), shipment.c.st.label("name")),
        sa.select(other.id, sa.literal("x"), other.status).limit(3),
    ):
        session.execute(statement).all()
        (record,) = seen(reads)
        assert sorted(record.fields) == ["id", "status"], "named after attributes"
        reads.clear()
    with engine.connect() as connection:
        assert connection.execute(sa.select(shipment.c.id, shipment.c.st)).first() is not None
        assert keys(only(reads)) == ["1"]
        assert connection.execute(sa.select(shipment.c.weight).order_by("id")).scalars().all() == [1, 2, 3]
    record = only(reads)
    assert (record.fields, count(record)) == (["weight"], (3, "count")), "no key was selected"


def test_expressions_show_the_columns_they_are_made_of(session: Session, reads: CapturedAudit) -> None:
    session.execute(
        sa.select(
            Shipment.id,
            sa.func.upper(Shipment.number),
            sa.case((Shipment.weight > 1, "heavy"), else_=Shipment.status),
        ).where(Shipment.id == 1)
    ).all()
    record = only(reads)
    assert sorted(record.fields) == EVERY_FIELD
    assert keys(record) == ["1"]


def test_subqueries_and_ctes_are_followed_to_their_table(session: Session, reads: CapturedAudit) -> None:
    for inner in (
        sa.select(Shipment.id, Shipment.number).where(Shipment.weight > 1).subquery(),
        sa.select(Shipment.id, Shipment.number, Shipment.weight).where(Shipment.weight > 1).cte(),
    ):
        session.execute(sa.select(inner.c.id, inner.c.number)).all()
        record = only(reads)
        assert (keys(record), record.fields) == (["2", "3"], ["id", "number"])
    entity = aliased(Shipment, sa.select(Shipment).where(Shipment.weight == 1).subquery())
    session.scalars(sa.select(entity)).all()
    assert keys(only(reads)) == ["1"]
    number = sa.select(Shipment.number).where(Shipment.id == Parcel.shipment_id).scalar_subquery()
    session.execute(sa.select(Parcel.id, number)).all()
    record = only(reads)
    assert (str(record.target), record.fields, record.completeness) == ("tests.Shipment", ["number"], "count")
    session.execute(
        sa.select(Parcel.id, sa.exists().where(Shipment.id == Parcel.shipment_id).label("known"))
    ).all()
    session.scalars(sa.select(Parcel).join(Shipment).where(Shipment.number == "A")).all()
    assert seen(reads) == [], "what filters displays nothing"


@pytest.mark.parametrize(
    ("ask", "kind", "number"),
    [
        (sa.select(sa.func.count()).select_from(Shipment), "count", 3),
        (sa.select(sa.func.count(Shipment.id)).where(Shipment.weight > 1), "count", 2),
        (sa.select(sa.func.count()).select_from(sa.select(Shipment).limit(2).subquery()), "count", 2),
        (sa.select(sa.exists().where(Shipment.number == "A")), "exists", 1),
        (sa.select(sa.exists(sa.select(Shipment.id).where(Shipment.number == "Z"))), "exists", 0),
        (sa.select(sa.literal(1)).select_from(Shipment).limit(1), "exists", 1),
        (sa.select(sa.literal(1)).select_from(Shipment).where(Shipment.number == "Z"), "exists", 0),
    ],
)
def test_counting_is_a_read_without_fields(
    session: Session, reads: CapturedAudit, ask: Any, kind: str, number: int
) -> None:
    session.execute(ask).scalar()
    record = only(reads)
    assert str(record.target) == "tests.Shipment"
    assert (count(record), record.fields) == ((number, "count"), [])
    assert record.attributes == {"query": kind}


def test_the_legacy_query_counts_too(session: Session, reads: CapturedAudit) -> None:
    assert session.query(Shipment).filter(Shipment.weight > 1).count() == 2
    assert count(only(reads)) == (2, "count")
    assert session.query(Shipment).order_by(Shipment.id).first() is not None
    assert keys(only(reads)) == ["1"]


def test_an_aggregate_says_which_fields_it_was_made_of(session: Session, reads: CapturedAudit) -> None:
    session.execute(sa.select(sa.func.max(Shipment.weight), sa.func.count(Shipment.number.distinct()))).all()
    record = only(reads)
    assert (sorted(record.fields), record.completeness, record.attributes) == (
        ["number", "weight"],
        "statement",
        {"query": "aggregate"},
    )
    session.execute(sa.select(sa.func.sum(Shipment.weight)).select_from(Parcel).join(Parcel.shipment)).all()
    assert (only(reads)).fields == ["weight"]
    session.execute(sa.select(Shipment.status, sa.func.max(Shipment.weight)).group_by(Shipment.status)).all()
    record = only(reads)
    assert (count(record), record.fields) == ((1, "count"), ["status", "weight"])


def test_what_is_loaded_for_a_relationship(session: Session, reads: CapturedAudit) -> None:
    parcels = session.scalars(sa.select(Parcel).order_by(Parcel.id)).all()
    assert seen(reads) == []
    assert parcels[0].shipment is not None
    assert keys(only(reads)) == ["1"]
    for option in (joinedload, selectinload, subqueryload):
        session.expunge_all()
        found = session.scalars(sa.select(Parcel).options(option(Parcel.shipment)).order_by(Parcel.id)).all()
        assert [None if each.shipment is None else each.shipment.id for each in found] == [1, 1, 2, None]
        record = only(reads)
        assert (keys(record), count(record)[1]) == (["1", "2"], "full")
        assert sorted(record.fields) == EVERY_FIELD
        session.expunge_all()
        shipments = session.scalars(sa.select(Shipment).options(option(Shipment.parcels))).unique().all()
        assert sum(len(each.parcels) for each in shipments) == 3
        assert keys(only(reads)) == ["1", "2", "3"], option.__name__
        session.expunge_all()
        shipments = (
            session.scalars(sa.select(Shipment).options(option(Shipment.tags)).limit(2)).unique().all()
        )
        assert sum(len(each.tags) for each in shipments) == 2
        record = only(reads)
        assert keys(record) == ["1", "2"], "the keys that relate the tags to them are no further read"
        assert sorted(record.fields) == EVERY_FIELD


def test_refreshes_are_reads(session: Session, reads: CapturedAudit) -> None:
    found = session.get_one(Shipment, 1)
    reads.clear()
    session.refresh(found)
    assert keys(only(reads)) == ["1"]
    session.expire(found)
    assert found.number == "A"
    assert keys(only(reads)) == ["1"]
    session.refresh(found, ["weight"])
    assert "weight" in only(reads).fields


def test_composite_keys(session: Session, reads: CapturedAudit) -> None:
    session.get(Pair, (1, "x"))
    assert keys(only(reads)) == ['[1,"x"]']
    session.execute(sa.select(Pair.right, Pair.value, Pair.left)).all()
    assert keys(only(reads)) == ['[1,"x"]']
    session.execute(sa.select(Pair.right)).all()
    assert count(only(reads)) == (1, "count")


def test_a_child_is_itself_and_its_columns_lie_in_two_tables(session: Session, reads: CapturedAudit) -> None:
    session.scalars(sa.select(Engineer)).all()
    record = only(reads)
    assert str(record.target) == "tests.Engineer/1"
    assert set(record.fields) == {"id", "name", "kind", "language"}
    session.execute(sa.select(Engineer.name)).all()
    record = only(reads)
    assert (str(record.target), record.fields) == ("tests.Engineer", ["name"])
    session.scalars(sa.select(Person)).all()
    assert seen(reads) == []
    session.expunge_all()
    session.scalars(sa.select(with_polymorphic(Person, [Engineer]))).all()
    record = only(reads)
    assert str(record.target) == "tests.Engineer/1", "no row of it for the other person"


def test_a_table_joined_with_itself_is_one_record(session: Session, reads: CapturedAudit) -> None:
    other = aliased(Shipment)
    session.execute(sa.select(Shipment, other).join(other, other.id == Shipment.id + 2)).all()
    assert keys(only(reads)) == ["1", "3"]


def test_unions_name_objects_only_where_all_parts_are_of_one_table(
    session: Session, reads: CapturedAudit
) -> None:
    session.execute(
        sa.union(
            sa.select(Shipment.id, Shipment.number).where(Shipment.id == 1),
            sa.select(Shipment.id, Shipment.number).where(Shipment.id == 2),
        )
    ).all()
    assert keys(only(reads)) == ["1", "2"]
    both = [sa.select(Shipment.id, Shipment.number), sa.select(Tag.id, Tag.name)]
    for parts in (both, both[::-1]):
        union = sa.union_all(*parts)
        for statement in (union, sa.select(*union.subquery().c)):
            session.execute(statement).all()
            record = only(reads)
            assert (count(record), record.fields) == ((5, "count"), ["id", "number"])
            assert str(record.target) == "tests.Shipment"


def test_entities_from_text(session: Session, reads: CapturedAudit) -> None:
    text = sa.text("SELECT st, id FROM shipment ORDER BY id")
    session.scalars(sa.select(Shipment).from_statement(text)).all()
    record = only(reads)
    assert (keys(record), sorted(record.fields)) == (["1", "2", "3"], ["id", "status"])
    session.execute(sa.text("SELECT id, number FROM shipment").columns(Shipment.id, Shipment.number)).all()
    assert keys(only(reads)) == ["1", "2", "3"]


def test_text_among_the_columns_is_a_read_of_the_table(session: Session, reads: CapturedAudit) -> None:
    session.execute(sa.select(sa.literal_column("number")).select_from(Shipment)).all()
    assert count(only(reads)) == (3, "count")
    session.execute(sa.select(sa.text("*")).select_from(shipment)).all()
    assert count(only(reads)) == (3, "count")


def test_keys_are_written_as_the_application_knows_them(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit, config: AuditConfig
) -> None:
    class Odd(DeclarativeBase):
        pass

    class Sample(Odd):
        __tablename__ = "sample"
        __audit__ = {"reads": True}
        id: Mapped[str] = mapped_column(Reversed, primary_key=True)

    engine = make_engine()
    Odd.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Sample(id="abc"))
        session.commit()
        audit.clear()
        session.scalars(sa.select(Sample)).all()
    assert keys(only(audit)) == ["abc"]


# --- how results are fetched -----------------------------------------------------------------------


def _one_by_one(result: Any) -> Any:
    return list(result)


FETCHES: dict[str, Callable[[Any], Any]] = {
    "all": lambda result: result.all(),
    "one by one": _one_by_one,
    "fetchone": lambda result: list(iter(result.fetchone, None)),
    "fetchmany": lambda result: [row for rows in iter(lambda: result.fetchmany(2), []) for row in rows],
    "partitions": lambda result: [row for rows in result.partitions(2) for row in rows],
    "yield_per": lambda result: list(result.yield_per(2)),
    "mappings": lambda result: [tuple(row.values()) for row in result.mappings()],
    "unique": lambda result: result.unique().all(),
    "columns": lambda result: result.columns(0, 1).all(),
    "freeze": lambda result: result.freeze()().all(),
    "some, then all": lambda result: [result.fetchone(), *result.fetchmany(1), *result.all()],
}


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "streams"])
@pytest.mark.parametrize("orm", [False, True], ids=["core", "orm"])
def test_a_result_is_as_it_was_however_it_is_fetched(
    engine: sa.Engine, reads: CapturedAudit, streams: bool, orm: bool
) -> None:
    options = {"stream_results": streams}
    for name, fetch in FETCHES.items():
        if name == "some, then all" and orm and streams:  # SQLAlchemy itself loses rows there
            continue
        with Session(engine) as session, engine.connect() as connection:
            if orm:
                statement = sa.select(Shipment.id, Shipment.number).order_by(Shipment.id)
                found = fetch(session.execute(statement, execution_options=options))
            else:
                core = sa.select(shipment.c.id, shipment.c.number).order_by(shipment.c.id)
                found = fetch(connection.execute(core, execution_options=options))
            assert [tuple(row) for row in found] == [(1, "A"), (2, "B"), (3, "C")], name
            record = only(reads)
        assert (keys(record), count(record)) == (["1", "2", "3"], (3, "full")), name
        assert (record.fields, record.outcome) == (["id", "number"], "success")


def test_entities_by_yield_per(session: Session, reads: CapturedAudit) -> None:
    statement = sa.select(Shipment).order_by(Shipment.id)
    rows = session.scalars(statement, execution_options={"yield_per": 1})
    assert seen(reads) == []
    next(rows)
    assert seen(reads) == [], "an intent is on disk, the record waits for the end"
    assert [each.number for each in rows] == ["B", "C"]
    assert keys(only(reads)) == ["1", "2", "3"]


@pytest.mark.parametrize("ends", ["closed", "first", "connection closed", "garbage"])
def test_a_result_left_early_names_what_was_fetched(
    engine: sa.Engine, reads: CapturedAudit, ends: str
) -> None:
    connection = engine.connect()
    result: Any = connection.execute(sa.select(shipment.c.id, shipment.c.number).order_by(shipment.c.id))
    if ends == "first":
        assert result.first() == (1, "A")
    else:
        assert result.fetchone() == (1, "A")
    if ends == "closed":
        result.close()
    elif ends == "garbage":
        del result
        connection.execute(sa.select(shipment.c.weight)).close()
    elif ends == "connection closed":
        connection.close()
    assert keys(only(reads)) == ["1"]
    connection.close()
    assert seen(reads) == []


def test_a_result_that_nobody_fetches_from_displays_nothing(engine: sa.Engine, reads: CapturedAudit) -> None:
    with engine.connect() as connection:
        connection.execute(sa.select(shipment)).close()
        connection.execute(sa.select(shipment))
    assert seen(reads) == []


def test_a_reader_that_is_killed_leaves_what_it_had_begun(engine: sa.Engine, reads: CapturedAudit) -> None:
    """The intent is on disk before the first row: whoever adopts the spool ships it as ``unknown``."""
    with engine.connect() as connection:
        result = connection.execute(sa.select(shipment))
        result.fetchone()
        content = b"".join(
            path.read_bytes() for path in Path(reads.pipeline.directory).rglob("*") if path.is_file()
        )
        assert b"tests.shipment.read" in content
        assert seen(reads) == []
        result.close()


def test_more_rows_than_the_limit_are_counted(engine: sa.Engine) -> None:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(reads=["shipment"], max_read_ids=2))
    with capture_audit(config) as audit:
        SQLAlchemyAuditInstrumentor().instrument(config=config)
        try:
            with Session(engine) as session:
                session.scalars(sa.select(Shipment)).all()
                session.execute(sa.select(Parcel, Shipment).join(Parcel.shipment)).all()
                session.scalars(sa.select(Shipment).limit(2)).all()
        finally:
            SQLAlchemyAuditInstrumentor().uninstrument()
        every, joined, exact = seen(audit)
    assert (len(keys(every)), count(every)) == (2, (3, "count"))
    assert (len(keys(joined)), count(joined)) == (2, (2, "full"))
    assert (len(keys(exact)), count(exact)) == (2, (2, "full"))


def test_cached_statements_say_what_they_found_each_time(session: Session, reads: CapturedAudit) -> None:
    for number, key in (("A", "1"), ("B", "2"), ("C", "3")):
        session.scalars(sa.select(Shipment).where(Shipment.number == number)).one()
        assert keys(only(reads)) == [key]


TEXTS = [
    ("SELECT id, st FROM shipment ORDER BY id", {"id", "status"}, 3),
    ("SELECT * FROM shipment WHERE number = 'A'", {"id", "number", "status", "weight"}, 1),
    ("select s.number from parcel p join shipment s on s.id = p.shipment_id", {"number"}, 3),
    ("WITH w AS (SELECT weight FROM shipment) SELECT weight FROM w", {"weight"}, 3),
    ("SELECT count(*) FROM shipment", set(), 1),
    ("SELECT p.note FROM parcel p, shipment WHERE shipment.id = p.shipment_id", set(), 3),
    ("SELECT number FROM shipment UNION SELECT name FROM tag", {"number"}, 5),
]


@pytest.mark.parametrize("way", ["text", "driver"])
@pytest.mark.parametrize("sqlglot", ["with sqlglot", "without"])
@pytest.mark.parametrize(("sql", "fields", "rows"), TEXTS)
def test_text_tells_its_tables_its_columns_and_its_rows(
    session: Session,
    reads: CapturedAudit,
    monkeypatch: pytest.MonkeyPatch,
    sql: str,
    fields: set[str],
    rows: int,
    sqlglot: str,
    way: str,
) -> None:
    if sqlglot == "without":
        monkeypatch.setitem(sys.modules, "sqlglot", None)
    connection = session.connection()
    result = connection.execute(sa.text(sql)) if way == "text" else connection.exec_driver_sql(sql)
    assert seen(reads) == [], "nothing was fetched"
    assert len(result.all()) == rows
    record = only(reads)
    assert (record.event_name, set(record.fields)) == ("tests.shipment.read", fields)
    assert count(record) == (rows, "count")
    assert record.bulk is not None
    assert record.bulk.keys == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT note FROM parcel WHERE note <> 'shipment'",
        "SELECT name AS shipment FROM tag -- shipment",
        "WITH shipment AS (SELECT name FROM tag) SELECT name FROM shipment",
        "UPDATE parcel SET note = (SELECT max(number) FROM shipment)",
        "DELETE FROM parcel WHERE shipment_id IN (SELECT id FROM shipment)",
    ],
)
def test_text_that_displays_no_sensitive_table_is_no_read(
    session: Session, reads: CapturedAudit, sql: str
) -> None:
    session.execute(sa.text(sql))
    session.connection().exec_driver_sql(sql)
    session.commit()
    assert seen(reads) == []


def test_text_fetched_piece_by_piece(session: Session, reads: CapturedAudit) -> None:
    result = session.execute(sa.text("SELECT id FROM shipment, pair ORDER BY 1"))
    assert len(result.fetchmany(2)) == 2
    result.close()
    assert [(record.event_name, count(record)) for record in seen(reads)] == [
        ("tests.shipment.read", (2, "count")),
        ("tests.pair.read", (2, "count")),
    ]


def test_a_failing_statement_displays_nothing(session: Session, reads: CapturedAudit) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        session.execute(sa.select(Shipment.id, sa.func.no_such_function(Shipment.number))).all()
    assert seen(reads) == []


# --- what is not -----------------------------------------------------------------------------------


def test_other_tables_are_not_recorded(session: Session, reads: CapturedAudit) -> None:
    session.scalars(sa.select(Tag)).all()
    session.scalars(sa.select(Parcel)).all()
    session.execute(sa.select(sa.func.count()).select_from(Tag)).all()
    session.execute(sa.text("SELECT 1")).all()
    assert seen(reads) == []


@pytest.mark.parametrize("config", [AuditConfig(sqlalchemy=SQLAlchemyConfig(reads=["*"]))], ids=["all"])
def test_reflection_reads_no_data(engine: sa.Engine, reads: CapturedAudit) -> None:
    metadata = sa.MetaData()
    metadata.reflect(engine)
    assert "shipment" in metadata.tables
    Base.metadata.create_all(engine)
    assert seen(reads) == []


def test_writing_is_not_reading(session: Session, reads: CapturedAudit) -> None:
    found = session.get_one(Shipment, 1)
    reads.clear()
    found.weight = 8
    session.commit()
    found.weight = 9  # expired: the flush loads what it needs
    session.commit()
    session.execute(sa.update(Shipment).where(Shipment.weight > 1).values(weight=5))
    session.execute(sa.delete(Parcel))
    session.commit()
    assert seen(reads) == []
    tag = session.get_one(Tag, 1)
    session.delete(found)
    session.commit()
    assert tag is not None
    assert [record for record in seen(reads) if "weight" not in record.fields] == []


def test_what_is_loaded_to_be_deleted_is_no_read(session: Session, reads: CapturedAudit) -> None:
    found = session.get_one(Shipment, 1)
    reads.clear()
    session.delete(found)  # loads its parcels and tags
    session.flush()
    assert seen(reads) == []


def test_a_read_does_not_wait_for_the_commit(session: Session, reads: CapturedAudit) -> None:
    session.get_one(Shipment, 1)
    assert len(seen(reads)) == 1
    session.rollback()
    assert only(reads).outcome == "success"


def test_no_statement_is_added(engine: sa.Engine, session: Session, reads: CapturedAudit) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    session.get_one(Shipment, 1)
    session.scalars(sa.select(Shipment)).all()
    assert len(statements) == 2


# --- how it is chosen --------------------------------------------------------------------------------


def test_single_tables_can_be_switched_on_and_off(engine: sa.Engine) -> None:
    for options, expected in (
        ({"model": {"tests.Shipment": ModelConfig(reads=True)}}, 1),
        ({"reads": ["*"], "model": {"tests.Shipment": ModelConfig(reads=False)}}, 0),
        ({"reads": ["*", "!shipment"]}, 0),
        ({}, 0),
    ):
        config = AuditConfig(sqlalchemy=SQLAlchemyConfig(**options))
        with capture_audit(config) as audit:
            SQLAlchemyAuditInstrumentor().instrument(config=config)
            try:
                with Session(engine) as session:
                    session.get_one(Shipment, 1)
            finally:
                SQLAlchemyAuditInstrumentor().uninstrument()
            assert len(seen(audit)) == expected, options


def test_code_says_so_too(engine: sa.Engine) -> None:
    config = AuditConfig()
    with capture_audit(config) as audit:
        SQLAlchemyAuditInstrumentor().instrument(config=config)
        try:
            with Session(engine) as session:
                session.scalars(sa.select(Parcel)).all()
                assert seen(audit) == []
                audit_models(Parcel, reads=True)
                session.scalars(sa.select(Parcel)).all()
            assert len(seen(audit)) == 1
            SQLAlchemyAuditInstrumentor().uninstrument()
            SQLAlchemyAuditInstrumentor().instrument(config=config)
            with Session(engine) as session:
                session.scalars(sa.select(Parcel)).all()
        finally:
            SQLAlchemyAuditInstrumentor().uninstrument()
        assert len(seen(audit)) == 2


def _before(engine: sa.Engine) -> list[Any]:
    from sqlalchemy.orm.unitofwork import UOWTransaction

    return [
        dict(vars(UOWTransaction)),
        dict(vars(Session)),
        dict(vars(sa.Connection)),
        len(list(engine.pool.dispatch.reset)),
    ]


def test_nothing_more_is_listened_to_without_reads_and_all_is_taken_back(engine: sa.Engine) -> None:
    gc.collect()  # a class of another test's, whose reads are to be recorded
    plain = _before(engine)
    SQLAlchemyAuditInstrumentor().instrument(config=AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"])))
    try:
        assert _before(engine)[0] == plain[0]
    finally:
        SQLAlchemyAuditInstrumentor().uninstrument()
    assert _before(engine) == plain
    SQLAlchemyAuditInstrumentor().instrument(config=AuditConfig(sqlalchemy=SQLAlchemyConfig(reads=["*"])))
    try:
        assert _before(engine)[0] != plain[0]
        assert not engine._has_events
    finally:
        SQLAlchemyAuditInstrumentor().uninstrument()
    assert _before(engine) == plain


def test_what_a_statement_displays_is_worked_out_once(
    session: Session, reads: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    plain = plan.displayed_by

    def look(compiled: Any, *args: Any) -> Any:
        looked.append(compiled)
        return plain(compiled, *args)

    monkeypatch.setattr(wrappers, "displayed_by", look)
    for _ in range(5):
        session.scalars(sa.select(Everything.id).where(Everything.x == 77)).all()
        session.scalars(sa.select(Shipment).where(Shipment.weight == 77)).all()
    assert len(looked) == 2


# --- our own faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["displayed_by", "Tally", "ReadRecords", "WatchedAnswer", "_Watched"])
def test_a_fault_of_ours_costs_the_record_only(
    engine: sa.Engine, reads: CapturedAudit, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("our fault")

    def ask() -> list[Any]:
        with Session(engine) as session:
            return [
                [each.number for each in session.scalars(sa.select(Shipment).order_by(Shipment.id))],
                session.execute(sa.select(sa.func.count()).select_from(Shipment)).scalar(),
                list(session.connection().execute(sa.select(shipment).order_by(shipment.c.id))),
            ]

    expected = ask()
    close_all_sessions()
    engine.clear_compiled_cache()
    monkeypatch.setattr(wrappers, broken, fail)
    assert ask() == expected
    assert reads.pipeline.health.capture_failures["read"] > 0


@pytest.mark.parametrize("policy", ["fail_open", "fail_closed"])
def test_a_record_that_cannot_be_kept_withholds_the_rows_if_told_to(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SpoolError("disk full")

    config = AuditConfig(on_error=policy, sqlalchemy=SQLAlchemyConfig(reads=["*"]))
    asks: list[Callable[[Session], Any]] = [
        lambda session: session.get_one(Shipment, 1),
        lambda session: session.connection().execute(sa.select(shipment)).fetchone(),
        lambda session: session.scalar(sa.select(sa.func.count()).select_from(Shipment)),
    ]
    with capture_audit(config) as audit:
        SQLAlchemyAuditInstrumentor().instrument(config=config)
        try:
            monkeypatch.setattr(audit.pipeline.spool, "append", full)
            monkeypatch.setattr(audit.pipeline.spool, "intend", full)
            for ask in asks:
                with Session(engine) as session:
                    if policy == "fail_open":
                        assert ask(session)
                    else:
                        with pytest.raises(SpoolError, match="disk full"):
                            ask(session)
        finally:
            monkeypatch.undo()
            SQLAlchemyAuditInstrumentor().uninstrument()


def test_a_hook_that_reads_is_not_recorded_for_ever(
    engine: sa.Engine, session: Session, reads: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks run while a record is made; what they ask for is our doing, not the application's."""

    def with_more(record: AuditRecord) -> AuditRecord:
        with Session(engine) as other:
            other.get_one(Shipment, 2)
        return record

    monkeypatch.setattr(reads.pipeline.logger, "_hooks", (with_more,))
    session.get_one(Shipment, 1)
    assert len(seen(reads)) == 1


# --- asyncio -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["sqlite", "asyncpg"], indirect=True)
def test_async_sessions_and_streams(url: sa.URL, audit: CapturedAudit, driver: str) -> None:
    async def walk() -> None:
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite") if driver == "sqlite" else url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(shipment.insert(), [{"number": number} for number in "ABC"])
        audit.clear()
        ordered = sa.select(Shipment).order_by(Shipment.id)
        async with AsyncSession(engine) as session, AsyncSession(engine) as other:
            assert (await session.get_one(Shipment, 1)).number == "A"
            assert keys(only(audit)) == ["1"]
            found = await session.stream_scalars(ordered.execution_options(yield_per=1))
            assert [each.number async for each in found] == ["A", "B", "C"]
            assert keys(only(audit)) == ["1", "2", "3"]
            early = await session.stream(sa.select(Shipment.id).order_by(Shipment.id))
            assert await early.fetchone() == (1,)
            await early.close()
            assert "1" in keys(only(audit))
            both = asyncio.gather(*(each.scalars(ordered) for each in (session, other)))
            assert [len(each.all()) for each in await both] == [3, 3]
            assert [keys(record) for record in seen(audit)] == [["1", "2", "3"]] * 2
            audit.clear()
            await session.delete(await session.get_one(Shipment, 3))
            await session.commit()
            assert [keys(record) for record in seen(audit)] == [["3"]]
            assert len(audit.find(action="DELETE", outcome="success")) == 1
        await engine.dispose()

    asyncio.run(walk())


@pytest.mark.parametrize("driver", ["sqlite"], indirect=True)
def test_what_one_task_writes_hides_no_read_of_another(url: sa.URL, audit: CapturedAudit) -> None:
    """A flush loads for itself while it waits; what other tasks read meanwhile is a read."""

    async def work() -> None:
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(shipment.insert(), [{"number": number} for number in "ABC"])

        async def read() -> None:
            async with AsyncSession(engine) as session:
                for _ in range(20):
                    await session.execute(sa.select(Shipment.id, Shipment.number))

        async def write() -> None:
            async with AsyncSession(engine) as session:
                for number in range(5):
                    each = await session.get_one(Shipment, 1)
                    each.weight = number
                    await session.commit()

        audit.clear()
        await asyncio.gather(read(), write(), read())
        await engine.dispose()

    asyncio.run(work())
    lists = [record for record in seen(audit) if record.fields == ["id", "number"]]
    assert [len(keys(record)) for record in lists] == [3] * 40
