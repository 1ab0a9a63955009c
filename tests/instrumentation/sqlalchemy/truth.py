"""What really happened to the rows, told by the database's own triggers, and the trail held against it.

Each operation of a workload has a mark of its own: the context of its records names it as the reason, and the
triggers log it beside each change of a row. So what an operation recorded is compared with what it did.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from msgspec import UNSET
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Numeric,
    Table,
    Uuid,
    event,
    text,
)
from sqlalchemy.orm import configure_mappers

from otel_audit.audit_record import AuditRecord
from otel_audit.values import key_text
from tests.instrumentation.sqlalchemy.zoo import WATCHED, Base, Cents

LOG: Final = "truth_log"
VERBS: Final = {"CREATE": "INSERT", "UPDATE": "UPDATE", "DELETE": "DELETE"}
MADE_BY_THE_DATABASE: Final = {("keeper", "doubled"), ("keeper", "made")}
"""Columns a record need not have: the statement neither names nor returns them."""
AUTOMATIC: Final = frozenset({"touched", "version"})
"""What SQLAlchemy writes with every UPDATE: changes of nothing else are none of the application's."""
CASCADED: Final = ("visit", "DELETE")
"""What the database deletes by a rule of its own, with the rows of ``animal``."""


class RowChange(NamedTuple):
    """One row changed: ``old`` and ``new`` by column, those that differ in an update."""

    table: str
    verb: str
    key: str
    old: Mapping[str, Any]
    new: Mapping[str, Any]


class Lesser(NamedTuple):
    """What a record says that does not list rows."""

    table: str
    verb: str
    level: str
    rows: int | None

    def verbs(self) -> frozenset[str]:
        """Return what the triggers call what it tells of."""
        return frozenset(VERBS.values() if self.verb == "UPSERT" else [VERBS.get(self.verb, "")])


# --- the triggers ------------------------------------------------------------------------------------


def install(connection: Connection) -> None:
    """Make the log and the triggers of all tables."""
    name = connection.dialect.name
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "postgresql": _postgresql,
        "sqlite": _sqlite,
        "mysql": _mariadb,
        "mariadb": _mariadb,
    }
    for statement in makers[name]():
        connection.exec_driver_sql(statement.replace("%", "%%") if name != "sqlite" else statement)


