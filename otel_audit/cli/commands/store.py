"""``store init``, ``migrate``, ``status`` and ``roles``: the tables of a store, on a server or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.options import ConfigFile, Database, Json, Utc, names_store, store_config
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.cli.output.sizes import size
from otel_audit.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from otel_audit.config.model import StoreConfig
    from otel_audit.store.client import StoreClient
    from otel_audit.store.layout import Layout
    from otel_audit.store.migrations import Change
    from otel_audit.store.retention import Retention
    from otel_audit.store.status import StoreStatus

_TABLES = "Tables"
_WAIT = 600.0
"""Seconds a statement may take: all hosts of a cluster run it, a new retention goes over all there is."""
_ACCESS_DENIED = 497

Cluster = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the ClickHouse cluster.", rich_help_panel=_TABLES),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--retention",
        metavar="LOG=AGE",
        help="Delete records older than this: activity=90d, traces=2w. May be repeated. 'forever' "
        "removes the limit.",
        rich_help_panel=_TABLES,
    ),
]
Cold = Annotated[
    list[str] | None,
    typer.Option(
        "--cold",
        metavar="LOG=AGE",
        help="Move records older than this to the volume 'cold' of the storage policy.",
        rich_help_panel=_TABLES,
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        "--storage-policy",
        metavar="NAME",
        help="Name of the server's storage policy.",
        rich_help_panel=_TABLES,
    ),
]
Indexes = Annotated[
    str | None,
    typer.Option(
        metavar="all|small",
        help="Indexes of the records: 'small' takes a quarter less space, but searches by text, trace and "
        "request are slower.",
        rich_help_panel=_TABLES,
    ),
]
Tenants = Annotated[
    list[str] | None,
    typer.Option(
        "--tenant",
        metavar="NAME",
        help="Also a role that sees only this tenant's records. May be repeated.",
        rich_help_panel=_TABLES,
    ),
]


@names_store
def init(
    settings: StoreConfig,
    with_roles: Annotated[
        bool, typer.Option("--roles", help="Also create the roles of `store roles`.", rich_help_panel=_TABLES)
    ] = False,
    print_only: Annotated[
        bool,
        typer.Option(
            "--print", help="Print the SQL without connecting to a server.", rich_help_panel=_TABLES
        ),
    ] = False,
    cluster: Cluster = None,
    retention: Keep = None,
    cold: Cold = None,
    storage_policy: Policy = None,
    indexes: Indexes = None,
    tenant: Tenants = None,
) -> None:
    r"""Create the database and the tables of a new store, on a ClickHouse server or a cluster.

    `otel-audit serve` creates those of its own store itself.

    \b
    otel-audit store init --url http://clickhouse:8123 --user admin
    otel-audit store init --cluster main --retention pageview=90d --roles
    otel-audit store init --cluster main --print > tables.sql
    """
    from otel_audit.store.migrations import State, plan, read_state
    from otel_audit.store.tables import CURRENT

    layout = _layout(settings, cluster)
    kept = _retention(settings, retention, cold, storage_policy)
    selected = _indexes(settings, indexes)
    changes = plan(State(), layout, kept, selected)
    if with_roles or tenant:
        changes.append(_roles(layout, tenant))
    if print_only:
        _print_sql(changes)
        return
    client = _client(settings)
    state = read_state(client.rows, layout)
    if 0 < state.version < CURRENT:
        raise StoreError(
            f"database {layout.database!r} already has a store, with schema version {state.version}; "
            f"`otel-audit store migrate` upgrades it to {CURRENT}"
        )
    changes = plan(state, layout, kept, selected)
    if with_roles or tenant:
        changes.append(_roles(layout, tenant))
    _apply(client, changes, nothing="Nothing to do: the store exists and is up to date.")


@names_store
def migrate(
    settings: StoreConfig,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the SQL that would be run, without running it.", rich_help_panel=_TABLES
        ),
    ] = False,
    cluster: Cluster = None,
    retention: Keep = None,
    cold: Cold = None,
    storage_policy: Policy = None,
    indexes: Indexes = None,
) -> None:
    r"""Upgrade the tables of a store: create what is missing, also on hosts that were added later.

    Existing tables and rows are kept. The retention of logs that are not named is not changed. Rows that a
    former version wrote are then rewritten to take less space, month by month, while the store is used; this
    can be interrupted at any time and continues with the next `migrate`.

    \b
    otel-audit store migrate --url http://clickhouse:8123
    otel-audit store migrate --dry-run
    otel-audit store migrate --retention pageview=30d --retention traces=2w
    otel-audit store migrate --retention pageview=forever
    """
    from otel_audit.store.migrations import plan, read_state

    layout = _layout(settings, cluster)
    kept = _retention(settings, retention, cold, storage_policy)
    selected = _indexes(settings, indexes)
    client = _client(settings)
    state = read_state(client.rows, layout)
    changes = plan(state, layout, kept, selected)
    if dry_run:
        _print_sql([*changes, *_rewritings(client, layout, state.version)])
        return
    _apply(client, changes, nothing="Nothing to do: the tables are up to date.")
    _rewrite(client, layout)


def _rewritings(client: StoreClient, layout: Layout, version: int) -> list[Change]:
    from otel_audit.store.migrations import Change
    from otel_audit.store.rewriting import former, statement
    from otel_audit.store.tables import CURRENT

    if version < CURRENT:  # the column that says which rows they are is not there yet
        return []
    return [
        Change(f"{each.table}: rows of {each.partition}", (statement(layout, each.table, each.partition),))
        for each in former(client.rows, layout)
    ]


def _rewrite(client: StoreClient, layout: Layout) -> None:
    import time

    from otel_audit.store.client import RefusedQuery
    from otel_audit.store.rewriting import Former, rewrite

    def begun(each: Former) -> None:
        typer.echo(f"Rewriting {each.table}, {each.partition[:4]}-{each.partition[4:]}: {each.rows:,} rows")

    def stopped(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    try:
        rewrite(client.rows, layout, begun=begun, stopped=stopped)
    except RefusedQuery as error:
        if error.code != _ACCESS_DENIED:
            raise
        typer.echo(
            "Not permitted. `otel-audit serve` does this itself, in the background; on a ClickHouse server "
            "the user needs the role otel_migrator, see `otel-audit store roles`"
        )


@names_store
def status(
    settings: StoreConfig,
    cluster: Cluster = None,
    json: Json = False,
    utc: Utc = False,
) -> None:
    """Show the state of a store: version, what is missing, and rows, size, parts and age of each table.

    Exits with 1 if something is missing or not up to date, or if a replica does not accept writes.
    """
    from otel_audit.store.status import read_status

    screen = Screen(utc=utc, json=json)
    layout = _layout(settings, cluster)
    found = read_status(_client(settings).rows, layout)
    if screen.json:
        screen.object(found)
    else:
        _print_status(found, screen)
    if not found.complete:
        raise typer.Exit(Status.NOTHING)


def roles(
    tenant: Tenants = None,
    cluster: Cluster = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    r"""Print the SQL of the roles: writer, reader, migrator, and one per tenant with its row policies.

    Does not connect to a server. Review the SQL, and have the administrator run it.

    \b
    otel-audit store roles | clickhouse-client
    otel-audit store roles --cluster main --tenant acme --tenant globex
    """
    settings = store_config(config, None, None, None, None, database)
    _print_sql([_roles(_layout(settings, cluster), tenant)])


def _layout(settings: StoreConfig, cluster: str | None) -> Layout:
    from otel_audit.store.layout import Layout

    return Layout(settings.database, settings.cluster if cluster is None else cluster)


def _retention(
    settings: StoreConfig, delete: list[str] | None, cold: list[str] | None, policy: str | None
) -> Retention:
    from otel_audit.store.retention import Retention, pairs

    return Retention.parse(
        settings.retention | pairs("--retention", delete or ()),
        settings.cold_after | pairs("--cold", cold or ()),
        settings.storage_policy if policy is None else policy,
    )


def _indexes(settings: StoreConfig, given: str | None) -> str:
    from otel_audit.store.tables import INDEXES

    if given is not None and given not in INDEXES:
        raise ConfigurationError(f"--indexes {given!r} is not valid; write {' or '.join(INDEXES)}")
    return given or settings.indexes


def _roles(layout: Layout, tenants: list[str] | None) -> Change:
    from otel_audit.store.migrations import Change
    from otel_audit.store.roles import roles as statements

    return Change("roles", tuple(statements(layout, tenants or ())))


def _client(settings: StoreConfig) -> StoreClient:
    from otel_audit.store.client import StoreClient

    timeout = settings.timeout and max(settings.timeout, _WAIT)
    return StoreClient(msgspec.structs.replace(settings, timeout=timeout))


def _apply(client: StoreClient, changes: Iterable[Change], *, nothing: str) -> None:
    applied = 0
    for change in changes:
        for statement in change.statements:
            _run(client.rows, statement)
        if change.name:
            typer.echo(f"Applied: {change.name}")
            applied += 1
    if not applied:
        typer.echo(nothing)


def _run(execute: Callable[[str], object], statement: str) -> None:
    from otel_audit.store.client import RefusedQuery

    try:
        execute(statement)
    except RefusedQuery as error:
        if error.code != _ACCESS_DENIED:
            raise
        raise StoreError(
            f"{error}\nThe store does not permit this user to do that. `otel-audit serve` maintains its "
            "own tables when it starts: set [store.retention] in its configuration and restart it. On "
            "a ClickHouse server the user needs the role otel_migrator, see `otel-audit store roles`"
        ) from None


def _print_sql(changes: Iterable[Change]) -> None:
    for change in changes:
        if change.name:
            typer.echo(f"-- {change.name}")
        for statement in change.statements:
            typer.echo(f"{statement};\n")


def _print_status(found: StoreStatus, screen: Screen) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from otel_audit.store.times import format_time

    place = f"database {safe(found.database)}" + (f", cluster {safe(found.cluster)}" if found.cluster else "")
    screen.line(f"{place}: schema version {found.version} of {found.current}")
    if found.tables:
        table = Table(
            box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        names = ["host"] if found.cluster else []
        for name in (*names, "table", "rows", "bytes", "parts", "oldest", "newest", "retention"):
            table.add_column(name, justify="right" if name in ("rows", "bytes", "parts") else "left")
        for each in found.tables:
            table.add_row(
                *([Text(safe(each.host))] if found.cluster else []),
                Text(each.name),
                Text(f"{each.rows:,}"),
                Text(size(each.bytes)),
                Text(str(each.parts)),
                *(
                    Text(format_time(at, zone=screen.zone)[:19] if at else "-")
                    for at in (each.oldest, each.newest)
                ),
                Text(each.retention or "-"),
            )
        screen.print(table)
    for stuck in found.stuck:
        screen.line(f"does not accept writes: {safe(stuck.name)} on {safe(stuck.host)}")
    for behind in found.replicas:
        if behind.delay:
            screen.line(f"{behind.delay} s behind: {safe(behind.name)} on {safe(behind.host)}")
    for host, missing in found.missing.items():
        on = f" on {safe(host)}" if host else ""
        screen.line(f"missing{on}: {', '.join(map(safe, missing))}")
    if found.pending:
        screen.line(f"pending, for `otel-audit store migrate`: {', '.join(map(safe, found.pending))}")
