"""``show``, ``history`` and ``trace``: one record, one object, one request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.options import lists_entries, reads_store
from otel_audit.cli.output.screen import Screen
from otel_audit.errors import QueryError

if TYPE_CHECKING:
    from otel_audit.store.query import AuditStore, Page

_FULL_ID = 32


@reads_store
def show(
    store: AuditStore,
    screen: Screen,
    record: Annotated[str, typer.Argument(metavar="ID", help="Record id, or its last 6 or more digits.")],
    since: Annotated[
        str | None, typer.Option(help="How far back to search for a shortened id. Default: 90 days.")
    ] = None,
) -> None:
    r"""Show one record in full: every value, its origin, and its position in its stream.

    \b
    otel-audit show 019ab3c2-7d1e-7c41-9f0a-51d2a90b3f7e
    otel-audit show a90b3f7e
    otel-audit show a90b3f7e --json
    """
    from otel_audit.cli.output.details import record_dict, record_view

    number = record.strip()
    if len(number.replace("-", "")) < _FULL_ID:
        number = _whole_id(store, screen, number, since or "90 days ago")
    stored = store.stored(number)
    if stored is None:
        screen.remark(f"No record has the id {number!r}.")
        raise typer.Exit(Status.NOTHING)
    if screen.json:
        screen.object(record_dict(stored))
        return
    screen.print(record_view(stored, screen))
    if screen.is_terminal:
        from otel_audit.cli.output.safe import safe

        follow = []
        if stored.record.target is not None and stored.record.target.id:
            follow.append(f"otel-audit history {safe(stored.record.target)}")
        if stored.record.trace_id:
            follow.append(f"otel-audit trace {safe(stored.record.trace_id)}")
        if follow:
            screen.remark("\nGo on: " + "\n       ".join(follow))


def _whole_id(store: AuditStore, screen: Screen, fragment: str, since: str) -> str:
    found = store.with_fragment(fragment, since=since, parts=())
    if not found:
        screen.remark(f"No record since {since} has {fragment!r} in its id; look further back with --since.")
        raise typer.Exit(Status.NOTHING)
    if len(found) > 1:
        listed = "\n".join(f"  {each.id}  {each.event_name}" for each in found)
        raise QueryError(f"{fragment!r} matches the ids of several records; write more digits:\n{listed}")
    return found[0].id


@lists_entries({})
def history(
    store: AuditStore,
    screen: Screen,
    target: Annotated[str, typer.Argument(metavar="TYPE/ID", help="Object: shop.Order/7.")],
    since: Annotated[str | None, typer.Option("--since", "-s", help="Start: 15m, yesterday, …")] = None,
    until: Annotated[str | None, typer.Option("--until", "-u", help="End, in the same forms.")] = None,
    log: Annotated[
        str | None, typer.Option(help="Kinds of record, as for query. Default: all except page views.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Newest records.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Continue where the previous page ended.")] = None,
) -> None:
    r"""Show what happened to one object, oldest first: changes, reads, rows of bulk statements, failures.

    A line with ⚠ marks an old value that differs from what the previous change had set: something wrote to
    the row outside the trail. "Possibly" means that there may be another explanation.

    \b
    otel-audit history shop.Order/7
    otel-audit history shop.Order/7 --since yesterday --json
    otel-audit history shop.Order/7 --log '*'            all logs, page views included
    """
    from otel_audit.cli.hints import unknown_words
    from otel_audit.cli.output.tables import parts_shown, print_entries
    from otel_audit.store.filters import HISTORY_LOGS, Filters
    from otel_audit.store.gaps import PARTS_READ

    shown = parts_shown(screen)
    parts = None if shown is None else {*shown, *PARTS_READ}
    page = store.history(target, since=since, until=until, log=log, limit=limit, cursor=cursor, parts=parts)
    if not page.entries:
        screen.remark(f"Nothing is recorded about {target}.")
        for hint in unknown_words(store, Filters(target=target, log=log or HISTORY_LOGS)):
            screen.remark(hint)
        raise typer.Exit(Status.NOTHING)
    notes = _written_outside(store, screen, target, page)
    print_entries(screen, page.entries[::-1], notes=notes)
    if page.cursor:
        screen.remark(f"There are older records: use --limit, or --cursor {page.cursor}")


def _written_outside(store: AuditStore, screen: Screen, target: str, page: Page) -> dict[str, list[str]]:
    """Say between which records somebody wrote past the trail, by the id of the later one."""
    from otel_audit.cli.output.safe import safe
    from otel_audit.config.loader import load
    from otel_audit.store.filters import Filters
    from otel_audit.store.gaps import APART, PARTS_READ, gaps
    from otel_audit.store.times import format_time

    notes: dict[str, list[str]] = {}
    if len(page.entries) < 2:
        return notes
    masks = ["[redacted]", load(screen.config_file).config.redaction.replacement]
    found = gaps(page.entries, masks=masks)
    if any(gap.certain for gap in found):
        between = Filters(
            target=target.partition("/")[0],
            since=found[0].last.timestamp - APART,
            until=found[-1].found.timestamp + APART,
            completeness=("count", "statement"),
        )
        found = gaps(
            page.entries, doubts=store.find(between, limit=1000, parts=PARTS_READ).entries, masks=masks
        )
    sign = "!" if screen.ascii_only else "⚠"
    for gap in found:
        first, last = (format_time(each.timestamp, zone=screen.zone) for each in (gap.last, gap.found))
        if last[:10] == first[:10]:
            last = last[11:]
        word = "was" if gap.certain else "was possibly"
        note = f"{sign} {safe(gap.field)} {word} written outside the trail between {first} and {last}"
        notes.setdefault(gap.found.id, []).append(note)
    return notes


@reads_store
def blame(
    store: AuditStore,
    screen: Screen,
    target: Annotated[str, typer.Argument(metavar="TYPE/ID", help="Object: shop.Order/7.")],
    until: Annotated[
        str | None, typer.Option("--until", "-u", help="State at that time: yesterday, …")
    ] = None,
) -> None:
    r"""Show who last set each field of an object, when, and through which view.

    \b
    otel-audit blame shop.Order/7
    otel-audit blame shop.Order/7 --until yesterday
    """
    from otel_audit.cli.hints import unknown_words
    from otel_audit.cli.output.tables import blame_object, blame_table
    from otel_audit.store.blame import SHOWN
    from otel_audit.store.blame import blame as find
    from otel_audit.store.filters import HISTORY_LOGS, Filters

    found = find(store, target, until=until, parts=None if screen.json else SHOWN)
    if not found:
        screen.remark(f"No change of {target} is recorded.")
        for hint in unknown_words(store, Filters(target=target, log=HISTORY_LOGS)):
            screen.remark(hint)
        raise typer.Exit(Status.NOTHING)
    if screen.json:
        for each in found:
            screen.object(blame_object(each))
        return
    screen.print(blame_table(found, screen))
    deleted = next((each.entry for each in found if each.entry.action == "DELETE"), None)
    if deleted is not None:
        screen.remark(f"{target} was deleted; otel-audit show {deleted.id[-8:]}")


@reads_store
def trace(
    store: AuditStore,
    screen: Screen,
    number: Annotated[str, typer.Argument(metavar="TRACE", help="Trace id, traceparent, or a record's id.")],
) -> None:
    r"""Show one trace as a tree: the spans of the request, and the records made in them.

    A record without a trace is shown with what happened in the same request, command, task or job.

    \b
    otel-audit trace 4bf92f3577b34da6a3ce929d0e0e4736
    otel-audit trace a90b3f7e                            the trace of a record
    """
    from otel_audit.cli.output.tree import trace_objects, trace_tree
    from otel_audit.store.entries import LISTED

    parts = None if screen.json else LISTED
    wanted, request = _trace_of(store, screen, number)
    found = store.trace(wanted, parts=parts) if wanted else None
    if request:
        found = store.inside(request, parts=parts)
    if not found:
        screen.remark(f"The store has no spans or records of trace {wanted or number}.")
        raise typer.Exit(Status.NOTHING)
    if screen.json:
        for each in trace_objects(found):
            screen.object(each)
    else:
        screen.print(trace_tree(found, screen))


def _trace_of(store: AuditStore, screen: Screen, number: str) -> tuple[str, str]:
    """Return the trace id meant: itself, or that of the record with this id; without one, its request."""
    from otel_audit.store.filters import trace_id

    bare = number.strip().lower().replace("-", "")
    if not re.fullmatch("[0-9a-f]{6,32}", bare):
        return trace_id(number), ""  # a traceparent, or it says what is valid
    if len(bare) < _FULL_ID:
        number = _whole_id(store, screen, number, "90 days ago")
    record = store.get(number)
    if record is None:
        return bare, ""
    return record.trace_id, "" if record.trace_id else record.request.id
