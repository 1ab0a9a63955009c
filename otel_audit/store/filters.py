"""Turn a caller's filters into SQL: the only place where conditions are written.

Values become server-side parameters, never a part of the SQL.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import Any, Final

import msgspec

from otel_audit.audit_record import Outcome
from otel_audit.errors import QueryError
from otel_audit.named_tuples import NamedTuple
from otel_audit.store.entries import columns
from otel_audit.store.schema import ACCESS_LOG, DEFAULT_LOG, LOGS, OTHER_LOG, events
from otel_audit.store.times import TimeLike, format_iso, parse_time
from otel_audit.store.work import KINDS

MAX_LIMIT: Final = 10_000
OUTCOMES: Final[tuple[str, ...]] = typing.get_args(Outcome)
EVERY_LOG: Final = "*"
HISTORY_LOGS: Final = ",".join(f"!{log.name}" for log in LOGS if not log.in_history) or EVERY_LOG
"""The logs that tell what happened to an object."""

_TOKEN: Final = re.compile(r"[0-9a-z\x80-\U0010ffff]+")  # as the index splits: other ASCII separates
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What to search for; all conditions must match.

    Attributes:
        actor: id or name of the actor.
        target: ``shop.Order/7``, or a type: ``shop.Order``, ``shop.*``.
        action: one or several, ignoring case.
        outcome: ``success``, ``failure``, ``unknown``; one or several.
        field: a changed (or read) field, or ``field=value`` for its new value.
        trace_id: 32 hexadecimal digits, or a ``traceparent`` header.
        request_id: the id of the request.
        since, until: the start of the time range, included, and its end, excluded.
        text: words in the message or in old and new values; all of them, ignoring case.
        log: the kind of record. One or several, ``*`` for all, ``!pageview`` for all except that one.
            Default: ``audit``.
        tenant: the tenant of the record.
        service: the ``service.name`` that recorded it; a pattern if it contains ``*``.
        address: the address of the client, or a network such as ``203.0.113.0/24``.
        session: the hashed session, as in records.
        route: the route of the request, as the framework spells it; a pattern if it contains ``*``.
        reason: a part of the reason, ignoring case.
        on_behalf_of: the user on whose behalf the actor acted, by id or by the user's name in the trail.
        completeness: ``full``, ``ids``, ``count``, ``statement``; one or several.
        slug: the application's short name for what was done; a pattern if it contains ``*``.
        view: the function that handled the request, command or task; a pattern if it contains ``*``.
        related: an object that records name as related, beside their target: ``shop.Order/7``.
        parent: the id of the request, command, task or job in which it happened; one or a list. All logs are
            searched.
        kind: records of work itself: ``request``, ``outgoing``, ``command``, ``job``, ``task``; one or
            several. All logs are searched.
        actor_ids: ids of users that ``actor`` names; :class:`AuditStore` finds them in the trail.
        customer_ids: the same of ``on_behalf_of``.
    """

    actor: str | None = None
    target: str | None = None
    action: str | Sequence[str] | None = None
    outcome: str | Sequence[str] | None = None
    field: str | None = None
    trace_id: str | None = None
    request_id: str | None = None
    since: TimeLike | None = None
    until: TimeLike | None = None
    text: str | None = None
    log: str | Sequence[str] | None = None
    tenant: str | None = None
    service: str | None = None
    address: str | None = None
    session: str | None = None
    route: str | None = None
    reason: str | None = None
    on_behalf_of: str | None = None
    completeness: str | Sequence[str] | None = None
    slug: str | None = None
    view: str | None = None
    related: str | None = None
    parent: str | Sequence[str] | None = None
    kind: str | Sequence[str] | None = None
    actor_ids: Sequence[str] = ()
    customer_ids: Sequence[str] = ()


