"""``query`` and ``tail``: find records, and watch them arrive."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from otel_audit.cli.options import reads_store
from otel_audit.cli.screen import Screen
from otel_audit.cli.status import Status
from otel_audit.errors import StoreError

if TYPE_CHECKING:
    from otel_audit.store.filters import Filters
    from otel_audit.store.query import AuditStore

_WHAT = "What to look for"

Actor = Annotated[str | None, typer.Option("--actor", "-a", help="Who: name or id.", rich_help_panel=_WHAT)]
Target = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", help="What: shop.Order/7, a type shop.Order, or 'shop.*'.", rich_help_panel=_WHAT
    ),
]
Action = Annotated[
    str | None,
    typer.Option(help="CREATE, UPDATE, DELETE, READ, LOGIN …; several with commas.", rich_help_panel=_WHAT),
]
Outcome = Annotated[str | None, typer.Option(help="success, failure or unknown.", rich_help_panel=_WHAT)]
Field = Annotated[
    str | None,
    typer.Option(
        "--field",
        "-f",
        help="A field that changed: status; or its new value: status=paid.",
        rich_help_panel=_WHAT,
    ),
]
TailField = Annotated[
    str | None,
    typer.Option(help="A field that changed: status; or its new value: status=paid.", rich_help_panel=_WHAT),
]
TraceId = Annotated[
    str | None, typer.Option("--trace-id", help="Trace id or traceparent.", rich_help_panel=_WHAT)
]
RequestId = Annotated[str | None, typer.Option("--request-id", help="Request id.", rich_help_panel=_WHAT)]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", "-s", help="From: 15m, '2 hours ago', yesterday, 2026-11-23T14:00.", rich_help_panel=_WHAT
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", "-u", help="To, in the same words; a day is included.", rich_help_panel=_WHAT),
]
Words = Annotated[
    str | None,
    typer.Option("--text", help="Words in the message or in old and new values.", rich_help_panel=_WHAT),
]
Log = Annotated[
    str | None,
    typer.Option(
        help="Kind of record: activity, pageview …, several with commas; '*' for all, '!pageview' for all "
        "but that. Default: audit.",
        rich_help_panel=_WHAT,
    ),
]
Tenant = Annotated[str | None, typer.Option(help="Tenant.", rich_help_panel=_WHAT)]


@reads_store
def query(
    store: AuditStore,
    screen: Screen,
    actor: Actor = None,
    target: Target = None,
    action: Action = None,
    outcome: Outcome = None,
    field: Field = None,
    since: Since = None,
    until: Until = None,
    text: Words = None,
    trace_id: TraceId = None,
    request_id: RequestId = None,
    log: Log = None,
    tenant: Tenant = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Most records to show.")
    ] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where the page before ended.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pages, one after another.")] = False,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Turn the page around: the newest at the bottom.")
    ] = False,
) -> None:
    r"""Find records; all conditions must hold. Newest first.

    \b
    otel-audit query                                         the newest 50
    otel-audit query --target shop.Order/7                   all about one order
    otel-audit query -a alice --action DELETE --since monday
    otel-audit query --field status=paid --since "2 hours ago"
    otel-audit query --outcome failure --until yesterday
    otel-audit query --log activity,pageview --actor alice   not changes: what she did and saw
    otel-audit query --text "alice@example.com" --json | jq .actor
    """
    from otel_audit.cli.tables import print_entries
    from otel_audit.store.filters import Filters

    filters = Filters(
        actor=actor,
        target=target,
        action=action,
        outcome=outcome,
        field=field,
        since=since,
        until=until,
        text=text,
        trace_id=trace_id,
        request_id=request_id,
        log=log,
        tenant=tenant,
    )
    page = store.find(filters, limit=limit, cursor=cursor)
    if not page.entries:
        _nothing(store, screen, filters, paged=cursor is not None)
    header = True
    while True:
        print_entries(screen, page.entries[::-1] if oldest_first else page.entries, header=header)
        if page.cursor is None:
            return
        if not everything:
            screen.remark(f"There are more: --limit, --all, or --cursor {page.cursor}")
            return
        header = False
        page = store.find(filters, limit=limit, cursor=page.cursor)


def _nothing(store: AuditStore, screen: Screen, filters: Filters, *, paged: bool) -> None:
    """Say that nothing was found, and in which log to look or which word the trail does not know."""
    from otel_audit.cli.hints import other_logs, unknown_words

    screen.remark("No more records." if paged else "Nothing found.")
    if not paged:
        hints = list(other_logs(store, filters)) or list(unknown_words(store, filters))
        for hint in hints:
            screen.remark(hint)
    raise typer.Exit(Status.NOTHING)


@reads_store
def tail(
    store: AuditStore,
    screen: Screen,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what arrives, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="Records to begin with.")
    ] = 10,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    actor: Actor = None,
    target: Target = None,
    action: Action = None,
    outcome: Outcome = None,
    field: TailField = None,
    text: Words = None,
    log: Log = None,
    tenant: Tenant = None,
) -> None:
    r"""Show the newest records, the newest at the bottom; with -f also those to come.

    \b
    otel-audit tail -f
    otel-audit tail -f --action LOGIN --outcome failure
    otel-audit tail -f --json | jq -r .event_name
    """
    from otel_audit.cli.tables import print_entries
    from otel_audit.store.filters import Filters
    from otel_audit.store.tail import Tail

    filters = Filters(
        actor=actor,
        target=target,
        action=action,
        outcome=outcome,
        field=field,
        text=text,
        log=log,
        tenant=tenant,
    )
    watched = Tail(store, filters)
    newest = watched.last(lines)
    if newest:
        print_entries(screen, newest)
    elif not follow:
        screen.remark("Nothing found.")
        raise typer.Exit(Status.NOTHING)
    sys.stdout.flush()
    header = not newest
    lost = False
    try:
        while follow:
            time.sleep(interval)
            try:
                arrived = watched.arrived()
            except StoreError as error:
                if not lost:
                    screen.remark(f"otel-audit: {error}; trying again")
                lost = True
                continue
            if lost:
                screen.remark("otel-audit: the store is back")
                lost = False
            if arrived:
                print_entries(screen, arrived, header=header)
                header = False
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(Status.OK) from None
