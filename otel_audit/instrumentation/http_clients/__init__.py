"""HTTP clients: what their calls tell other services and what they keep from them, and the records of calls.

One instrumentor for all, so that a process that calls nobody loads nothing. Each client has a file of its own
with one table; none is imported before the application imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.http_clients.wrapping import Propagation
from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline


class HttpClientsAuditInstrumentor(AuditInstrumentor):
    """Wrap HTTP clients: the standard library's (and so requests and urllib3), httpx's and aiohttp's."""

    library = "HTTP clients"
    section = "context"

    def is_wanted(self, config: AuditConfig) -> bool:
        context = config.context
        return config.outgoing.enabled or bool(context.propagate_to) or context.baggage != "off"

    def preflight(self, config: AuditConfig) -> Iterable[str]:
        context = config.context
        if not (context.propagate_to or context.audience):
            return
        from otel_audit.config.context_keys import read_keys

        keys = read_keys(context)
        yield from keys.problems
        if context.propagate_to and not keys.signing:
            yield "No outgoing call says who acts: context.propagate_to names hosts, and no key signs"
        if context.audience and not keys.secrets:
            yield "No signed context is accepted: context.audience is set, and there is no key to verify one"

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        parts: list[Part] = []
        if config.context.propagate_to or config.context.baggage != "off":
            from otel_audit.propagation.outgoing import Outgoing

            outgoing = Outgoing.of(config)
            if outgoing is not None:
                parts.append(Propagation(outgoing))
        if config.outgoing.enabled:
            from otel_audit.http.outgoing.calls import Calls

            parts.append(Calls(config))
        return parts

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch]:
        from otel_audit.instrumentation.http_clients import aiohttp, httpcore, standard_library

        for part in parts:
            if isinstance(part, Propagation):
                yield from standard_library.table(part)
                yield from httpcore.table(part)
                yield from aiohttp.table(part)
            else:
                from otel_audit.instrumentation.http_clients.calls import table

                yield from table(part)  # type: ignore[arg-type]
