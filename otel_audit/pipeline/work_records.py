"""The quick way to make the record of a piece of work itself: of a request, a call, a task.

It has no change, no image and no rows. With a context of exact texts it needs no conversion and no limit, so
what is left of the general way is one look for secrets. It is the same record to the byte. Anything unusual
in it takes the general way, which says what is wrong.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel_audit.audit_context import ContextFields, Moment
from otel_audit.audit_record import Outcome, Target, new_record_id
from otel_audit.config.model import PLACES, AuditConfig, PlaceRules
from otel_audit.otel_api import trace_ids
from otel_audit.pipeline.limits import SMALL
from otel_audit.pipeline.record_heads import NO_DATABASE, EncodedRecord, Looks, fields_of_record
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.validation import ACTOR_TYPES, OUTCOMES
from otel_audit.redaction.places import place_of
from otel_audit.redaction.text.patterns import is_uuid

_TEXTS: Final = frozenset({str})
_PLAIN: Final = frozenset({str, int, bool})
_MOST_ATTRIBUTES: Final = 16
_ids_of_request: Final = operator.attrgetter("id", "parent")
_request: Final = operator.attrgetter("path", "route", "view")
_actor: Final = operator.attrgetter("id", "name", "on_behalf_of", "on_behalf_of_name", "roles")
_source: Final = operator.attrgetter("id", "type", "session")

_FIELDS: Final = (
    "id",
    "timestamp",
    "observed_timestamp",
    "event_name",
    "action",
    "outcome",
    "log",
    "actor",
    "target",
    "source",
    "request",
    "origin",
    "database",
    "reason",
    "tenant",
    "system",
    "event_type",
    "event_code",
    "slug",
    "error",
    "code",
    "attributes",
    "trace_id",
    "span_id",
)
# Made with positions and no other fields: that takes a sixth of what making an AuditRecord does.
_Work: Final = msgspec.defstruct("_Work", fields_of_record(_FIELDS), omit_defaults=True)
_NOTHING: Final[dict[str, Any]] = {}


class WorkRecords:
    """Makes records of pieces of work one by one; nothing of one is kept for another.

    Args:
        redactor: looks at what each record says.
        config: the whole configuration.
    """

    def __init__(self, redactor: Looks, config: AuditConfig) -> None:
        self._are_clean = redactor.are_clean
        self._tenant = config.tenant
        self._system = config.system
        self._has_places = any(getattr(config.redaction, place) != PlaceRules() for place in PLACES)

    def record(
        self,
        event_name: str,
        action: str,
        at: Moment,
        target: Target,
        outcome: Outcome,
        log: str,
        error: str,
        attributes: Mapping[str, Any],
        shown: Mapping[str, Any],
        record_id: str | None,
        slug: str,
        event_type: str,
        event_code: str,
        system: str,
        fields: ContextFields | None = None,
    ) -> EncodedRecord | None:
        """Make a record, as :meth:`otel_audit.pipeline.logger.AuditLogger.work` says; None if it is unusual.

        Raises:
            Exception: a part of it is not what it should be; the general way finds out what.
        """
        observed = time.time_ns()
        context = at.fields() if fields is None else fields
        tenant = context.tenant or at.tenant
        if tenant is None or context.attributes or context.related or context.truncated:
            return None
        tenant, system = tenant or self._tenant, system or context.system or self._system
        slug, reason, code, origin = slug or context.slug, context.reason, at.code, context.origin
        actor, source, request = context.actor, context.source, context.request
        if (
            not (actor.id and log and target.type)
            or actor.type not in ACTOR_TYPES
            or outcome not in OUTCOMES
            or len(attributes) > _MOST_ATTRIBUTES
            or not _PLAIN.issuperset(map(type, attributes.values()))
            or (self._has_places and any(map(place_of, attributes)))
        ):
            return None
        texts = [
            *(event_name, target.type, target.id, error, reason, code, tenant, system, source.user_agent),
            *_request(request),
            *_actor(actor),
        ]
        if slug or event_type or event_code:
            texts += (slug, event_type, event_code)
        if origin is not None:
            texts += msgspec.structs.astuple(origin)
        ids = _ids_of_request(request)
        names = [*attributes, target.type.rpartition(".")[2]]  # a secret's name would hide the target's id
        others = (log, action, request.method, slug, event_type, event_code, *ids, *_source(source), *names)
        if not _TEXTS.issuperset(map(type, (*texts, *others))):
            return None
        # Each work has another id, and no rule changes one.
        texts += [each for each in ids if each and not is_uuid(each)]
        if not self._are_clean(names, list(attributes.values()), texts, _NOTHING):
            return None
        timestamp = at.time
        id_ = record_id or new_record_id(timestamp)
        trace_id, span_id = trace_ids(at.span)
        payload = encode_record(
            _Work(
                id_,
                timestamp,
                observed if observed >= timestamp else timestamp,
                event_name,
                action,
                outcome,
                log,
                actor,
                target,
                source,
                request,
                origin,
                NO_DATABASE,
                reason,
                tenant,
                system,
                event_type,
                event_code,
                slug,
                error,
                code,
                {**attributes, **shown},
                trace_id,
                span_id,
            )
        )
        if len(payload) >= SMALL:
            return None
        return EncodedRecord(id_, timestamp, event_name, action, outcome, target, [], payload)
