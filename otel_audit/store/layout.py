"""Where the tables are: on one server, or on the hosts of a cluster; and the statements that make them there.

On a cluster every host has the landing tables and their views, so an insert may go to any. The rows of a
table lie in ``<table>_local``, replicated within its shard; ``<table>`` itself is Distributed over all of
them, and the views write into that: whichever host took the insert, a row gets to the shard its key names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from otel_audit.errors import ConfigurationError
from otel_audit.store.schema import View
from otel_audit.store.tables import INDEXES, Addition, Table

_CLUSTER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_STORED: Final = "_local"


class Layout(msgspec.Struct, frozen=True):
    """A database, and the cluster it is on; empty: a single server, or the embedded engine."""

    database: str = "otel"
    cluster: str = ""

    def __post_init__(self) -> None:
        """Refuse a name that could not stand in a statement."""
        if self.cluster and not _CLUSTER.fullmatch(self.cluster):
            raise ConfigurationError(
                f"cluster {self.cluster!r} is not a valid cluster name; `SELECT DISTINCT cluster FROM "
                "system.clusters` lists the server's clusters"
            )

    @property
    def on_cluster(self) -> str:
        """What follows the name in a statement that all hosts must run."""
        return f" ON CLUSTER '{self.cluster}'" if self.cluster else ""

    def name(self, table: str) -> str:
        """Return the full name of a table or view."""
        return f"{self.database}.{table}"

    def stored(self, table: str) -> str:
        """Return the name, without database, of the table in which the rows of a table lie."""
        return f"{table}{_STORED}" if self.cluster else table

    def names(self, table: Table) -> tuple[str, ...]:
        """Name what there is on each host for one table."""
        if self.cluster and table.shard_by:
            return self.stored(table.name), table.name
        return (table.name,)

    def everywhere(self, table: str) -> str:
        """Return the name of a table of ``system``, of all hosts."""
        return f"clusterAllReplicas('{self.cluster}', system.{table})" if self.cluster else f"system.{table}"

    def create(self, table: Table) -> tuple[str, ...]:
        """Return the statements that make a table where it is missing."""
        if not self.cluster or not table.keeps_rows:
            return (self._create(table.name, table, table.engine),)
        # The path names shard, database and table, not the table's UUID: a host that joins later, or lost its
        # disk, is given the statement again and must find its shard's replicas, not begin a path of its own.
        if not table.shard_by:
            path = "'/clickhouse/tables/everywhere/{database}/{table}', '{shard}-{replica}'"
            return (self._create(table.name, table, f"Replicated{table.engine}({path})"),)
        path = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
        stored = self.stored(table.name)
        distributed = (
            f"CREATE TABLE IF NOT EXISTS {self.name(table.name)}{self.on_cluster} AS {self.name(stored)}\n"
            f"ENGINE = Distributed('{self.cluster}', '{self.database}', '{stored}', {table.shard_by})"
        )
        return self._create(stored, table, f"Replicated{table.engine}({path})"), distributed

    def _create(self, name: str, table: Table, engine: str) -> str:
        begin = f"CREATE TABLE IF NOT EXISTS {self.name(name)}{self.on_cluster} ({table.columns}\n)"
        settings = f"SETTINGS {table.settings}" if table.settings else ""
        return "\n".join(filter(None, (f"{begin} ENGINE = {engine}", table.keys, settings)))

    def add(self, addition: Addition) -> Iterator[str]:
        """Return the statements that add columns and indexes to a table where they are missing."""
        columns = [f"ADD COLUMN IF NOT EXISTS {column}" for column in addition.columns]
        indexes = [f"ADD INDEX IF NOT EXISTS {index}" for index in addition.indexes_here()]
        stored = self.stored(addition.table.name)
        for name in self.names(addition.table):  # where the rows lie first: the other one writes into it
            if added := ", ".join((*columns, *(indexes if name == stored else ()))):
                yield f"ALTER TABLE {self.name(name)}{self.on_cluster} {added}"
        if addition.table.name in addition.tables:
            names = ", ".join(
                f"MATERIALIZE INDEX {index.partition(' ')[0]}" for index in addition.indexes_here()
            )
            yield f"ALTER TABLE {self.name(stored)}{self.on_cluster} {names}"
        if addition.sums:
            begin = f"ALTER TABLE {self.name(stored)}{self.on_cluster} "
            yield begin + "MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild'"
            yield begin + ", ".join(f"ADD PROJECTION IF NOT EXISTS {each}" for each in addition.sums)
            names = ", ".join(f"MATERIALIZE PROJECTION {each.partition(' ')[0]}" for each in addition.sums)
            yield begin + names

    def index(self, table: str, indexes: str) -> Iterator[str]:
        """Return the statements that give a table of records one of the selections of indexes."""
        wanted, every = INDEXES[indexes], INDEXES.values()
        former = {name for each in every for name in each if name not in wanted}
        missing = {name: each for name, each in wanted.items() if any(name not in other for other in every)}
        begin = f"ALTER TABLE {self.name(self.stored(table))}{self.on_cluster} "
        added = [f"ADD INDEX IF NOT EXISTS {name} {each}" for name, each in missing.items()]
        dropped = [f"DROP INDEX IF EXISTS {name}" for name in sorted(former)]
        yield begin + ", ".join((*added, *dropped))
        # In the background; until then the parts without are read.
        yield begin + ", ".join(f"MATERIALIZE INDEX {name}" for name in missing)

    def as_elsewhere(self, name: str, definition: str) -> str:
        """Return the statement that makes a table on the hosts that lack it as it is on another one by now.

        A replica whose columns or TTL differ from those of its shard is refused. Empty without a definition.
        """
        begin = f"CREATE TABLE {self.name(name)} "
        if not definition.startswith(begin):
            return ""
        rest = definition.removeprefix(begin)
        return f"CREATE TABLE IF NOT EXISTS {self.name(name)}{self.on_cluster} {rest}"

    def view(self, view: View, *, missing: bool, outdated: bool) -> Iterator[str]:
        """Return the statements that make a view what it should be; an outdated one is altered in place."""
        select = self.select(view)
        name = f"{self.name(view.name)}{self.on_cluster}"
        if view.target is None:
            yield f"CREATE OR REPLACE VIEW {name} AS {select}"
            return
        if missing:
            target = self.name(self._filled(view.target))
            yield f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name} TO {target} AS {select}"
        if outdated:
            yield f"ALTER TABLE {name} MODIFY QUERY {select}"

    def select(self, view: View) -> str:
        """Return the SELECT of a view."""
        return self._filled(view.select).strip()

    def _filled(self, text: str) -> str:
        return text.replace("{db}", self.database).replace("{stored}", self.stored(""))
