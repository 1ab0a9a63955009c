"""Query the trail: who did what to which object, the history of an object, a trace, one record in full."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final, Literal, Self, TypeAlias, Unpack

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import StoreConfig
from otel_audit.errors import QueryError
from otel_audit.store.client import RefusedQuery, StoreClient
from otel_audit.store.counts import Asked, Seen, Status, count
from otel_audit.store.entries import AuditEntry, columns, entry
from otel_audit.store.filters import (
    EVERY_LOG,
    HISTORY_LOGS,
    MAX_LIMIT,
    MOMENT,
    OTHERS_HAVE_SOME,
    Conditions,
    FilterOptions,
    Filters,
    Query,
    log_conditions,
    logs_meant,
    select,
    tables,
    trace_id,
    union,
    write_cursor,
)
from otel_audit.store.lookup import StoredRecord, stored_record
from otel_audit.store.newest_month import newest_month
from otel_audit.store.recent import recent_records
from otel_audit.store.schema import ACCESS_LOG, TRACES
from otel_audit.store.tasks import TaskEntry, task
from otel_audit.store.tasks import select as select_tasks
from otel_audit.store.times import TimeLike, parse_time
from otel_audit.store.traces import SPAN_COLUMNS, TREE_PARTS, Trace, span, tree, works
from otel_audit.store.users import ids_of, known_as

Vocabulary: TypeAlias = Literal[
    "actor",
    "action",
    "target",
    "field",
    "log",
    "tenant",
    "service",
    "route",
    "address",
    "on_behalf_of",
    "slug",
    "view",
]

_NO_SUMS: Final[dict[str, str | int]] = {"optimize_use_projections": 0}
"""For what no sums answer: to look whether they do takes 2 ms for each table."""
_NEWEST_FIRST: Final = _NO_SUMS | {"read_in_order_use_buffering": 0}
"""For rows in the order of time, which end with a limit.

