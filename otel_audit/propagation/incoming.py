"""What comes in: a signed context is accepted or counted, and nothing of ours goes on to others.

The actor of a record is who this service authenticated, whatever a context says. An accepted one adds who
began the work (``origin``), on whose behalf the actor therefore acts, and the tenant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from otel_audit.audit_context import ContextFields
from otel_audit.audit_record import Actor, Origin
from otel_audit.config.context_keys import read_keys
from otel_audit.config.host_patterns import Hosts
from otel_audit.config.model import AuditConfig
from otel_audit.otel_api import say_once
from otel_audit.propagation import refused
from otel_audit.propagation.signed_context import NAME, Key, Reason, Refused, SignedContext, verify

MAX_HEADER: Final = 8192
"""Bytes of a ``baggage`` header that are looked at: as much as W3C Baggage has every platform accept."""

_ENTRY: Final = f"{NAME}="


class Accepted(msgspec.Struct, frozen=True):
    """What an accepted context adds to the records of a request.

    ``kind`` is what began the work: ``user``, ``service``, ``system``, or empty if it is not known.
    """

    origin: Origin | None = None
    kind: str = ""
    tenant: str = ""

    @classmethod
    def of(cls, context: SignedContext, *, takes_tenant: bool) -> Accepted:
        """Make what a context that was verified says."""
        origin = None
        if context.initiator or context.request:
            origin = Origin(context.initiator, "", context.request)
        return cls(origin, context.kind, context.tenant if takes_tenant else "")

    def actor(self, actor: Actor) -> Actor:
        """Return who this service authenticated as acting on behalf of the user who began the work."""
        user = self.origin.actor if self.origin is not None and self.kind == "user" else ""
        if not user or user == actor.id or actor.on_behalf_of:
            return actor
        return msgspec.structs.replace(actor, on_behalf_of=user)

    def over(self, fields: ContextFields) -> ContextFields:
        """Return what a record takes from its context, and what was accepted; what is there stays."""
        return msgspec.structs.replace(
            fields,
            actor=self.actor(fields.actor),
            origin=fields.origin or self.origin,
            tenant=fields.tenant or self.tenant,
        )


class Acceptance:
    """Accepts the contexts that a trusted peer has signed for this service.

    Make one per instrumentor (:meth:`of`) and ask it once per request.
    """

    def __init__(
        self,
        keys: dict[str, Key],
        audience: Hosts,
        *,
        takes_tenant: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._is_audience = audience.includes_address
        self._takes_tenant = takes_tenant
        self._now = now

    @classmethod
    def of(cls, config: AuditConfig) -> Acceptance | None:
        """Make what a configuration asks for; None if it names no audience or no usable key."""
        audience = Hosts(config.context.audience)
        keys = [Key(name, secret) for name, secret in read_keys(config.context).secrets.items()]
        if not audience or not keys:
            return None
        # Whose data it is, the application's own function says, if there is one.
        return cls({key.header: key for key in keys}, audience, takes_tenant=not config.tenant_from)

    def accepted(self, header: str) -> Accepted | None:
        """Return what the ``baggage`` header of a request says that can be believed; never raises.

        Several headers are joined by commas. None without a signed context, and for one that is refused:
        that is counted by reason, and the header has no other effect.
        """
        if len(header) <= MAX_HEADER and NAME not in header:
            return None
        try:
            return self.verified(header)
        except Refused as refusal:
            count(refusal.reason)
            return None

    def verified(self, header: str) -> Accepted:
        """Return what the ``baggage`` header of a request says.

        Raises:
            Refused: it cannot be believed, and why.
        """
        context = verify(entry(header), self._keys, self._is_audience, self._now())
        return Accepted.of(context, takes_tenant=self._takes_tenant)


def entry(header: str) -> str:
    """Return the value of our entry.

    Raises:
        Refused: there is none, or more than one; or the header is too long to look for it.
    """
    if len(header) > MAX_HEADER:
        raise Refused("oversized")
    values = [
        value for entry in header.split(",") for value in [entry.strip(" \t")] if value.startswith(_ENTRY)
    ]
    if len(values) != 1:
        raise Refused("ambiguous" if values else "malformed")
    return values[0].removeprefix(_ENTRY)


def count(reason: Reason) -> None:
    """Count a context that was refused, and say so the first time per reason."""
    refused(reason)
    say_once(f"A signed audit context was ignored: {WHY[reason]}. Records name who was authenticated here")


WHY: Final[dict[Reason, str]] = {
    "oversized": f"it is longer than 512 bytes, or its baggage header longer than {MAX_HEADER}",
    "ambiguous": "the baggage header has more than one",
    "malformed": "it is not one that otel-audit writes",
    "unknown_key": "its key is not in context.keys or context.keys_file",
    "forged": "its signature does not fit: it was altered, or the secrets of both services differ",
    "expired": "it has expired: it came too late, or the clocks of both services differ",
    "not_yet_valid": "it is from the future: the clocks of both services differ",
    "audience": "it was made for a host that context.audience does not name, or a queue that "
    "context.queues does not",
    "replayed": "it was made for another task, or was seen before",
}