def _postgresql() -> Iterator[str]:
    yield f"CREATE TABLE {LOG} (n bigserial, mark text, tbl text, verb text, old jsonb, new jsonb)"
    yield (
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO {LOG} (mark, tbl, verb, old, new) VALUES (current_setting('truth.mark', true), "
        "TG_TABLE_NAME, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, "
        "CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END); RETURN NULL; END $$"
    )
    for table in WATCHED:
        yield (
            f"CREATE TRIGGER {table.name}_truth AFTER INSERT OR UPDATE OR DELETE ON {table.name} "
            "FOR EACH ROW EXECUTE FUNCTION tell()"
        )


def _sqlite() -> Iterator[str]:
    yield f"CREATE TABLE {LOG} (n INTEGER PRIMARY KEY, mark, tbl, verb, old, new)"
    yield from _each_trigger("truth_mark()", "json_object", "BEGIN", "END")


def _mariadb() -> Iterator[str]:
    columns = "mark text, tbl text, verb text, old text, new text"
    yield f"CREATE TABLE {LOG} (n int AUTO_INCREMENT PRIMARY KEY, {columns})"
    yield from _each_trigger("@truth_mark", "JSON_OBJECT", "FOR EACH ROW BEGIN", "END")


def _each_trigger(mark: str, function: str, begin: str, end: str) -> Iterator[str]:
    for table in WATCHED:
        columns = [column.name for column in table.columns]
        rows = {
            side: function + "(" + ", ".join(f"'{name}', {side}.{name}" for name in columns) + ")"
            for side in ("OLD", "NEW")
        }
        for verb in ("INSERT", "UPDATE", "DELETE"):
            old = "NULL" if verb == "INSERT" else rows["OLD"]
            new = "NULL" if verb == "DELETE" else rows["NEW"]
            yield (
                f"CREATE TRIGGER {table.name}_{verb.lower()} AFTER {verb} ON {table.name} {begin} "
                f"INSERT INTO {LOG} (mark, tbl, verb, old, new) "
                f"VALUES ({mark}, '{table.name}', '{verb}', {old}, {new}); {end}"
            )


class Marks:
    """Tells a database which operation is under way, past everything that SQLAlchemy or we may see."""

    def __init__(self) -> None:
        self._current: dict[int, str] = {}

    def watch(self, engine: Engine) -> None:
        """Give the connections of a SQLite engine the function its triggers call."""

        def connected(connection: Any, record: Any) -> None:
            connection.create_function("truth_mark", 0, lambda: self._current.get(id(connection)))

        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", connected)

    def set(self, connection: Connection, mark: str) -> None:
        """Say what the next changes on a connection belong to."""
        held: Any = connection.connection.dbapi_connection
        if connection.dialect.name == "sqlite":
            self._current[id(held)] = mark
            return
        cursor = held.cursor()
        try:
            if connection.dialect.name == "postgresql":
                cursor.execute(f"SELECT set_config('truth.mark', '{mark}', false)")
                cursor.fetchall()
            else:
                cursor.execute(f"SET @truth_mark = '{mark}'")
        finally:
            cursor.close()


# --- reading both sides ------------------------------------------------------------------------------


def _tables() -> dict[str, Table]:
    return {table.name: table for table in WATCHED}


def _names() -> dict[str, dict[str, Column[Any]]]:
    """Return the columns of each table by the names records may call them."""
    configure_mappers()
    found: dict[str, dict[str, Column[Any]]] = {}
    for table in WATCHED:
        found[table.name] = {column.name: column for column in table.columns}
    for mapper in Base.registry.mappers:
        for table in (each for each in mapper.tables if isinstance(each, Table)):
            for column in table.columns:
                if column in mapper._columntoproperty:
                    found[table.name][mapper._columntoproperty[column].key] = column
    return found


def plain(column: Column[Any], value: Any) -> Any:
    """Return a value as the application sees it, comparable, from the log or from a record."""
    kind: Any = column.type
    if value is None or value is UNSET:
        return value
    if isinstance(kind, JSON | ARRAY):
        made = json.loads(value) if isinstance(value, str) and value[:1] in '[{"ntf0123456789-' else value
        return json.dumps(made, sort_keys=True)
    if isinstance(kind, Numeric | Cents):
        return Decimal(str(value))
    if isinstance(kind, DateTime):
        return datetime.datetime.fromisoformat(value)
    if isinstance(kind, Boolean):
        return bool(value)
    if isinstance(kind, Uuid):
        return str(uuid.UUID(value))
    return value


def _logged(column: Column[Any], value: Any) -> Any:
    if isinstance(column.type, Cents) and value is not None:
        return Decimal(value) / 100
    if isinstance(column.type, JSON | ARRAY) and value == "null":
        return None
    return plain(column, value)


def _key(table: Table, row: Mapping[str, Any]) -> str:
    columns = list(table.primary_key) or [column for column in table.columns if column.foreign_keys]
    values = [row[column.name] for column in columns]
    return key_text(values[0] if len(values) == 1 else tuple(values))


def truth(connection: Connection) -> dict[str, list[RowChange]]:
    """Return what was committed, by mark and in order; a row "updated" to what it was is no change."""
    found: dict[str, list[RowChange]] = defaultdict(list)
    tables = _tables()
    rows = connection.execute(text(f"SELECT mark, tbl, verb, old, new FROM {LOG} ORDER BY n")).all()
    for mark, name, verb, *sides in rows:
        table = tables[name]
        old, new = (
            {column.name: _logged(column, side[column.name]) for column in table.columns}
            if side is not None
            else {}
            for side in (json.loads(side) if isinstance(side, str) else side for side in sides)
        )
        key = _key(table, old or new)
        if verb == "UPDATE":
            changed = [column for column in old if old[column] != new[column]]
            old, new = {c: old[c] for c in changed}, {c: new[c] for c in changed}
            if not changed:
                continue
        found[str(mark)].append(RowChange(name, verb, key, old, new))
    return found


def trail(
    records: Iterable[AuditRecord], outcome: str = "success"
) -> tuple[dict[str, list[RowChange]], dict[str, list[Lesser]]]:
    """Return what the records of an outcome claim, by mark: the rows, and what lists no rows."""
    rows: dict[str, list[RowChange]] = defaultdict(list)
    lesser: dict[str, list[Lesser]] = defaultdict(list)
    names = _names()
    for record in records:
        if record.outcome != outcome or record.database.table not in names:
            continue
        columns, table = names[record.database.table], record.database.table
        if record.completeness not in ("full", "ids") or record.action not in VERBS:
            count = record.bulk.count if record.bulk is not None else None
            lesser[record.reason].append(Lesser(table, record.action, record.completeness, count))
            continue
        for key, changes in _rows_of(record):
            sides: tuple[dict[str, Any], dict[str, Any]] = {}, {}
            for name, *values in changes:
                column = columns[name]
                for side, value in zip(sides, values, strict=True):
                    if value is not UNSET:
                        side[column.name] = plain(column, value)
            rows[record.reason].append(RowChange(table, VERBS[record.action], key, *sides))
    return rows, lesser


def _rows_of(record: AuditRecord) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    bulk = record.bulk
    if bulk is None:
        assert record.target is not None
        yield record.target.id, [(change.field, change.old, change.new) for change in record.changes]
        return
    assert len(bulk.keys) == bulk.count, record
    for row, key in enumerate(bulk.keys):
        yield (
            key,
            [
                (
                    column.field,
                    UNSET if column.old is UNSET else column.old[row],
                    UNSET if column.new is UNSET else column.new[row],
                )
                for column in bulk.columns
            ],
        )


# --- the comparison ----------------------------------------------------------------------------------


class Verdict:
    """How a trail and the truth differ.

    Args:
        cascades_fire: triggers hear of rows that the database deletes by a rule (MariaDB's do not).

    Attributes:
        wrong: what differs, one line each.
        rows: the rows compared.
        values: the values compared.
        lesser: the rows told of without being listed, by operation and level.
        unknown: the values a record says it does not know, by operation.
    """

    def __init__(self, *, cascades_fire: bool = True) -> None:
        self._cascades_fire = cascades_fire
        self.wrong: list[str] = []
        self.rows = self.values = 0
        self.lesser: Counter[tuple[str, str]] = Counter()
        self.unknown: Counter[tuple[str, str]] = Counter()

    def compare(
        self,
        operation: str,
        happened: Sequence[RowChange],
        claimed: Sequence[RowChange],
        lesser: Sequence[Lesser],
    ) -> None:
        """Compare what one operation did with what its records say."""
        left = list(happened)
        for claim in claimed:
            found = next((each for each in left if each[:3] == claim[:3]), None)
            if found is None:
                if not self._cascades_fire and _went_with_its_animal(claim, happened):
                    continue
                if claim.verb == "UPDATE" and claim.old == claim.new:
                    self.wrong.append(f"{operation}: a record without a change: {claim}")
                else:
                    self.wrong.append(f"{operation}: INVENTED {claim}; happened: {happened}")
                continue
            left.remove(found)
            self.rows += 1
            self._values(operation, found, claim)
        for place, records in _grouped(lesser).items():
            table, level, verbs = place
            covered = [each for each in left if each.table == table and each.verb in verbs]
            self.lesser[operation, level] += len(covered)
            counts = [record.rows for record in records]
            if None not in counts and sum(counts) != len(covered):  # type: ignore[arg-type]
                self.wrong.append(f"{operation}: {records} are about {covered}")
            left = [each for each in left if each not in covered]
        self.wrong += [f"{operation}: MISSING {each}" for each in left if not _only_automatic(each)]

    def _values(self, operation: str, happened: RowChange, claim: RowChange) -> None:
        for side in ("old", "new"):
            real, said = getattr(happened, side), getattr(claim, side)
            for column, value in said.items():
                self.values += 1
                if column in real:
                    right = real[column] == value
                else:  # not changed: both sides say the same
                    right = claim.verb == "UPDATE" and claim.old.get(column, value) == claim.new.get(
                        column, value
                    )
                if not right:
                    self.wrong.append(
                        f"{operation}: WRONG {side} {column} {value!r} in {claim}; happened: {happened}"
                    )
            for column in real.keys() - said.keys():
                if (claim.table, column) in MADE_BY_THE_DATABASE or _in_key(claim, column):
                    continue
                if claim.verb == "UPDATE" or real[column] is not None:
                    self.unknown[operation, f"{side} {claim.table}.{column}"] += 1


def _went_with_its_animal(claim: RowChange, happened: Sequence[RowChange]) -> bool:
    animal = str(claim.old.get("animal_id"))
    return claim[:2] == CASCADED and any(each[:3] == ("animal", "DELETE", animal) for each in happened)


def _grouped(lesser: Sequence[Lesser]) -> dict[tuple[str, str, frozenset[str]], list[Lesser]]:
    found: dict[tuple[str, str, frozenset[str]], list[Lesser]] = {}
    for record in lesser:
        found.setdefault((record.table, record.level, record.verbs()), []).append(record)
    return found


def _only_automatic(change: RowChange) -> bool:
    return change.verb == "UPDATE" and AUTOMATIC.issuperset(change.new)


def _in_key(claim: RowChange, column: str) -> bool:
    return claim.verb != "UPDATE" and column in {c.name for c in _tables()[claim.table].primary_key}
