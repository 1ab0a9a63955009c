"""Who may do what in a store, as SQL for its administrator: `otel-audit store roles` prints it.

Three roles, and one for each tenant whose people may ask for themselves. Users, and how they prove who they
are, are the administrator's affair: ``GRANT otel_writer TO …``. The embedded engine has no users; its token
opens all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from otel_audit.errors import ConfigurationError
from otel_audit.store import schema
from otel_audit.store.layout import Layout

WRITER: Final = "otel_writer"
READER: Final = "otel_reader"
MIGRATOR: Final = "otel_migrator"

_TENANT: Final = re.compile(r"[\w.@:-]{1,100}")
_EVENTS: Final = tuple(schema.events(log.name) for log in schema.LOGS)
_TRAILS: Final = tuple(view.name for view in schema.VIEWS if view.target is None)
_LANDINGS: Final = tuple(schema.landing(log.name) for log in schema.LOGS)


def roles(layout: Layout, tenants: Iterable[str] = ()) -> list[str]:
    """Return the statements that make the roles, their rights, and the row policies of tenants.

    Each may be run again, and a tenant be added by naming it alone: who has a role keeps it.

    Raises:
        ConfigurationError: a tenant has a name that could not be a role's.
    """
    names = list(dict.fromkeys(tenants))
    for tenant in names:
        if not _TENANT.fullmatch(tenant):
            raise ConfigurationError(
                f"tenant {tenant!r} cannot be used in a role name; only letters, digits and . _ - @ : "
                "are allowed"
            )
    return [*_writer(layout), *_reader(layout), *_migrator(layout), *_tenants(layout, names)]


def _writer(layout: Layout) -> Iterator[str]:
    """What the Collector's exporter needs: to insert, and to ask for the columns of what it inserts into."""
    # The exporter waits for an answer that means "written". Without the settings a host would only promise to
    # pass rows on to their shard, and with asynchronous inserts to write them later.
    settings = "async_insert = 0 CONST"
    if layout.cluster:
        settings += ", distributed_foreground_insert = 1 CONST"
    yield from _role(layout, WRITER, settings)
    for table in (*_LANDINGS, schema.LOGS_TABLE, schema.TRACES):
        yield _grant(layout, "INSERT, SHOW COLUMNS", layout.name(table), WRITER)
    if layout.cluster:  # where hosts share a secret, a shard asks whether the one who began may insert
        for table in (*_EVENTS, schema.LOGS_TABLE, schema.TRACES):
            yield _grant(layout, "INSERT", layout.name(layout.stored(table)), WRITER)


def _reader(layout: Layout) -> Iterator[str]:
    """What asks: our command line, dashboards, people."""
    # readonly = 2: to read, and choose the format of the answer, which clients do by settings.
    yield from _role(layout, READER, "readonly = 2")
    tables = (schema.LOGS_TABLE, schema.TRACES, schema.TRACE_TIMES, schema.METRICS)
    for table in (*_EVENTS, *_TRAILS, *tables):
        yield from _select(layout, table, READER)
    yield _grant(layout, "SELECT", layout.name(schema.MIGRATIONS), READER)
    for table in ("parts", "tables", "replicas", "clusters", "one"):
        yield _grant(layout, "SELECT", f"system.{table}", READER)
    if layout.cluster:
        yield _grant(layout, "REMOTE", "*.*", READER)


def _migrator(layout: Layout) -> Iterator[str]:
    """What makes and changes tables. Views run with the rights of who made them: it must read and insert."""
    settings = "distributed_foreground_insert = 1" if layout.cluster else ""
    yield from _role(layout, MIGRATOR, settings)
    yield _grant(
        layout,
        "CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP VIEW, ALTER TABLE, ALTER VIEW, SELECT, INSERT, "
        "SHOW TABLES, SHOW COLUMNS",
        f"{layout.database}.*",
        MIGRATOR,
    )
    for table in ("parts", "tables", "replicas", "clusters", "mutations", "one"):
        yield _grant(layout, "SELECT", f"system.{table}", MIGRATOR)
    if layout.cluster:
        yield _grant(layout, "CLUSTER, REMOTE", "*.*", MIGRATOR)


def _tenants(layout: Layout, tenants: list[str]) -> Iterator[str]:
    """One role a tenant: it sees the records that name its tenant, and neither spans nor ordinary logs."""
    if not tenants:
        return
    # On a cluster the rows are filtered where they lie and where they are put together.
    tables = dict.fromkeys(
        name for table in _EVENTS for name in (layout.name(table), layout.name(layout.stored(table)))
    )
    for tenant in tenants:
        role = _tenant_role(tenant)
        yield from _role(layout, role, "readonly = 2")
        for table in (*_EVENTS, *_TRAILS):
            yield from _select(layout, table, role)
    for table in tables:
        # Once a table has a policy, who is named by none sees all or nothing, as the server is set. Not "to
        # all except": the next tenant that was forgotten there would see everything.
        yield (
            f"CREATE ROW POLICY OR REPLACE otel_everything{layout.on_cluster} ON {table} FOR SELECT USING 1 "
            f"TO {READER}, {MIGRATOR}"
        )
        for tenant in tenants:
            yield (
                f"CREATE ROW POLICY OR REPLACE {_tenant_role(tenant)}{layout.on_cluster} ON {table} "
                f"FOR SELECT USING tenant = '{tenant}' TO {_tenant_role(tenant)}"
            )


def _tenant_role(tenant: str) -> str:
    return f"`otel_tenant_{tenant}`"


def _select(layout: Layout, table: str, role: str) -> Iterator[str]:
    for name in dict.fromkeys((table, layout.stored(table) if table not in _TRAILS else table)):
        yield _grant(layout, "SELECT", layout.name(name), role)


def _role(layout: Layout, role: str, settings: str) -> Iterator[str]:
    # Replaced, a role would be taken from everyone who has it.
    yield f"CREATE ROLE IF NOT EXISTS {role}{layout.on_cluster}"
    if settings:
        yield f"ALTER ROLE {role}{layout.on_cluster} SETTINGS {settings}"


def _grant(layout: Layout, rights: str, on: str, role: str) -> str:
    return f"GRANT{layout.on_cluster} {rights} ON {on} TO {role}"
