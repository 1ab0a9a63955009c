"""What a policy would have recorded of events whose records are there: counted by rule and level."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from msgspec import UNSET

from otel_audit import semconv
from otel_audit.audit_record import AuditRecord
from otel_audit.config.sections.policy import WITH_BODIES
from otel_audit.named_tuples import NamedTuple
from otel_audit.policy.decision import Facts, Kind, Level
from otel_audit.policy.policy import Policy

_RULES_OF: Final[dict[str, Kind]] = {
    "request": "request",
    "outgoing": "outgoing",
    "command": "command",
    "job": "command",
    "task": "task",
}
_KINDS: Final = {
    name: _RULES_OF[kind]
    for kind, names in semconv.WORK_EVENTS.items()
    for name in names
    if name != "task.stale"  # somebody asked for it: no rule is
}
_SHOWS: Final = {
    "command.start": Level.METADATA,
    "task.publish": Level.REQUEST,
    "task.start": Level.REQUEST,
}
"""Records that have no more than this at any level: what was done was not over when they were made."""
_WRITES: Final = frozenset({"CREATE", "UPDATE", "DELETE"})


class Difference(NamedTuple):
    """One line of the answer: what was recorded and what would be, by which rule; None: by none."""

    kind: Kind
    rule: int | None
    before: Level
    after: Level


class Counted(NamedTuple):
    """How many records have a difference, and one of them."""

    difference: Difference
    records: int
    example: AuditRecord


class DryRun(NamedTuple):
    """The answer: ``records`` were looked at, of which the policy says nothing about ``others``."""

    counted: list[Counted]
    records: int
    others: int
    first: int
    last: int

    def total(self, *, rising: bool) -> int:
        """Return how many records would have had more (``rising``) or less, those not made included."""
        return sum(
            each.records
            for each in self.counted
            if (each.difference.after > each.difference.before) == rising
            and each.difference.after != each.difference.before
        )

    @property
    def dropped(self) -> int:
        """How many records would not have been made."""
        return sum(each.records for each in self.counted if each.difference.after is Level.NONE)


def dry_run(policy: Policy, records: Iterable[AuditRecord]) -> DryRun:
    """Ask the policy about what each record tells."""
    counts: dict[Difference, int] = {}
    examples: dict[Difference, AuditRecord] = {}
    looked = others = 0
    first = last = 0
    for record in records:
        looked += 1
        first = min(first or record.timestamp, record.timestamp)
        last = max(last, record.timestamp)
        kind = kind_of(record)
        if kind is None:
            others += 1
            continue
        decision = policy.decide(kind, facts_of(kind, record))
        before = recorded_level(kind, record)
        after = min(decision.level, _SHOWS.get(record.event_name, decision.level))
        if kind == "change":  # a rule lowers what `models` says, and no rule leaves it
            after = before if decision.rule is None else min(before, after)
        difference = Difference(kind, decision.rule, before, after)
        counts[difference] = counts.get(difference, 0) + 1
        examples.setdefault(difference, record)
    ordered = sorted(counts, key=lambda each: (each.rule or len(counts) + 10**6, -counts[each], each.kind))
    return DryRun(
        [Counted(each, counts[each], examples[each]) for each in ordered], looked, others, first, last
    )


def kind_of(record: AuditRecord) -> Kind | None:
    """Return the kind of event a record tells; None if the policy does not decide about it."""
    kind = _KINDS.get(record.event_name)
    if kind is None and record.action in _WRITES and record.database.table:
        return "change"
    return kind


def facts_of(kind: Kind, record: AuditRecord) -> Facts:
    """Return what a record tells of its event. Nothing is unknown: what it does not have, there was not."""
    get = record.attributes.get
    target = record.target
    user = None if record.actor.type == "unknown" else record.actor.id
    tenant = record.tenant or None
    if kind == "request":
        request = record.request
        return Facts(
            path=request.path or None,
            view=request.view or None,
            route=request.route or None,
            method=request.method or None,
            status=_number(get(semconv.STATUS_CODE)),
            host=_host(get(semconv.SERVER_ADDRESS), get(semconv.SERVER_PORT)),
            user=user,
            tenant=tenant,
        )
    if kind == "outgoing":
        address = urlsplit(str(get(semconv.URL) or ""))
        return Facts(
            path=address.path or "/",
            method=get(semconv.METHOD),
            status=_number(get(semconv.STATUS_CODE)),
            host=_host(get(semconv.SERVER_ADDRESS), get(semconv.SERVER_PORT)),
            user=user,
            tenant=tenant,
        )
    if kind == "command":
        name = None if target is None else target.id or target.type
        return Facts(command=name, user=user, tenant=tenant)
    if kind == "task":
        return Facts(task=None if target is None else target.type, user=user, tenant=tenant)
    return Facts(model=None if target is None else target.type)


def recorded_level(kind: Kind, record: AuditRecord) -> Level:
    """Return the level a record seems to have been made at, by what is in it."""
    has = record.attributes
    if kind in WITH_BODIES:
        if any(name.startswith((semconv.RESPONSE_HEADER, semconv.RESPONSE_BODY)) for name in has):
            return Level.REQUEST_RESPONSE
        if any(name.startswith((semconv.REQUEST_HEADER, semconv.REQUEST_BODY)) for name in has):
            return Level.REQUEST
        return Level.METADATA
    if kind == "command":
        return Level.REQUEST_RESPONSE if semconv.OUTPUT in has else Level.METADATA
    if kind == "task":
        if semconv.TASK_RESULT in has or semconv.OUTPUT in has:
            return Level.REQUEST_RESPONSE
        return Level.REQUEST if semconv.ARGUMENTS in has else Level.METADATA
    return Level.REQUEST if _has_values(record) else Level.METADATA


def _has_values(record: AuditRecord) -> bool:
    if record.image or record.database.query:
        return True
    sides = [*record.changes, *(() if record.bulk is None else record.bulk.columns)]
    return any(side.old is not UNSET or side.new is not UNSET for side in sides)


def _host(name: object, port: object) -> str | None:
    if not name:
        return None
    return f"{name}:{port}" if port else str(name)


def _number(value: object) -> int | None:
    return value if type(value) is int else None
