"""Messages and gRPC calls: the signed context in a header of its own, for queues and hosts that are named.

A message may wait for hours: its context is valid as long as ``context.queue_lifetime`` says, counted from
when the message may be worked on. What is signed for a task names that task and how often it was tried
before, so a header that is copied to another task is refused, and a redelivery of the same is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from otel_audit.audit_context import current_context, enter_context, laid_over, leave_scope, process_scope
from otel_audit.config.context_keys import read_keys
from otel_audit.config.host_patterns import Hosts, address_of
from otel_audit.config.model import AuditConfig
from otel_audit.interruptions import faults
from otel_audit.otel_api import say_once
from otel_audit.propagation.incoming import Accepted, count
from otel_audit.propagation.outgoing import who_acts
from otel_audit.propagation.signed_context import (
    LIFETIME,
    MAX_BYTES,
    MAX_LIFETIME,
    Key,
    Refused,
    sign,
    verify,
)

HEADER: Final = "otel-audit-context"
"""Name of the header: valid in gRPC's metadata (lower case) as in any message."""

QUEUE: Final = "queue/"
"""Begins the audience of what is signed for a queue."""


class MessageContexts:
    """Signs what leaves in a message, and accepts what comes in one.

    Make one per process (:meth:`of`).

    Args:
        keys: all that are accepted, by header.
        signing: the one that signs.
        hosts, audience: as for calls, :mod:`otel_audit.propagation.outgoing` and ``incoming``.
        queues: patterns of the queues and topics.
        lifetime: seconds for which what is signed for a queue is valid.
    """

    def __init__(
        self,
        keys: Mapping[str, Key],
        signing: Key | None,
        *,
        hosts: Hosts,
        audience: Hosts,
        queues: Iterable[str],
        lifetime: float,
        tenant: str = "",
        takes_tenant: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._signing = signing
        self._hosts = hosts
        self._is_host = audience.includes_address
        self._queues = tuple(queues)
        self._is_named = lru_cache(maxsize=1024)(self._named)
        self._lifetime = lifetime
        self._tenant = tenant
        self._takes_tenant = takes_tenant
        self._now = now

    @classmethod
    def of(cls, config: AuditConfig) -> MessageContexts | None:
        """Make what a configuration asks for; None if it names no queue and no host, or has no key."""
        context = config.context
        hosts, audience = Hosts(context.propagate_to), Hosts(context.audience)
        if not (context.queues or hosts or audience):
            return None
        keys = read_keys(context)
        if not keys.secrets:
            return None
        made = {name: Key(name, secret) for name, secret in keys.secrets.items()}
        return cls(
            {key.header: key for key in made.values()},
            made.get(keys.signing),
            hosts=hosts,
            audience=audience,
            queues=context.queues,
            lifetime=context.queue_lifetime,
            tenant=config.tenant,
            takes_tenant=not config.tenant_from,
        )

    def for_queue(self, queue: str, *, task: str = "", retry: int = 0, starts: float | None = None) -> str:
        """Return the header's value for a message to ``queue``; empty if it is to carry none. Never raises.

        Args:
            queue: the name of a queue, topic or routing key.
            task: id of the task.
            retry: how often it was tried before.
            starts: when it may be worked on, in seconds since the epoch; default now.
        """
        if self._signing is None or not self._is_named(queue):
            return ""
        now = self._now()
        expiry = int(max(now, now if starts is None else starts) + self._lifetime)
        return self._signed(f"{QUEUE}{queue}", expiry, task, retry)

    def for_host(self, host: str, port: int) -> str:
        """Return the header's value for a call to a host; empty if it is to carry none. Never raises."""
        if self._signing is None or not self._hosts.includes(host, port):
            return ""
        return self._signed(address_of(host, port), int(self._now()) + LIFETIME, "", 0)

    def _signed(self, audience: str, expiry: int, task: str, retry: int) -> str:
        if current_context() is None or self._signing is None:
            return ""
        try:
            value = sign(who_acts(audience, expiry, self._tenant, task=task, retry=retry), self._signing)
        except faults() as error:  # the message goes on
            say_once("A message carries no signed audit context", error)
            return ""
        if not value:
            say_once(
                "A message carries no signed audit context: with these ids (actor, tenant, request, task) "
                f"and this queue it would be longer than {MAX_BYTES} bytes"
            )
        return value

    def accepted(self, value: str, *, task: str = "", retry: int = 0) -> Accepted | None:
        """Return what the header of a message says that can be believed; never raises.

        None without a header, and for one that is refused: that is counted by reason.

        Args:
            value: of the header, empty if there is none.
            task: id of the task that carries it.
            retry: how often that was tried before.
        """
        if not value:
            return None
        try:
            return self.verified(value, task=task, retry=retry)
        except Refused as refusal:
            count(refusal.reason)
            return None

    def verified(self, value: str, *, task: str = "", retry: int = 0) -> Accepted:
        """Return what the header of a message says.

        Raises:
            Refused: it cannot be believed, and why.
        """
        longest = max(MAX_LIFETIME, self._lifetime)
        context = verify(value, self._keys, self._is_audience, self._now(), longest)
        if (context.task, context.retry) != (task, retry):
            raise Refused("replayed")
        return Accepted.of(context, takes_tenant=self._takes_tenant)

    def _is_audience(self, audience: str) -> bool:
        if audience.startswith(QUEUE):
            return self._is_named(audience.removeprefix(QUEUE))
        return self._is_host(audience)

    def _named(self, queue: str) -> bool:
        return bool(queue) and any(fnmatchcase(queue, pattern) for pattern in self._queues)


def value_in(headers: object) -> str:
    """Return the value of our header: of a mapping, or of pairs as gRPC and Kafka have them.

    Names and values may be bytes. Two of them are none that could be believed.
    """
    pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
    found = [_text(value) for name, value in pairs or () if _text(name).lower() == HEADER]
    if len(found) > 1:
        count("ambiguous")
    return found[0] if len(found) == 1 else ""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace") if len(value) <= MAX_BYTES else "?" * (MAX_BYTES + 1)
    return value if isinstance(value, str) else ""


@contextmanager
def entered(accepted: Accepted | None) -> Iterator[None]:
    """Lay what was accepted over the current work, for a ``with`` block."""
    if accepted is None:
        yield
        return
    outer = current_context()
    before = process_scope.fields() if outer is None else outer.fields()
    over = accepted.over(before)
    laid = {
        name: getattr(over, name)
        for name in ("actor", "origin", "tenant")
        if getattr(over, name) != getattr(before, name)
    }
    inside = laid_over(outer, laid)
    token = enter_context(inside)
    try:
        yield
    finally:
        leave_scope(token)
        inside.ended = True
