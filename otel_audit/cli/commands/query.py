"""``query`` and ``tail``: find records, and watch them arrive."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.filter_options import FILTERS, FOLLOWED
from otel_audit.cli.options import lists_entries
from otel_audit.cli.output.screen import Screen
from otel_audit.errors import StoreError

if TYPE_CHECKING:
    from otel_audit.store.filters import Filters
    from otel_audit.store.query import AuditStore


@lists_entries(FILTERS)
def query(
    store: AuditStore,
    screen: Screen,
    filters: Filters,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of records.")
    ] = 50,
    cursor: Annotated[str | None, typer.Option(help="Continue where the previous page ended.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print all pages.")] = False,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Reverse the page: the newest record last.")
    ] = False,
) -> None:
    r"""Find records that match all conditions, newest first.

    \b
    otel-audit query                                         the newest 50
    otel-audit query --target shop.Order/7                   everything about one order
    otel-audit query -a alice --action DELETE --since monday
    otel-audit query --field status=paid --since "2 hours ago"
    otel-audit query --outcome failure --until yesterday
    otel-audit query --address 203.0.113.0/24 --since october --csv > october.csv
    otel-audit query --log activity,pageview --actor alice   what she did and saw, not what she changed
    otel-audit query --text "alice@example.com" --json | jq .actor
    """
    from otel_audit.cli.output.tables import parts_shown, print_entries

    parts = parts_shown(screen)
    page = store.find(filters, limit=limit, cursor=cursor, parts=parts)
    if not page.entries:
        _nothing(store, screen, filters, paged=cursor is not None)
    header = True
    while True:
        print_entries(screen, page.entries[::-1] if oldest_first else page.entries, header=header)
        if page.cursor is None:
            return
        if not everything:
            screen.remark(f"There are more records: use --limit, --all, or --cursor {page.cursor}")
            return
        header = False
        page = store.find(filters, limit=limit, cursor=page.cursor, parts=parts)


def _nothing(store: AuditStore, screen: Screen, filters: Filters, *, paged: bool) -> None:
    """Say that nothing was found, and in which log to look or which word the trail does not know."""
    from otel_audit.cli.hints import other_logs, unknown_words

    screen.remark("No more records." if paged else "Nothing found.")
    if not paged:
        hints = list(other_logs(store, filters)) or list(unknown_words(store, filters))
        for hint in hints:
            screen.remark(hint)
    raise typer.Exit(Status.NOTHING)


@lists_entries(FOLLOWED)
def tail(
    store: AuditStore,
    screen: Screen,
    filters: Filters,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing records as they arrive, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="Number of records to print first.")
    ] = 10,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two queries.")] = 1.0,
) -> None:
    r"""Print the newest records, the newest last; with -f, keep printing those that arrive.

    \b
    otel-audit tail -f
    otel-audit tail -f --action LOGIN --outcome failure
    otel-audit tail -f --json | jq -r .event_name
    """
    from otel_audit.cli.output.tables import parts_shown, print_entries
    from otel_audit.store.tail import Tail

    watched = Tail(store, filters, parts=parts_shown(screen))
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
                screen.remark("otel-audit: the store answers again")
                lost = False
            if arrived:
                print_entries(screen, arrived, header=header)
                header = False
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(Status.OK) from None
