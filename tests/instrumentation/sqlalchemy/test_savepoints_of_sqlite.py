"""A savepoint of SQLite's outside of a transaction begins one, and its release commits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
import sqlalchemy as sa

from otel_audit.testing import CapturedAudit
from tests.instrumentation.sqlalchemy.models import Tag
from tests.instrumentation.sqlalchemy.told import told

tag: Any = Tag.__table__
WRITE: Final = "INSERT INTO tag (name) VALUES ('one')"
SAVEPOINTS: dict[str, tuple[list[str], bool]] = {
    "released": (["SAVEPOINT a", WRITE, "RELEASE a"], True),
    "released in other words": (["savepoint a", WRITE, "release savepoint a;"], True),
    "rolled back to": (["SAVEPOINT a", WRITE, "ROLLBACK TO a", "RELEASE a"], False),
    "left": (["SAVEPOINT a", WRITE], False),
    "inner of two": (["SAVEPOINT a", "SAVEPOINT b", WRITE, "RELEASE b"], False),
    "both of two": (["SAVEPOINT a", "SAVEPOINT b", WRITE, "RELEASE a"], True),
    "inner of two of one name": (["SAVEPOINT a", "SAVEPOINT a", WRITE, "RELEASE a"], False),
    "both of two of one name": (["SAVEPOINT a", "SAVEPOINT a", WRITE, "RELEASE a", "RELEASE a"], True),
    "inside a transaction": (
        ["INSERT INTO tag (name) VALUES ('')", "SAVEPOINT a", WRITE, "RELEASE a"],
        False,
    ),
    "after another": (["SAVEPOINT a", "RELEASE a", "SAVEPOINT a", WRITE, "RELEASE a"], True),
}


@pytest.fixture
def driver() -> str:
    return "sqlite"


@pytest.mark.parametrize("by_driver", [False, True], ids=["text", "cursor of the driver"])
@pytest.mark.parametrize("name", SAVEPOINTS)
def test_what_a_savepoint_as_text_has_committed_is_a_success_and_nothing_else_is(
    engine: sa.Engine, audit: CapturedAudit, name: str, by_driver: bool
) -> None:
    texts, commits = SAVEPOINTS[name]
    with engine.connect() as connection:
        for text in texts:
            if text is WRITE:
                connection.execute(tag.insert().values(name="one"))
            elif by_driver:
                connection.connection.cursor().execute(text)
            else:
                connection.exec_driver_sql(text)
        connection.rollback()
    with engine.connect() as connection:
        assert connection.scalars(sa.select(tag.c.name)).all() == (["one"] if commits else [])
    written = [row[2] for row in told(audit) if row[3].get("name") == "one"]
    assert written == ["success" if commits else "failure"]


@pytest.mark.parametrize(("depth", "fails"), [(1, False), (2, False), (1, True), (2, True)])
def test_what_begin_nested_has_committed_is_a_success(
    engine: sa.Engine, audit: CapturedAudit, depth: int, fails: bool
) -> None:
    def nested(connection: sa.Connection, left: int) -> None:
        with connection.begin_nested():
            if left > 1:
                nested(connection, left - 1)
            connection.execute(tag.insert().values(name=f"{left}"))
            if fails and left == depth:
                raise KeyError(left)

    with engine.connect() as connection:
        try:
            nested(connection, depth)
        except KeyError:
            assert fails
        connection.rollback()
    with engine.connect() as connection:
        kept = connection.scalars(sa.select(tag.c.name)).all()
    assert kept == ([] if fails else [f"{number}" for number in range(1, depth + 1)])
    assert {row[2] for row in told(audit)} == {"failure" if fails else "success"}


def test_the_next_transaction_is_another_one(
    make_engine: Callable[..., sa.Engine], audit: CapturedAudit
) -> None:
    engine = make_engine()
    tag.metadata.create_all(engine)
    with engine.connect() as connection:
        with connection.begin_nested():
            connection.execute(tag.insert().values(name="kept"))
        connection.execute(tag.insert().values(name="undone"))
        connection.rollback()
    assert [(row[3]["name"], row[2]) for row in told(audit)] == [("kept", "success"), ("undone", "failure")]
