"""``tasks``: what was published and never ran, what is still running, what ran twice."""

from __future__ import annotations

import getpass
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.options import lists_rows
from otel_audit.cli.output.screen import Screen
from otel_audit.errors import ConfigurationError, QueryError

if TYPE_CHECKING:
    from otel_audit.store.query import AuditStore
    from otel_audit.store.tasks import TaskEntry

_VISIBLE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2
_MOST: Final = 10_000


@lists_rows
def tasks(
    store: AuditStore,
    screen: Screen,
    state: Annotated[
        str | None, typer.Option("--state", help="waiting, stale, running, failed or done. Default: all.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="In this state for at least so long: 60m, '2 days'.")
    ] = None,
    ran_twice: Annotated[
        bool, typer.Option("--ran-twice", help="Tasks that were begun more often than they asked to be.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="Task: shop.tasks.ship, or 'shop.*'.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="Queue: orders, or 'order*'.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", "-s", help="First heard of since: 15m, yesterday, …")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", "-u", help="And before, in the same forms.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="Maximum number.")] = 100,
    mark_stale: Annotated[
        bool,
        typer.Option(
            "--mark-stale",
            help="Record of each task that waits for longer than --older-than that it is stale, once.",
        ),
    ] = False,
) -> None:
    r"""List tasks by their state: published and never ran, still running, failed.

    \b
    otel-audit tasks --state waiting --older-than 60m    published, and did not run for an hour
    otel-audit tasks --state running --older-than 60m    still running, or their worker has lost them
    otel-audit tasks --ran-twice --since monday
    otel-audit tasks --state failed --name 'shop.*' --csv > failed.csv
    otel-audit tasks --mark-stale --older-than 60m       for cron: makes records task.stale
    """
    from otel_audit.cli.output.task_table import print_tasks

    if mark_stale:
        if older_than is None or state not in (None, "waiting") or ran_twice:
            raise QueryError(
                "--mark-stale marks tasks that wait: use it with --older-than, such as --older-than 60m, and "
                "without --state and --ran-twice"
            )
        state, limit = "waiting", _MOST
    found = store.tasks(
        state=state,
        name=name,
        queue=queue,
        since=since,
        until=until,
        older_than=older_than,
        ran_twice=ran_twice,
        limit=limit,
    )
    if mark_stale and found:
        assert older_than is not None
        found = _mark(store, screen, found, older_than)
    if not found:
        screen.remark("No such task.")
        # A cron job that finds nothing to mark has done its work.
        raise typer.Exit(Status.OK if mark_stale else Status.NOTHING)
    print_tasks(screen, found)
    if len(found) == limit:
        screen.remark("There may be more tasks: use --limit")


def _mark(store: AuditStore, screen: Screen, found: Sequence[TaskEntry], older_than: str) -> list[TaskEntry]:
    """Make a record of each of these tasks; return them as they are in the store now."""
    from otel_audit.audit_context import moment
    from otel_audit.audit_record import Actor
    from otel_audit.cli.asking import has_sink
    from otel_audit.config.loader import load
    from otel_audit.pipeline.provider import AuditPipeline
    from otel_audit.semconv import TASK_ID, TASK_QUEUE, TASK_STATE
    from otel_audit.store.tasks import LOG, stale_id
    from otel_audit.store.times import parse_time

    loaded = load(screen.config_file)
    if not has_sink(loaded):
        raise ConfigurationError(
            "--mark-stale sends records, and no sink is configured; set `endpoint` in [sink], or "
            "OTEL_AUDIT_SINK_ENDPOINT"
        )
    import msgspec

    now = time.time_ns()
    older = now - parse_time(older_than, now=now)
    pipeline = AuditPipeline(loaded.config)
    pipeline.prepare()
    try:
        logger = pipeline.logger
        for each in found:
            # When it became stale, not when that was seen: so two that see it make the same record.
            at = min(each.since + older, now)
            record = logger.record(
                "task.stale",
                "EXECUTE",
                at=msgspec.structs.replace(moment(), time=at),
                outcome="unknown",
                log=LOG,
                actor=Actor(getpass.getuser(), "user"),
                target=each.target,
                attributes={TASK_ID: each.id, TASK_STATE: "STALE", TASK_QUEUE: each.queue},
                record_id=stale_id(each, at),
            )
            logger.emit(record)
    finally:
        pipeline.shutdown()
    return _seen(store, screen, found)


def _seen(store: AuditStore, screen: Screen, found: Sequence[TaskEntry]) -> list[TaskEntry]:
    """Wait until the store has the records, so that who asks again is not told of the same tasks."""
    wanted = {(each.name, each.id): each for each in found}
    until = time.monotonic() + _VISIBLE_SECONDS
    while True:
        stale = [each for each in store.tasks(state="stale", limit=_MOST) if (each.name, each.id) in wanted]
        if len(stale) == len(wanted):
            return stale
        if time.monotonic() > until:
            screen.remark("Not all records have arrived in the store yet; they are in the spool, and will.")
            return list(found)
        time.sleep(_LOOK_SECONDS)