class FilterOptions(typing.TypedDict, total=False):
    """The parts of :class:`Filters` as keyword arguments."""

    actor: str | None
    target: str | None
    action: str | Sequence[str] | None
    outcome: str | Sequence[str] | None
    field: str | None
    trace_id: str | None
    request_id: str | None
    since: TimeLike | None
    until: TimeLike | None
    text: str | None
    log: str | Sequence[str] | None
    tenant: str | None
    service: str | None
    address: str | None
    session: str | None
    route: str | None
    reason: str | None
    on_behalf_of: str | None
    completeness: str | Sequence[str] | None
    slug: str | None
    view: str | None
    related: str | None
    parent: str | Sequence[str] | None
    kind: str | Sequence[str] | None


def logs_meant(filters: Filters) -> str | Sequence[str] | None:
    """Return the logs to search: those named, or all of them for what is in several."""
    if filters.log is None and (filters.kind is not None or filters.parent is not None):
        return EVERY_LOG
    return filters.log


class Query(NamedTuple):
    """SQL and its parameters."""

    sql: str
    parameters: dict[str, Any]


MOMENT: Final = "fromUnixTimestamp64Nano({Int64}, 'UTC')"
"""In a template of :meth:`Conditions.add`: a moment, by its nanoseconds since the epoch."""


class Conditions:
    """Conditions joined by AND, and their parameters, numbered so that no two collide.

    Args:
        parameters: those of conditions in the same statement, which these are added to.
    """

    def __init__(self, parameters: dict[str, Any] | None = None) -> None:
        self.parameters = {} if parameters is None else parameters
        self._parts: list[str] = []

    def add(self, template: str, *values: Any) -> None:
        """Add a condition; each ``{Type}`` in it takes the next value as a parameter of that type."""
        remaining = iter(values)

        def place(match: re.Match[str]) -> str:
            name = f"p{len(self.parameters)}"
            self.parameters[name] = next(remaining)
            return f"{{{name}:{match.group(1)}}}"

        self._parts.append(re.sub(r"\{([A-Z][A-Za-z0-9()]*)\}", place, template))

    def __str__(self) -> str:
        return " AND ".join(self._parts) or "1"


def select(
    database: str,
    filters: Filters,
    *,
    rows: int,
    cursor: str | None = None,
    begin: int | None = None,
    related: bool = False,
    others: bool = True,
    parts: Collection[str] | None = None,
    now: int | None = None,
    zone: datetime.tzinfo | None = None,
) -> Query:
    """Return the statement for ``rows`` rows, newest first.

    A record that was sent twice, or of which several rows match, has its rows side by side: who reads them
    takes the first. ``LIMIT 1 BY`` would say that in SQL, but the engine then reads the table to its end,
    where it otherwise stops at the limit (a million rows: 1.3 s instead of 0.06 s).

    Args:
        rows: how many to read at most.
        cursor: go on behind this record.
        begin: leave out what was before this time (ns), though the filters do not.
        related: records that name the target as a related object count as well.
        others: ask ``other_events``, too; see :func:`asked`.
        parts: see :func:`~otel_audit.store.entries.columns`.
        now, zone: see :func:`~otel_audit.store.times.parse_time`.

    Raises:
        QueryError: a filter is not valid; the message says what is.
    """
    where = conditions(filters, related=related, now=now, zone=zone)
    if cursor is not None:
        behind(where, *read_cursor(cursor))
    if begin is not None:
        where.add(f"timestamp >= {MOMENT}", begin)
    # Each table is read in its own order up to the limit; over a union of them the engine would sort all.
    names, look = asked(where, database, logs_meant(filters), others=others)
    each = [
        f"SELECT {columns(parts)} FROM {database}.{table} WHERE {where}{also} "
        f"ORDER BY timestamp DESC, record_id DESC, ordinal DESC LIMIT {int(rows)}"
        for table, also in zip_longest(names, [look], fillvalue="")
    ]
    if len(each) == 1:
        return Query(each[0], where.parameters)
    sql = f"{union(each)} ORDER BY at DESC, toUUID(id) DESC, ordinal DESC LIMIT {int(rows)}"
    return Query(sql, where.parameters)


