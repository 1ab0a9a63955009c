"""Tables of one name in several databases: what one database does by itself is no matter of the others'."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told


class EastBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class WestBase(DeclarativeBase):
    type_annotation_map = {str: sa.String(30)}


class EastJetty(EastBase):
    __tablename__ = "jetty"

    code: Mapped[str] = mapped_column(primary_key=True)


class EastDinghy(EastBase):
    """Goes with its jetty: a rule that only the catalog has."""

    __tablename__ = "dinghy"

    id: Mapped[int] = mapped_column(primary_key=True)
    jetty: Mapped[str | None]


class WestJetty(WestBase):
    __tablename__ = "jetty"

    code: Mapped[str] = mapped_column(primary_key=True)
    depth: Mapped[int | None]


class WestDinghy(WestBase):
    """Has no jetty, and so follows none."""

    __tablename__ = "dinghy"

    number: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None]


EAST = [
    "CREATE TABLE jetty (code VARCHAR(30) PRIMARY KEY)",
    """CREATE TABLE dinghy (id INTEGER PRIMARY KEY, jetty VARCHAR(30)
       REFERENCES jetty (code) ON DELETE CASCADE ON UPDATE CASCADE)""",
    "INSERT INTO jetty VALUES ('a'), ('b')",
    "INSERT INTO dinghy VALUES (1, 'a'), (2, 'b')",
]
WEST = [
    "CREATE TABLE jetty (code VARCHAR(30) PRIMARY KEY, depth INTEGER)",
    "CREATE TABLE dinghy (number INTEGER PRIMARY KEY, owner VARCHAR(30))",
    "INSERT INTO jetty VALUES ('a', 1), ('b', 2)",
    "INSERT INTO dinghy VALUES (1, 'a'), (2, 'b')",
]

MakeEngine = Callable[[str, list[str]], sa.Engine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeEngine]:
    engines = []

    def make(url: str, ddl: list[str]) -> sa.Engine:
        engine = sa.create_engine(url.format(tmp_path))
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
        with engine.begin() as connection:
            for sql in ddl:
                connection.exec_driver_sql(sql)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(params=["files", "in memory"])
def engines(request: pytest.FixtureRequest, make: MakeEngine) -> tuple[sa.Engine, sa.Engine]:
    if request.param == "files":
        return make("sqlite:///{}/east.sqlite3", EAST), make("sqlite:///{}/west.sqlite3", WEST)
    return make("sqlite:///:memory:", EAST), make("sqlite:///:memory:", WEST)


@pytest.fixture(params=[["*"]])
def audit(request: pytest.FixtureRequest) -> Iterator[CapturedAudit]:
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=[*request.param]))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield captured


@pytest.mark.parametrize("first", ["east", "west"])
def test_a_cascade_is_told_of_the_tables_of_its_own_database(
    engines: tuple[sa.Engine, sa.Engine], audit: CapturedAudit, first: str
) -> None:
    east, west = engines
    works: dict[str, Callable[[], None]] = {
        "east": lambda: run(east, sa.delete(EastJetty).where(EastJetty.code == "a")),
        "west": lambda: run(west, sa.delete(WestJetty).where(WestJetty.code == "a")),
    }
    works.pop(first)()
    works.popitem()[1]()
    run(east, sa.update(EastJetty).where(EastJetty.code == "b").values(code="c"))
    run(west, sa.update(WestJetty).where(WestJetty.code == "b").values(code="c"))
    assert sorted(told(audit), key=str) == [
        ("DELETE", "EastDinghy/1", "success", {"jetty": ("a", None)}),
        ("DELETE", "EastJetty/a", "success", {}),
        ("DELETE", "WestJetty/a", "success", {"depth": (1, None)}),
        ("UPDATE", "EastDinghy/2", "success", {"jetty": ("b", "c")}),
        ("UPDATE", "EastJetty/b", "success", {"code": ("b", "c")}),
        ("UPDATE", "WestJetty/b", "success", {"code": ("b", "c")}),
    ]
    assert {record.completeness for record in audit} == {"full"}


def run(engine: sa.Engine, statement: Any) -> None:
    with Session(engine) as session:
        session.execute(statement)
        session.commit()


@pytest.fixture
def files(make: MakeEngine) -> tuple[sa.Engine, sa.Engine]:
    """The databases, with which both MetaData have been used."""
    east, west = make("sqlite:///{}/east.sqlite3", EAST), make("sqlite:///{}/west.sqlite3", WEST)
    return east, west


@pytest.mark.parametrize(
    ("audit", "wanted"),
    [
        (["*"], ["tests.eastdinghy.delete", "tests.eastjetty.delete", "tests.westjetty.delete"]),
        (["tests.East*"], ["tests.eastdinghy.delete", "tests.eastjetty.delete"]),
        (["tests.West*"], ["tests.westjetty.delete"]),
    ],
    indirect=["audit"],
)
def test_text_means_the_table_of_its_database(
    files: tuple[sa.Engine, sa.Engine], audit: CapturedAudit, wanted: list[str]
) -> None:
    east, west = files
    run(east, sa.insert(EastDinghy).values(id=3))
    run(west, sa.insert(WestDinghy).values(number=3))
    audit.clear()
    for engine in files:
        run(engine, sa.text("DELETE FROM jetty WHERE code = 'a'"))
    assert sorted(record.event_name for record in audit) == wanted
    audit.clear()
    for engine in files:
        connection = engine.raw_connection()
        connection.cursor().execute("DELETE FROM jetty WHERE code = 'b'")
        connection.commit()
        connection.close()
    assert sorted(record.event_name for record in audit) == wanted


def test_who_makes_the_tables_says_whose_they_are(audit: CapturedAudit, make: MakeEngine) -> None:
    east, west = make("sqlite:///{}/east.sqlite3", []), make("sqlite:///{}/west.sqlite3", [])
    EastBase.metadata.create_all(east)
    WestBase.metadata.create_all(west)
    for engine in (east, west):
        run(engine, sa.text("INSERT INTO jetty (code) VALUES ('a')"))
    assert [record.event_name for record in audit] == ["tests.eastjetty.create", "tests.westjetty.create"]


@pytest.mark.parametrize("audit", [["tests.East*"]], indirect=True)
def test_a_second_object_for_a_table_loses_no_record(
    files: tuple[sa.Engine, sa.Engine], audit: CapturedAudit
) -> None:
    east, _ = files
    run(east, sa.insert(EastDinghy).values(id=3))
    again = sa.Table("dinghy", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    audit.clear()
    for statement in (again.delete().where(again.c.id == 3), sa.text("DELETE FROM dinghy WHERE id = 2")):
        run(east, statement)
    assert [record.event_name for record in audit] == ["tests.eastdinghy.delete"] * 2


def test_what_a_database_in_memory_does_is_forgotten_with_it(audit: CapturedAudit, make: MakeEngine) -> None:
    for _ in range(10):
        gone = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        event.listen(gone, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
        with gone.begin() as connection:
            for sql in EAST:
                connection.exec_driver_sql(sql)
        run(gone, sa.delete(EastJetty).where(EastJetty.code == "a"))
        gone.dispose()
        del gone, connection
        gc.collect()
        audit.clear()
        fresh = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        event.listen(fresh, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
        EastBase.metadata.create_all(fresh)
        run(fresh, sa.insert(EastJetty).values(code="a"))
        run(fresh, sa.text("DELETE FROM jetty"))
        assert [record.event_name for record in audit] == ["tests.eastjetty.create", "tests.eastjetty.delete"]
        fresh.dispose()
        audit.clear()