Otherwise the engine reads on in every part while it merges their newest rows: for 50 records with a value of
a field, 1.7 times the rows in three parts. Smaller blocks save rows as well, but make rare records dear.
"""
_MAX_SPANS = 20_000
_MOST_GENERATIONS = 5
"""How deep :meth:`AuditStore.trace` looks for work that began in other traces, one statement each."""
_MOST_INSIDE = 1000
_VOCABULARY_SQL: dict[Vocabulary, str] = {
    "actor": "if(actor_name = '', actor_id, actor_name)",
    "action": "action",
    "target": "target_type",
    "field": "arrayJoin(changes.field)",
    "log": "log",
    "tenant": "tenant",
    "service": "service",
    "route": "route",
    "slug": "slug",
    "view": "view",
    "address": "source_ip",
    "on_behalf_of": "on_behalf_of",
}


class Page(msgspec.Struct, frozen=True):
    """Entries, newest first, and the cursor of the next page; ``None`` on the last page."""

    entries: list[AuditEntry]
    cursor: str | None = None

    def __iter__(self) -> Iterator[AuditEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class AuditStore:
    """The trail in a store: `otel-audit serve`, or a ClickHouse server with its tables.

    Args:
        config: the ``store`` section of a configuration, or only a URL.
        zone: the time zone of days and times given as text. Default: the machine's.
    """

    def __init__(
        self, config: StoreConfig | str = "http://127.0.0.1:8123", *, zone: datetime.tzinfo | None = None
    ) -> None:
        self._client = StoreClient(config)
        self._database = self._client.config.database
        self._zone = zone
        self._in_others: set[str] = set()
        self._seen = Seen()

    def query(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        parts: Collection[str] | None = None,
        **filters: Unpack[FilterOptions],
    ) -> Page:
        """Find records, newest first; :class:`~otel_audit.store.filters.Filters` describes each filter.

        Args:
            limit: entries per page, at most 10 000.
            cursor: the cursor of the previous page.
            parts: the parts of the entries to read, such as ``("changes", "route")``, beside id, time, event
                name, action, outcome, actor, target and rows; the others are left empty. Default: all. The
                fewer there are, the less a query costs.
            filters: what to search for: ``actor="ana", since="2 hours ago"``.

        Raises:
            QueryError: a filter is not valid; the message says what is.
            StoreError: the store cannot be reached, or refuses the query.
        """
        return self.find(Filters(**filters), limit=limit, cursor=cursor, parts=parts)

    def find(
        self,
        filters: Filters,
        *,
        limit: int = 50,
        cursor: str | None = None,
        related: bool = False,
        parts: Collection[str] | None = None,
    ) -> Page:
        """Do what :meth:`query` does, with the filters as one value.

        Args:
            related: also find records that name the target as a related object.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise QueryError(
                f"limit is {limit}; write a number from 1 to {MAX_LIMIT}, and get further pages with "
                "the cursor"
            )
        filters = self._with_actor_ids(self._at_fixed_times(filters))
        entries: dict[str, AuditEntry] = {}
        wanted = limit + 1
        begin = newest_month(filters, cursor)
        while len(entries) <= limit:

            def statement(
                others: bool, wanted: int = wanted, cursor: str | None = cursor, begin: int | None = begin
            ) -> Query:
                return select(
                    self._database,
                    filters,
                    rows=wanted,
                    cursor=cursor,
                    begin=begin,
                    related=related,
                    others=others,
                    parts=parts,
                    zone=self._zone,
                )

            rows = [entry(row) for row in self._ask(logs_meant(filters), statement)]
            for each in rows:
                entries.setdefault(each.id, each)
            if rows:
                cursor = write_cursor(rows[-1].timestamp, rows[-1].id)
            if len(rows) == wanted:
                wanted = min(2 * wanted, MAX_LIMIT)
            elif begin is not None:
                begin = None  # what is older
            else:
                break
        found = list(entries.values())
        if len(found) <= limit:
            return Page(self._with_names(found))
        last = found[limit - 1]
        return Page(self._with_names(found[:limit]), write_cursor(last.timestamp, last.id))

    def _ask(
        self, log: str | Sequence[str] | None, statement: Callable[[bool], Query]
    ) -> list[dict[str, Any]]:
        """Ask without ``other_events``; with it from the first time on that it has records of these logs."""
        key = str(log)
        if key not in self._in_others:
            try:
                return self._client.query(*statement(False), settings=_NEWEST_FIRST)
            except RefusedQuery as error:
                if OTHERS_HAVE_SOME not in str(error):
                    raise
                self._in_others.add(key)
        return self._client.query(*statement(True), settings=_NEWEST_FIRST)

    def _with_actor_ids(self, filters: Filters) -> Filters:
        """Look up which users carry the name asked for: some of their records have only the id."""
        if filters.actor is not None:
            filters = msgspec.structs.replace(filters, actor_ids=self._ids_of(filters.actor))
        if filters.on_behalf_of is not None:
            filters = msgspec.structs.replace(filters, customer_ids=self._ids_of(filters.on_behalf_of))
        return filters

    def _ids_of(self, name: str) -> list[str]:
        return ids_of(self._client, self._database, name)

    def _with_names(self, entries: list[AuditEntry]) -> list[AuditEntry]:
        """Give users without a name the one that other records of the same time have for their id."""
        actors, moments = [each.actor for each in entries], [each.timestamp for each in entries]
        known = known_as(self._client.query, self._database, actors, moments)
        return [
            msgspec.structs.replace(each, **found) if found else each
            for each, found in zip(entries, known, strict=True)
        ]

    def _at_fixed_times(self, filters: Filters) -> Filters:
        """Put numbers in the place of words, so that "an hour ago" stays the same over several statements."""
        since, until = filters.since, filters.until
        return msgspec.structs.replace(
            filters,
            since=None if since is None else parse_time(since, zone=self._zone),
            until=None if until is None else parse_time(until, zone=self._zone, end=True),
        )

    def history(
        self,
        target: str,
        *,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        log: str | Sequence[str] | None = None,
        limit: int = 100,
        cursor: str | None = None,
        parts: Collection[str] | None = None,
    ) -> Page:
        """Return what happened to one object, newest first: ``history("shop.Order/7")``.

        Includes rows of bulk records, reads, failures and records that name it as a related object. Without
        ``log``, all logs except page views are searched. ``parts`` as for :meth:`query`.

        Raises:
            QueryError: ``target`` does not name a single object.
        """
        kind, _, key = target.partition("/")
        if not kind or not key or "*" in kind:
            raise QueryError(
                f"history shows one object; write its type and id, such as shop.Order/7, not {target!r}"
            )
        filters = Filters(target=target, since=since, until=until, log=HISTORY_LOGS if log is None else log)
        return self.find(filters, limit=limit, cursor=cursor, related=True, parts=parts)

    def related_to(
        self,
        obj: Any,
        *,
        log: str | Sequence[str] | None = None,
        kind: str | Sequence[str] | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        limit: int = 100,
        cursor: str | None = None,
        parts: Collection[str] | None = None,
    ) -> Page:
        """Return the records that name an object as related, newest first: requests, calls, changes, ….

        Args:
            obj: an object of Django or SQLAlchemy, a :class:`Target`, or ``"shop.Order/7"``.
            log: the logs to search; all of them if none is given.
            kind: only records of work: ``request``, ``outgoing``, ``command``, ``job``, ``task``.
            since, until, limit, cursor, parts: as for :meth:`query`.

        Raises:
            QueryError: ``obj`` is no single object.
        """
        from otel_audit.targets import target_of

        target = target_of(obj)
        if target is None or not target.id:
            raise QueryError(
                "related_to needs one saved object: an object of Django or SQLAlchemy, a Target, or "
                f"shop.Order/7, not {obj if isinstance(obj, str) else type(obj).__name__!r}"
            )
        filters = Filters(
            related=str(target), kind=kind, log=EVERY_LOG if log is None else log, since=since, until=until
        )
        return self.find(filters, limit=limit, cursor=cursor, parts=parts)

    def trace(
        self,
        id: str,  # noqa: A002 - the word for it
        *,
        parts: Collection[str] | None = None,
    ) -> Trace:
        """Return the spans of one trace and its records of every log, as a tree.

        What its requests, commands, jobs and tasks began in other traces is among the records.
        Empty (and false) if the store has neither. ``parts`` of the records as for :meth:`query`.
        """
        number = trace_id(id)
        spans = self._client.query(
            f"SELECT {SPAN_COLUMNS} FROM {self._database}.{TRACES} WHERE TraceId = {{id:String}} "
            f"ORDER BY Timestamp LIMIT 1 BY SpanId LIMIT {_MAX_SPANS}",
            {"id": number},
        )
        found = self._with_inside(Filters(trace_id=number, log=EVERY_LOG), parts)
        return tree(number, map(span, spans), found)

    def inside(self, request_id: str, *, parts: Collection[str] | None = None) -> Trace:
        """Return the records of one request, command, task or job and of what happened in it, as a tree.

        This is :meth:`trace` for work that has no trace; ``parts`` as for :meth:`query`.
        """
        return tree("", [], self._with_inside(Filters(request_id=request_id, log=EVERY_LOG), parts))

    def _with_inside(self, filters: Filters, parts: Collection[str] | None) -> list[AuditEntry]:
        """Find records, and those of what happened in their requests, commands, jobs and tasks."""
        wanted = None if parts is None else {*parts, *TREE_PARTS}
        found = {each.id: each for each in self.find(filters, limit=MAX_LIMIT, parts=wanted)}
        asked: set[str] = set()
        for _ in range(_MOST_GENERATIONS):
            parents = works(found.values()).keys() - asked
            if not parents:
                break
            asked |= parents
            inside = self.find(Filters(parent=sorted(parents)), limit=_MOST_INSIDE, parts=wanted)
            found |= {each.id: each for each in inside}
        return list(found.values())

    def count_requests(
        self,
        *,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        ip: str | None = None,
        path: str | None = None,
        view: str | None = None,
        slug: str | None = None,
        method: str | Sequence[str] | None = None,
        status: Status | None = None,
        user: str | None = None,
        exclude: str | Sequence[str] | None = None,
    ) -> int:
        """Return how many requests match all conditions, each counted once.

        Args:
            since, until: the time range, as for :meth:`query`.
            ip: the address of the client, or a network such as ``203.0.113.0/24``.
            path, view, slug: those of the request; a pattern if it contains ``*``.
            method: one or several: ``"POST"``, ``"PUT,PATCH"``.
            status: of the answer, one or several: ``404``, ``"4xx"``.
            user: the actor, by id or name.
            exclude: ids of requests or of records that do not count.

        Raises:
            QueryError: a condition is not valid; the message says what is.
        """
        begin = None if since is None else parse_time(since, zone=self._zone)
        end = None if until is None else parse_time(until, zone=self._zone, end=True)
        users = () if user is None else (user, *self._ids_of(user))
        asked = Asked(ip, path, view, slug, method, status, users)
        left_out = [exclude] if isinstance(exclude, str) else list(exclude or ())
        return count(self._client.query, self._database, asked, begin, end, left_out, self._seen)

    def tasks(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        queue: str | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        older_than: TimeLike | None = None,
        ran_twice: bool = False,
        limit: int = 100,
    ) -> list[TaskEntry]:
        """Return tasks with their state, told from the records of publishing and running them.

        Args:
            state: ``waiting`` (published, has not run), ``stale`` (as ``otel-audit tasks --mark-stale`` has
                found), ``running``, ``failed``, ``done``; all of them if none is given.
            name, queue: those of the task; a pattern if it contains ``*``.
            since, until: when it was first heard of.
            older_than: only tasks that have been in their state for so long: ``"60m"``, a ``timedelta``.
            ran_twice: only tasks that were begun more often than they asked to be.
            limit: how many, at most 10 000; those whose state began last come first.

        Raises:
            QueryError: an argument is not valid; the message says what is.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise QueryError(f"limit is {limit}; write a number from 1 to {MAX_LIMIT}")
        statement = select_tasks(
            self._database,
            state=state,
            name=name,
            queue=queue,
            since=None if since is None else parse_time(since, zone=self._zone),
            until=None if until is None else parse_time(until, zone=self._zone, end=True),
            before=None if older_than is None else parse_time(older_than, zone=self._zone),
            ran_twice=ran_twice,
            limit=limit,
        )
        return list(map(task, self._client.query(*statement)))

    def get(self, record_id: str) -> AuditRecord | None:
        """Return one record of any log as it was made; ``None`` if the store does not have it.

        Raises:
            QueryError: ``record_id`` is not a record id.
            InvalidRecord: it was written by a newer version of otel-audit.
        """
        stored = self.stored(record_id)
        return None if stored is None else stored.record

    def stored(self, record_id: str) -> StoredRecord | None:
        """Do what :meth:`get` does, with the resource that sent the record, and names of its users."""
        stored = stored_record(partial(self._client.query, settings=_NO_SUMS), self._database, record_id)
        if stored is None:
            return None
        record = stored.record
        [found] = known_as(self._client.query, self._database, [record.actor], [record.timestamp])
        return msgspec.structs.replace(stored, **found) if found else stored

    def with_fragment(
        self,
        fragment: str,
        *,
        since: TimeLike | None = None,
        limit: int = 10,
        parts: Collection[str] | None = None,
    ) -> list[AuditEntry]:
        """Find records of all logs by a part of their id, at least six characters, newest first.

        ``parts`` as for :meth:`query`.

        Raises:
            QueryError: ``fragment`` is not a part of a record id.
        """
        text = fragment.strip().lower()
        if not re.fullmatch(r"[0-9a-f-]{6,36}", text):
            raise QueryError(
                f"{fragment!r} is not a record id; write it in full, or at least its last 6 digits"
            )
        where = Conditions()
        where.add("ordinal = 0")
        if since is not None:
            moment = parse_time(since, zone=self._zone)
            where.add(f"timestamp >= {MOMENT}", moment)
        where.add("position(toString(record_id), {String}) > 0", text)
        each = [
            f"SELECT {columns(parts)} FROM {self._database}.{table} WHERE {where} "
            f"ORDER BY timestamp DESC, record_id DESC LIMIT {2 * int(limit)}"
            for table in tables(EVERY_LOG)
        ]
        sql = f"{union(each)} ORDER BY at DESC, toUUID(id) DESC"
        found = {row.id: row for row in map(entry, self._client.query(sql, where.parameters))}
        return list(found.values())[:limit]

    def vocabulary(
        self,
        kind: Vocabulary,
        *,
        target: str | None = None,
        log: str | Sequence[str] | None = None,
        limit: int = 100,
    ) -> list[str]:
        """List what occurs in the trail, most frequent first: fields, actions, types of targets.

        Args:
            target: count only records of this type of target.
            log: count only records of these logs; ``audit`` if none is given.
        """
        where = Conditions()
        where.add("ordinal = 0")
        if target:
            where.add("target_type = {String}", target.partition("/")[0])
        if kind == "log":
            log = (EVERY_LOG, ACCESS_LOG)
        log_conditions(where, log)
        each = [
            f"SELECT {_VOCABULARY_SQL[kind]} AS word, count() AS times FROM {self._database}.{table} "
            f"WHERE {where} GROUP BY word"
            for table in tables(log)
        ]
        rows = self._client.query(
            f"SELECT word, sum(times) AS times FROM ({union(each)}) GROUP BY word HAVING word != '' "
            f"ORDER BY times DESC, word LIMIT {int(limit)}",
            where.parameters,
        )
        return [str(row["word"]) for row in rows]

    def newest(self) -> AuditEntry | None:
        """Return the newest record of any log except ``access``, ``None`` if there is none."""
        page = self.find(Filters(log=EVERY_LOG), limit=1)
        return page.entries[0] if page.entries else None

    def recent(self, most: int) -> Iterator[AuditRecord]:
        """Return at most so many records of all logs but ``access``, newest first.

        Those of a newer version of otel-audit are left out.
        """
        return recent_records(self._client.query, self._database, most)

    @property
    def received(self) -> int:
        """How many rows the store has given so far."""
        return self._client.received

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