def behind(where: Conditions, timestamp: int, record_id: str) -> None:
    """Add the condition that a record comes behind this one, where the newest are first."""
    where.add(f"timestamp <= {MOMENT}", timestamp)  # what the primary key can use
    where.add(f"(timestamp, record_id) < ({MOMENT}, {{UUID}})", timestamp, record_id)


OTHERS_HAVE_SOME: Final = "other_events has records of these logs"
"""In the message of a statement that refuses to leave them out."""


def asked(
    where: Conditions, database: str, log: str | Sequence[str] | None, *, others: bool
) -> tuple[tuple[str, ...], str]:
    """Name the tables to ask about the logs meant, and give what the condition of one of them must end with.

    Nearly always ``other_events`` has nothing of them, and asking it costs a third of the whole. Without
    ``others`` it is left out, and the statement fails with :data:`OTHERS_HAVE_SOME` if it has some: what was
    true a moment ago hides nothing. The look belongs to the statement, so one table's condition has it: each
    one costs the engine as much as a column does.
    """
    names = tables(log)
    if others or len(names) == 1:
        return names, ""
    of_logs = [each for each in zip(_LOG_CONDITIONS, _logs(log), strict=True) if each[1]]
    condition = " AND ".join(template for template, _ in of_logs) or "1"
    look = Conditions(where.parameters)
    # A text that is no number fails when the statement is analysed, whether or not it would read any row.
    look.add(
        f"toUInt8(if(isNull((SELECT 1 FROM {database}.{events(OTHER_LOG)} WHERE {condition} LIMIT 1)), '1', "
        f"'{OTHERS_HAVE_SOME}')) = 1",
        *(values for _, values in of_logs),
    )
    return tuple(name for name in names if name != events(OTHER_LOG)), f" AND {look}"


def union(selects: Sequence[str]) -> str:
    """Return one SELECT over several that may each have their own order and limit."""
    return f"SELECT * FROM ({' UNION ALL '.join(f'({each})' for each in selects)})"


def tables(log: str | Sequence[str] | None) -> tuple[str, ...]:
    """Name the tables that can hold records of the logs meant, the likeliest first.

    A record that was sent to the landing table of another log is kept with the logs that have no table.
    """
    names, excluded = _logs(log)
    found = dict.fromkeys(map(events, names)) if names else dict.fromkeys(events(each.name) for each in LOGS)
    for name in excluded:
        if events(name) != events(OTHER_LOG):
            found.pop(events(name), None)
    return (*(found | {events(OTHER_LOG): None}),)


