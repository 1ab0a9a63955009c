"""The application's own records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from otel_audit.audit_record import Actor, AuditRecord, Change, Outcome, Target

_logger = logging.getLogger(__name__)


def record(
    event_name: str,
    action: str,
    *,
    target: Target | None = None,
    changes: Sequence[Change] = (),
    outcome: Outcome = "success",
    actor: Actor | None = None,
    message: str = "",
    error: str = "",
    related: Sequence[Target] = (),
    attributes: Mapping[str, Any] | None = None,
    fields: Sequence[str] = (),
    log: str = "audit",
    event_type: str = "",
) -> AuditRecord | None:
    """Record an event that only the application knows of. The record is on disk when this returns.

    The actor, source and request are taken from the context. Values are redacted like all others.

    Args:
        event_name: dot-separated and stable: ``shop.invoice.export``.
        action: an upper-case verb: ``EXPORT``.
        target: the object of the action.
        changes: the old and new value per field.
        outcome: ``success``, ``failure`` or ``unknown``.
        actor: overrides the actor of the context.
        attributes: additional values, by name.
        log: the kind of record; Collectors route by it.

    Returns:
        The record, or None if it was not kept or audit is not running (logged).

    Raises:
        AuditError: the record could not be made or kept, and ``on_error`` is ``fail_closed``.
    """
    from otel_audit.pipeline import provider

    logger = provider.current_logger()
    if logger is None:
        _tell_once(event_name)
        return None
    return logger.log(
        event_name,
        action,
        target=target,
        changes=changes,
        outcome=outcome,
        actor=actor,
        message=message,
        error=error,
        related=related,
        attributes=attributes,
        fields=fields,
        log=log,
        event_type=event_type,
    )


@cache
def _tell(reason: str | None) -> None:
    _logger.warning("Records of otel_audit.record() are not made: %s", reason)


def _tell_once(event_name: str) -> None:
    from otel_audit import startup

    _logger.debug("%s is not recorded", event_name)
    _tell(startup.why_off())
