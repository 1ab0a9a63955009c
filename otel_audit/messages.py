"""The signed context in messages and gRPC calls that no instrumentor of ours sees: Kafka, gRPC, any queue.

::

    producer.send("orders", value, headers=[(n, v.encode()) for n, v in sign_context(queue="orders")])

    for message in consumer:
        with accept_context(message.headers):
            handle(message)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from otel_audit.config.host_patterns import Host, parsed
from otel_audit.config.model import AuditConfig
from otel_audit.interruptions import faults
from otel_audit.otel_api import say_once
from otel_audit.pipeline import provider
from otel_audit.propagation.messages import HEADER, MessageContexts, entered, value_in


class _Made:
    """What was made for the configuration that is in force."""

    config: AuditConfig | None = None
    contexts: MessageContexts | None = None


def sign_context(*, queue: str = "", host: str = "") -> tuple[tuple[str, str], ...]:
    """Return the headers that tell a consumer, or a gRPC service, who acts: one pair, or none. Never raises.

    There is one only inside a request, command, task or ``with otel_audit.context(...)``, for a queue that
    ``context.queues`` names or a host that ``context.propagate_to`` names.

    Args:
        queue: the queue or topic the message goes to.
        host: the host and port that is called, ``fulfilment:50051``.
    """
    contexts = _contexts()
    if contexts is None:
        return ()
    if queue:
        value = contexts.for_queue(queue)
    else:
        found = parsed(host)
        value = contexts.for_host(found.name, found.port) if isinstance(found, Host) else ""
    return ((HEADER, value),) if value else ()


def accept_context(
    headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None,
) -> AbstractContextManager[None]:
    """Do what is in the ``with`` block for whoever sent these headers, if a trusted service has signed it.

    Records made inside say who began the work (``origin``), on whose behalf the actor acts, and the tenant.
    The actor is who it was. A context that cannot be believed is ignored and counted.

    Args:
        headers: a mapping or pairs, of texts or bytes: gRPC's ``invocation_metadata()``, Kafka's headers.
    """
    contexts = _contexts()
    try:
        accepted = None if contexts is None else contexts.accepted(value_in(headers))
    except faults() as error:  # headers may be anybody's
        say_once("The headers of a message cannot be read; who sent it is not recorded", error)
        accepted = None
    return entered(accepted)


def _contexts() -> MessageContexts | None:
    pipeline = provider.configured()
    config = None if pipeline is None else pipeline.config
    if config is not _Made.config:
        _Made.contexts = None if config is None else MessageContexts.of(config)
        _Made.config = config
    return _Made.contexts