def _logs(log: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Take the logs meant apart: those named (none: all), and those excluded.

    Who asked is told only to those who ask for it by name: every question would find itself.
    """
    given = [DEFAULT_LOG] if log is None else _several("log", log)
    named = [name for name in given if name != EVERY_LOG and not name.startswith("!")]
    excluded = [_filled("log", name[1:].strip()) for name in given if name.startswith("!")]
    if (EVERY_LOG in given or not named) and ACCESS_LOG not in (*named, *excluded):
        excluded.append(ACCESS_LOG)
    return ([] if EVERY_LOG in given else named), excluded


def conditions(
    filters: Filters,
    *,
    related: bool = False,
    now: int | None = None,
    zone: datetime.tzinfo | None = None,
) -> Conditions:
    """Turn filters into conditions on the tables of records."""
    where = Conditions()
    rows = False  # may a row of a bulk record answer, and not only the record itself?
    _times(where, filters, now, zone)
    if filters.target is not None:
        rows = _target(where, filters.target, related)
    if filters.actor is not None:
        _actor(where, filters.actor, filters.actor_ids)
    if filters.action is not None:
        where.add(
            "action IN {Array(String)}", [action.upper() for action in _several("action", filters.action)]
        )
    if filters.outcome is not None:
        where.add(
            "outcome IN {Array(String)}", [_outcome(each) for each in _several("outcome", filters.outcome)]
        )
    if filters.field is not None:
        name, equals, wanted = filters.field.partition("=")
        if equals:
            rows = True
            where.add("has(change_items, {String})", f"{_filled('field', name.strip())}={wanted.strip()}")
        else:
            where.add("has(changes.field, {String})", _filled("field", filters.field))
    if filters.text is not None:
        rows = True
        _text(where, filters.text)
    _columns(where, filters)
    log_conditions(where, logs_meant(filters))
    if not rows:
        where.add("ordinal = 0")
    return where


def _columns(where: Conditions, filters: Filters) -> None:
    """Add the conditions on single columns of the record itself."""
    for column, value in (
        ("trace_id", None if filters.trace_id is None else trace_id(filters.trace_id)),
        ("request_id", filters.request_id),
        ("tenant", filters.tenant),
        ("session", filters.session),
    ):
        if value is not None:
            where.add(f"{column} = {{String}}", value)
    if filters.on_behalf_of is not None:
        where.add("on_behalf_of IN {Array(String)}", [filters.on_behalf_of, *filters.customer_ids])
    if filters.completeness is not None:
        where.add("completeness IN {Array(String)}", _several("completeness", filters.completeness))
    if filters.service is not None:
        pattern_condition(where, "service", filters.service)
    for column, pattern in (("route", filters.route), ("slug", filters.slug), ("view", filters.view)):
        if pattern is not None:
            pattern_condition(where, column, pattern)
    if filters.related is not None:
        where.add("has(related, {String})", _filled("related", filters.related))
    if filters.parent is not None:
        parents = [filters.parent] if isinstance(filters.parent, str) else filters.parent
        where.add("parent IN {Array(String)}", [_filled("parent", each) for each in parents])
    if filters.kind is not None:
        names = [name for kind in _several("kind", filters.kind) for name in _events_of(kind)]
        where.add("event_name IN {Array(String)}", names)
    if filters.address is not None:
        address_condition(where, filters.address)
    if filters.reason is not None:
        where.add("positionCaseInsensitiveUTF8(reason, {String}) > 0", _filled("reason", filters.reason))


def log_conditions(where: Conditions, log: str | Sequence[str] | None) -> None:
    """Add the conditions on the log."""
    for template, names in zip(_LOG_CONDITIONS, _logs(log), strict=True):
        if names:
            where.add(template, names)


_LOG_CONDITIONS: Final = ("log IN {Array(String)}", "log NOT IN {Array(String)}")


def _times(where: Conditions, filters: Filters, now: int | None, zone: datetime.tzinfo | None) -> None:
    since = until = None
    if filters.since is not None:
        since = parse_time(filters.since, now=now, zone=zone)
        where.add(f"timestamp >= {MOMENT}", since)
    if filters.until is not None:
        until = parse_time(filters.until, now=now, zone=zone, end=True)
        where.add(f"timestamp < {MOMENT}", until)
    if since is not None and until is not None and since >= until:
        raise QueryError(
            f"since ({format_iso(since, zone=zone, digits=3)}) is not earlier than until "
            f"({format_iso(until, zone=zone, digits=3)}), so the range is empty"
        )


def _target(where: Conditions, target: str, related: bool) -> bool:
    """Add the condition on a target; say whether rows of bulk records may answer it."""
    kind, slash, _ = _filled("target", target).partition("/")
    if not kind:
        raise QueryError(f"target {target!r} has no type; write shop.Order/7, shop.Order or 'shop.*'")
    if "*" in kind:
        if slash:
            raise QueryError(
                f"target {target!r} has both a pattern and an id; write shop.Order/7, or only 'shop.*'"
            )
        pattern_condition(where, "target_type", kind)
    elif slash:
        if related:
            where.add("(target = {String} OR has(related, {String}))", target, target)
        else:
            where.add("target = {String}", target)
    else:
        where.add("target_type = {String}", kind)
    return bool(slash)


def _actor(where: Conditions, actor: str, ids: Sequence[str]) -> None:
    """Add the condition on who: by id or name, and by the ids that carry the name where a record has none."""
    if ids:
        nameless = "(actor_name = '' AND actor_type = 'user' AND actor_id IN {Array(String)})"
        where.add(f"(actor_id = {{String}} OR actor_name = {{String}} OR {nameless})", actor, actor, ids)
    else:
        where.add("(actor_id = {String} OR actor_name = {String})", actor, actor)


def pattern_condition(where: Conditions, column: str, value: str) -> None:
    """Add the condition that a column is ``value``, or like it where that has a ``*``."""
    if "*" in _filled(column, value):
        where.add(f"{column} LIKE {{String}}", re.sub(r"([\\%_])", r"\\\1", value).replace("*", "%"))
    else:
        where.add(f"{column} = {{String}}", value)


def address_condition(where: Conditions, value: str) -> None:
    """Add the condition on the client's address: itself, or the network it lies in."""
    text = _filled("address", value).strip()
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        if "/" in text:
            raise QueryError(
                f"address {value!r} is not a network; write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32"
            ) from None
        where.add("source_ip = {String}", text)  # a host name, or what else stands for an address
        return
    if network.num_addresses == 1:
        where.add("source_ip = {String}", str(network.network_address))
        return
    valid = "isIPv4String" if network.version == 4 else "isIPv6String"
    where.add(
        f"({valid}(source_ip) AND isIPAddressInRange(if({valid}(source_ip), source_ip, '::'), {{String}}))",
        str(network),
    )


def _text(where: Conditions, text: str) -> None:
    lowered = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    tokens = sorted(set(_TOKEN.findall(lowered)))
    if not tokens:
        raise QueryError(f"text {text!r} has no word to search for; write at least one letter or digit")
    where.add("hasAllTokens(search_text, {Array(String)})", tokens)
    for word in lowered.split():
        if _TOKEN.fullmatch(word) is None:  # "a@example.com": the parts, and together
            where.add("position(search_text, {String}) > 0", word)
    # A message stands on every row of a bulk record; the record itself answers for it.
    where.add("(ordinal = 0 OR NOT hasAllTokens(lower(message), {Array(String)}))", tokens)


def trace_id(text: str) -> str:
    """Normalise a trace id.

    Raises:
        QueryError: it is not valid.
    """
    lowered = text.strip().lower().removeprefix("0x")
    parent = _TRACEPARENT.fullmatch(lowered)
    found = parent.group(1) if parent else lowered.replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{32}", found):
        raise QueryError(
            f"{text!r} is not a trace id; write its 32 hexadecimal digits, or a traceparent header"
        )
    return found


def _outcome(outcome: str) -> str:
    if outcome.lower() not in OUTCOMES:
        raise QueryError(f"outcome {outcome!r} does not exist; valid are {', '.join(OUTCOMES)}")
    return outcome.lower()


def _events_of(kind: str) -> tuple[str, ...]:
    if kind.lower() not in KINDS:
        raise QueryError(f"kind {kind!r} does not exist; valid are {', '.join(KINDS)}")
    return KINDS[kind.lower()]


def _several(name: str, value: str | Sequence[str]) -> list[str]:
    values = value.split(",") if isinstance(value, str) else value
    return [_filled(name, each.strip()) for each in values]


def _filled(name: str, value: str) -> str:
    if not value.strip():
        raise QueryError(f"{name} is empty; omit it, or write what to search for")
    return value


def write_cursor(timestamp: int, record_id: str) -> str:
    """Return the text that continues a query behind a record."""
    return urlsafe_b64encode(f"{timestamp}.{record_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[int, str]:
    """Take a cursor apart: timestamp and record id.

    Raises:
        QueryError: it is not valid.
    """
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        timestamp, _, record_id = text.partition(".")
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", record_id):
            raise ValueError(record_id)
        moment = int(timestamp)
        if not -(2**63) <= moment < 2**63:
            raise ValueError(timestamp)
        return moment, record_id
    except ValueError as error:
        raise QueryError(f"{cursor!r} is not a cursor; copy it unchanged from the previous page") from error
