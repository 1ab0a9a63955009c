"""What SQLAlchemy is measured at: each job makes its objects and statements, and returns what is measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from benchmarks.sqlalchemy_tables import values

ROWS: Final = 1000
SINGLE: Final = 100
LISTED: Final = 100
_LISTS: Final = 10
_AGAIN: Final = itertools.count()


class Job(NamedTuple):
    """Something to measure.

    ``prepare`` takes a session and a model, whose table has ``rows`` rows, and returns what is measured;
    after that comes a COMMIT, which is measured as well. ``times`` is how often it is done at once,
    ``settings`` what it is audited with.
    """

    what: str
    prepare: Callable[[Session, Any], Callable[[], object]]
    rows: int = ROWS
    times: int = 1
    settings: Mapping[str, Any] = {}


def _flush_inserts(session: Session, model: Any) -> Callable[[], object]:
    session.add_all([model(**values(number)) for number in range(ROWS)])
    return session.flush


def _loaded(session: Session, model: Any) -> list[Any]:
    return list(session.scalars(select(model)))


def _flush_updates(session: Session, model: Any) -> Callable[[], object]:
    for number, row in enumerate(_loaded(session, model)):
        row.title, row.stock = f"Changed {number}", -number
    return session.flush


def _flush_deletes(session: Session, model: Any) -> Callable[[], object]:
    for row in _loaded(session, model):
        session.delete(row)
    return session.flush


def _update(session: Session, model: Any) -> Callable[[], object]:
    statement = update(model).where(model.id <= ROWS).values(title="Changed", stock=-1)
    return lambda: session.execute(statement)


def _delete(session: Session, model: Any) -> Callable[[], object]:
    return lambda: session.execute(delete(model).where(model.id <= ROWS))


def _executemany(session: Session, model: Any) -> Callable[[], object]:
    rows = [values(number) for number in range(ROWS)]
    connection = session.connection()
    return lambda: connection.execute(insert(model.__table__), rows)


def _one_row(session: Session, model: Any) -> Callable[[], object]:
    def work() -> None:
        for number in range(1, SINGLE + 1):
            session.get_one(model, number).title = f"Changed {number} again {next(_AGAIN)}"
            session.commit()

    return work


def _lists(session: Session, model: Any) -> Callable[[], object]:
    def work() -> None:
        for _ in range(_LISTS):
            if len(session.scalars(select(model)).all()) != LISTED:
                raise RuntimeError("not all rows were read")
            session.expunge_all()

    return work


def _by_key(session: Session, model: Any) -> Callable[[], object]:
    def work() -> None:
        for number in range(1, SINGLE + 1):
            session.get_one(model, number)

    return work


def _select(session: Session, model: Any) -> Callable[[], object]:
    statement = select(model.__table__).where(model.id == 1)
    connection = session.connection()
    return lambda: [connection.execute(statement).all() for _ in range(ROWS)]


READS: Final = {"models": ["!bench_article"], "reads": ["bench_article"]}
"""The settings under which reads alone are audited."""

JOBS: Final = {
    "flush inserts": Job(f"flush of {ROWS} inserts", _flush_inserts, rows=0),
    "flush updates": Job(f"flush of {ROWS} updates", _flush_updates),
    "flush deletes": Job(f"flush of {ROWS} deletes", _flush_deletes),
    "execute(update)": Job(f"execute(update) of {ROWS}", _update),
    "execute(delete)": Job(f"execute(delete) of {ROWS}", _delete),
    "executemany": Job(
        f"Core executemany of {ROWS}, keys never", _executemany, rows=0, settings={"keys": "never"}
    ),
    "executemany, keys": Job(
        f"Core executemany of {ROWS}, keys always", _executemany, rows=0, settings={"keys": "always"}
    ),
    "one row": Job("one row in a transaction", _one_row, SINGLE, SINGLE),
    "reads of a list": Job(f"a list of {LISTED}, reads audited", _lists, LISTED, _LISTS, READS),
    "read by key": Job("an object by its key, reads audited", _by_key, SINGLE, SINGLE, READS),
}
NOT_AUDITED: Final = Job("a statement not audited", _select, 1, ROWS)
NOT_READ: Final = Job("the same, reads of others audited", _select, 1, ROWS, READS)
