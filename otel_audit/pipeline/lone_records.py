"""The quick way to make a record alone: of the one write of a transaction, of the objects a query has read.

Nothing is kept for another one. A record of portable values, with a context of exact texts, needs no
conversion and no limit; what is left of the general way is one look for secrets. It is the same record to the
byte. Anything unusual in it takes the general way, which says what is wrong.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from otel_audit.audit_context import Moment
from otel_audit.audit_record import Bulk, Change, Database, OldValues, Target, new_record_id
from otel_audit.otel_api import trace_ids
from otel_audit.pipeline.limits import SMALL
from otel_audit.pipeline.record_heads import EncodedRecord, Looks, fields_of_record
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.validation import ACTOR_TYPES
from otel_audit.redaction.text.patterns import is_uuid
from otel_audit.redaction.text.suspicions import are_too_short

_actor: Final = operator.attrgetter("id", "name", "type", "on_behalf_of", "on_behalf_of_name", "roles")
_request: Final = operator.attrgetter("path", "route", "view", "method")
_source: Final = operator.attrgetter("id", "type", "session")
_database: Final = operator.attrgetter("system", "namespace", "table", "transaction", "address")
_join: Final = "".join

_FIELDS: Final = (
    "id",
    "timestamp",
    "observed_timestamp",
    "event_name",
    "action",
    "actor",
    "target",
    "source",
    "request",
    "database",
    "changes",
    "image",
    "bulk",
    "fields",
    "old_values",
    "reason",
    "tenant",
    "system",
    "code",
    "trace_id",
    "span_id",
)
# Made with positions and no other fields: that takes a sixth of what making an AuditRecord does.
_Lone: Final = msgspec.defstruct("_Lone", fields_of_record(_FIELDS), omit_defaults=True)


class LoneRecords:
    """Makes records of a success one by one.

    Args:
        redactor: looks at what each record says.
        tenant: where neither context nor moment has one.
        system: where the context has none.
    """

    def __init__(self, redactor: Looks, tenant: str, system: str) -> None:
        self._are_clean = redactor.are_clean
        self._tenant = tenant
        self._system = system

    def record(
        self,
        event_name: str,
        action: str,
        target: Target,
        database: Database,
        old_values: OldValues | None,
        at: Moment,
        changes: list[Change],
        image: dict[str, Any],
        looked: list[Any],
        strategies: Mapping[str, str],
        fields: Sequence[str] = (),
        bulk: Bulk | None = None,
    ) -> EncodedRecord | None:
        """Make a record of values that are portable; None if it must be made in the general way.

        Args:
            event_name: dot-separated, ``shop.order.update``.
            action: upper-case verb, ``UPDATE``.
            target: the row; the parts of its key have no strategy.
            database: where it was written.
            old_values: where the old values come from.
            at: when, under which context and span.
            changes: what has changed.
            image: all that was written.
            looked: the values among them to look at for secrets.
            strategies: as for :meth:`otel_audit.pipeline.logger.AuditLogger.record`.
            fields: the names of what was read.
            bulk: the keys of the rows where they are several, which have no strategy either.

        Raises:
            Exception: a part of the context is not what it should be; the general way finds out what.
        """
        observed = time.time_ns()
        context = at.fields()
        tenant = context.tenant or at.tenant
        if tenant is None or context.attributes or context.origin is not None or context.truncated:
            return None
        if context.slug or context.related:
            return None
        tenant, system = tenant or self._tenant, context.system or self._system
        actor, source, request = context.actor, context.source, context.request
        if not actor.id or actor.type not in ACTOR_TYPES:
            return None
        texts = [
            target.id,
            target.type,
            event_name,
            context.reason,
            tenant,
            system,
            at.code,
            source.user_agent,
        ]
        texts += _request(request)
        texts += _actor(actor)
        if not is_uuid(request.id):  # each request has another, and no rule changes one
            texts.append(request.id)
        if request.parent and not is_uuid(request.parent):
            texts.append(request.parent)
        _join((*texts, *_source(source), *_database(database), *fields))  # raises where one is no text
        if bulk is not None and not are_too_short(bulk.keys):
            texts += bulk.keys
        read = list(fields)
        changed = [change.field for change in changes]
        if not self._are_clean([*image, *changed, *read], looked, texts, strategies):
            return None
        timestamp = at.time
        id_ = new_record_id(timestamp)
        trace_id, span_id = trace_ids(at.span)
        payload = encode_record(
            _Lone(
                id_,
                timestamp,
                observed if observed >= timestamp else timestamp,
                event_name,
                action,
                actor,
                target,
                source,
                request,
                database,
                changes,
                image,
                bulk,
                read,
                old_values,
                context.reason,
                tenant,
                system,
                at.code,
                trace_id,
                span_id,
            )
        )
        if len(payload) >= SMALL:
            return None
        return EncodedRecord(
            id_, timestamp, event_name, action, "success", target, changed or read, payload, bulk
        )
