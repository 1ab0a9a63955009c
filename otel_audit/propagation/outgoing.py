"""What leaves: the signed context, to the hosts that the configuration names; nothing of ours to any other.

``inject()`` of OpenTelemetry does not know the host of a call, so the hooks of the HTTP clients ask here,
where a request is written to its connection: below redirects, retries, and all that others add.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_audit.audit_context import ContextFields, current_context, moment
from otel_audit.audit_record import ANONYMOUS, UNKNOWN
from otel_audit.config.context_keys import read_keys
from otel_audit.config.host_patterns import Hosts, address_of
from otel_audit.config.model import AuditConfig
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.otel_api import say_once
from otel_audit.propagation.identity import is_ours, text
from otel_audit.propagation.incoming import MAX_HEADER
from otel_audit.propagation.signed_context import LIFETIME, NAME, Key, SignedContext, sign

HEADER: Final = "baggage"

_NOBODY: Final = frozenset({"", ANONYMOUS, UNKNOWN})
_KINDS: Final = frozenset({"user", "service", "system"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Destination(NamedTuple):
    """Where a request goes: scheme, host and port of its URL, and the proxy that is sent it, if any."""

    scheme: str
    host: str
    port: int
    proxy: tuple[str, int] | None = None

    @classmethod
    def of(
        cls, scheme: str, host: str, port: int | None, proxy: tuple[str, int] | None = None
    ) -> Destination:
        """Fill in the port of the scheme where a URL has none."""
        return cls(scheme, host, port or _DEFAULT_PORTS.get(scheme, 0), proxy)

    @property
    def readers(self) -> list[tuple[str, int]]:
        """Whoever reads the headers: with a proxy, it as well, unless they go through it encrypted."""
        own = [(self.host, self.port)]
        return own if self.proxy is None or self.scheme in ("https", "wss") else [*own, self.proxy]


class Outgoing:
    """Says what the ``baggage`` header of a call is to be.

    Make one per process (:meth:`of`); :meth:`header` is called for each request of an HTTP client.
    """

    def __init__(
        self, hosts: Hosts, key: Key | None, *, tenant: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self._hosts = hosts
        self._key = key
        self._tenant = tenant
        self._now = now

    @classmethod
    def of(cls, config: AuditConfig) -> Outgoing | None:
        """Make what a configuration asks for; None if nothing of ours is to be sent or kept from leaving."""
        hosts = Hosts(config.context.propagate_to)
        if not hosts and config.context.baggage == "off":
            return None
        keys = read_keys(config.context) if hosts else None
        key = Key(keys.signing, keys.secrets[keys.signing]) if keys is not None and keys.signing else None
        return cls(hosts, key, tenant=config.tenant)

    def header(self, destination: Destination, before: str = "") -> str | None:
        """Return the header for a request whose application gave it ``before``; None to leave that as it is.

        Entries of others stay, in their order. Empty: no header. Never raises.
        """
        try:
            wanted = self._key is not None and all(
                self._hosts.includes(*each) for each in destination.readers
            )
            if not before and not wanted:
                return None
            others = [entry for entry in before.split(",") if not is_ours(_name(entry))] if before else []
            ours = self._entry(destination) if wanted else ""
            if ours and sum(map(len, others)) + len(others) + len(ours) > MAX_HEADER:
                say_once(
                    "A call carries no signed audit context: with the baggage of the application, its header "
                    f"would be longer than {MAX_HEADER} bytes"
                )
                ours = ""
            header = ",".join([*others, ours] if ours else others)
            return None if header == before else header
        except faults() as error:  # the call goes on
            say_once("A call carries no signed audit context", error)
            return None

    def _entry(self, destination: Destination) -> str:
        """Sign who acts now; empty outside any work, and for calls that are not to be instrumented."""
        if current_context() is None or self._key is None:
            return ""
        # Not is_http_instrumentation_enabled(): OpenTelemetry's instrumentations of requests and urllib3
        # switch that off within a call they have a span for.
        if not is_instrumentation_enabled():
            return ""
        context = who_acts(
            address_of(destination.host, destination.port), int(self._now()) + LIFETIME, self._tenant
        )
        value = sign(context, self._key)
        if not value:
            say_once(
                "A call carries no signed audit context: with these ids (actor, tenant, request) and this "
                "host it would be longer than 512 bytes"
            )
            return ""
        return f"{NAME}={value}"


def who_acts(audience: str, expiry: int, tenant: str, *, task: str = "", retry: int = 0) -> SignedContext:
    """Return what is signed for ``audience``: who began the current work, where, for whom.

    Args:
        audience: ``host:port`` or ``queue/name``.
        expiry: seconds since the epoch.
        tenant: where the work says none.
        task: id of the task that carries it.
        retry: how often that was tried before.
    """
    now = moment()
    fields = now.fields()
    kind, initiator, request = initiator_of(fields)
    return SignedContext(
        audience=audience,
        expiry=expiry,
        initiator=text(initiator),
        kind=kind,
        tenant=text(fields.tenant or now.tenant or tenant),
        request=text(request),
        task=task,
        retry=retry,
    )


def initiator_of(fields: ContextFields) -> tuple[str, str, str]:
    """Return what began the current work: its kind, its id, and the id of its request; empty if not known.

    What another service began is passed on as it came.
    """
    actor, origin = fields.actor, fields.origin
    if origin is not None:
        user = actor.on_behalf_of or (actor.id if actor.type == "user" else "")
        return "user" if user and user == origin.actor else "", origin.actor, origin.request
    if actor.id in _NOBODY or actor.type not in _KINDS:
        return "", "", fields.request.id
    return actor.type, actor.id, fields.request.id


def _name(entry: str) -> str:
    return unquote(entry.partition("=")[0])
