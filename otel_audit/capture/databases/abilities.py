"""What capture may ask of one table beside the application's statement, decided by the database's catalog.

A statement of ours must never fail, nor touch other rows, where the application's would work. What can make
it so, from the manuals:

- PostgreSQL: rules (RETURNING is refused, and after DO INSTEAD the row count tells nothing), views with
  grouping or INSTEAD OF triggers (no row can be locked), foreign tables and other access methods (the
  remote side decides), partitioned and inherited tables (no ``xmax``; a key is unique in one table of a
  family only), keys the table does not enforce (a join by them would miss or multiply rows), roles without
  SELECT or UPDATE, row level security (RETURNING applies the policies of SELECT where the plain statement
  would not). A trigger may send the rows of an INSERT to a child of the table, and the one of a view may
  return nothing of what it wrote: fewer rows are counted then than were written.
- MariaDB: engines without RETURNING, views, roles without SELECT.
- SQLite: views and virtual tables have no RETURNING, and INSTEAD OF triggers leave the row count at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from otel_audit.capture.databases import dbapi
from otel_audit.capture.plan import Verb
from otel_audit.named_tuples import NamedTuple

Query = Callable[[str, Sequence[Any]], list[Any]]
"""Runs a statement through the driver and returns its rows."""


class Abilities(NamedTuple):
    """What a table lets us ask around one verb.

    Attributes:
        returning: the statement may return whole rows.
        joined_update: UPDATE may be joined to its rows as they were, by their keys.
        select: the rows may be read and locked before.
        tells_new_rows: an upsert can say which rows it inserted (``xmax``).
        certain: the catalog decides; otherwise ours run under a savepoint.
        counts: the row count says how many rows were written.
        needs_condition: without a condition on its columns, the statement is not to be touched: row level
            security would apply the policies of SELECT to it as well.
    """

    returning: bool = False
    joined_update: bool = False
    select: bool = False
    tells_new_rows: bool = False
    certain: bool = False
    counts: bool = True
    needs_condition: bool = False


class Answer(NamedTuple):
    """The abilities by verb; ``lasting``: nothing but a change of the table itself would change them."""

    verbs: Mapping[Verb, Abilities]
    lasting: bool

    @property
    def plain(self) -> bool:
        """Whether it is an ordinary table, of which everything may be asked."""
        return all(abilities.returning and abilities.certain for abilities in self.verbs.values())


class Table(NamedTuple):
    """A table as it is asked for: its bare and quoted names, the columns of a model and of its key."""

    name: str
    quoted: str
    columns: list[str]
    keys: list[str]


_VERBS: Final[tuple[Verb, ...]] = ("create", "update", "delete")
_NOTHING: Final = Abilities()


def _all(abilities: Abilities, *, lasting: bool) -> Answer:
    return Answer(dict.fromkeys(_VERBS, abilities), lasting)


UNKNOWN: Final = _all(_NOTHING, lasting=False)
"""Of a table nothing could be asked of: nothing is asked of it."""


def ask(system: str, version: Sequence[int], query: Query, table: Table) -> Answer:
    """Ask the catalog, by statements that cannot fail.

    Args:
        system: ``db.system.name``.
        version: of the server; of SQLite, of its library.
        query: runs a statement on the open connection, unseen by whoever watches queries.
        table: what is asked for.
    """
    since = dbapi.dialect(system).returning_since
    returning = since is not None and tuple(version) >= since
    if system == "postgresql":
        return _postgresql(query, table)
    if system == "sqlite":
        return _sqlite(query, table, returning=returning)
    if system in ("mysql", "mariadb"):
        return _mariadb(query, table, returning=returning)
    return _all(Abilities(select=True), lasting=True)


# --- PostgreSQL ----------------------------------------------------------------------------------

_POSTGRESQL: Final = """
SELECT c.relkind::text, c.relhassubclass, coalesce(m.amname, 'heap') = 'heap',
       has_table_privilege(c.oid, 'SELECT'), has_any_column_privilege(c.oid, 'UPDATE'),
       c.relrowsecurity, row_security_active(c.oid),
       array(SELECT r.ev_type::text || r.is_instead::text FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled <> 'D'),
       pg_relation_is_updatable(c.oid, false),
       array(SELECT t.tgtype::int FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND t.tgtype & 64 <> 0 AND t.tgenabled <> 'D'),
       EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class k ON k.oid = h.inhrelid
               WHERE h.inhparent = c.oid AND k.relkind <> 'r'),
       (SELECT count(*) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname::text = ANY (%s)),
       (SELECT count(*) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnotnull AND a.attname::text = ANY (%s)),
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
                 AND i.indpred IS NULL AND i.indexprs IS NULL
                 AND NOT EXISTS (
                   SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
                   LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
                   WHERE k.place <= i.indnkeyatts AND NOT a.attname::text = ANY (%s)))
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE c.oid = to_regclass(%s)
"""
_EVENTS: Final[dict[Verb, str]] = {"update": "2", "create": "3", "delete": "4"}
_UPDATABLE: Final[dict[Verb, int]] = {"update": 4, "create": 8, "delete": 16}
_FIRES: Final[dict[Verb, int]] = {"create": 4, "delete": 8, "update": 16}
"""Bits of ``tgtype``."""


class _Relation(NamedTuple):
    """A row of :data:`_POSTGRESQL`."""

    kind: str
    has_children: bool
    heap: bool
    may_read: bool
    may_update: bool
    has_policies: bool
    row_security: bool
    rules: list[str]
    updatable: int
    instead_of: list[int]
    mixed_children: bool
    columns_there: int
    keys_not_null: int
    keys_unique: bool


def _postgresql(query: Query, table: Table) -> Answer:
    found = query(_POSTGRESQL, [table.columns, table.keys, table.keys, table.quoted])
    if not found:
        return UNKNOWN
    relation = _Relation(*found[0])
    verbs = {verb: _of_relation(relation, table, verb) for verb in _VERBS}
    # Privileges may be granted at any moment, and whom policies concern changes with the role.
    lasting = relation.may_read and relation.may_update and not relation.has_policies
    return Answer(verbs, lasting)


def _of_relation(relation: _Relation, table: Table, verb: Verb) -> Abilities:
    event = _EVENTS[verb]
    if f"{event}true" in relation.rules:
        return Abilities(counts=False)
    # The lock of a SELECT needs the privilege of UPDATE.
    readable = relation.may_read and relation.may_update
    if relation.kind == "f":
        return Abilities(select=readable)
    if relation.kind == "v":
        itself = bool(relation.updatable & _UPDATABLE[verb]) and not relation.instead_of
        replaced = any(kind & _FIRES[verb] for kind in relation.instead_of)
        return Abilities(select=readable and itself, counts=not replaced)
    if relation.kind not in ("r", "p"):
        return _NOTHING
    plain = relation.may_read and relation.heap and f"{event}false" not in relation.rules
    alone = relation.kind == "r" and not relation.has_children
    unique = relation.keys_unique and relation.keys_not_null == len(table.keys)
    return Abilities(
        returning=plain and not (relation.row_security and verb == "create"),
        joined_update=plain and unique and (alone or relation.kind == "p"),
        # Rows the policies of UPDATE show are not those the policies of DELETE do.
        select=readable and not (relation.row_security and verb == "delete"),
        tells_new_rows=plain and alone,
        certain=relation.heap
        and not relation.mixed_children
        and relation.columns_there == len(table.columns),
        # To children of a plain table triggers send rows; to partitions the database, which counts them.
        counts=verb != "create" or relation.kind == "p" or not relation.has_children,
        needs_condition=relation.row_security,
    )


# --- SQLite --------------------------------------------------------------------------------------


def _sqlite(query: Query, table: Table, *, returning: bool) -> Answer:
    # Names are looked up in this order, whatever their case.
    databases = sorted((row[1] for row in query("PRAGMA database_list", ())), key=lambda name: name != "temp")
    for database in databases:
        quoted = database.replace('"', '""')
        found = query(
            f'SELECT type, sql FROM "{quoted}".sqlite_master'
            " WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')",
            [table.name],
        )
        if not found:
            continue
        kind, sql = found[0]
        if kind == "view":  # written by INSTEAD OF triggers, which leave the row count at 0
            return _all(Abilities(counts=False), lasting=True)
        plain = returning and not str(sql).upper().startswith("CREATE VIRTUAL")
        return _all(Abilities(returning=plain, select=True, certain=True), lasting=True)
    return UNKNOWN


# --- MariaDB and MySQL ---------------------------------------------------------------------------

_ENGINES: Final = frozenset({"innodb", "aria", "myisam", "memory", "rocksdb"})
"""Those of MariaDB that return rows; what others do is decided by their authors."""
_FORBIDDEN: Final = (1142, 1143)
"""The role may not SELECT from the table, or one of its columns."""


def _mariadb(query: Query, table: Table, *, returning: bool) -> Answer:
    found = query(
        "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s",
        [table.name],
    )
    try:
        query(f"SELECT * FROM {table.quoted} LIMIT 0", ())
    except Exception as error:
        if error.args and error.args[0] in _FORBIDDEN:
            return UNKNOWN
        raise
    engine = str(found[0][0]).lower() if found else ""
    return _all(Abilities(returning=returning and engine in _ENGINES, select=True), lasting=bool(found))
