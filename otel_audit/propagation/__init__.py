"""Who acts, across processes: on spans, in baggage, and in the signed context of calls between services.

What only some processes need is loaded when a configuration asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context, attach, detach, get_current

from otel_audit import forks
from otel_audit.interruptions import faults
from otel_audit.otel_api import say_once
from otel_audit.propagation.identity import (
    ActorSpanProcessor,
    AuditPropagator,
    annotate,
    install,
    known,
    uninstall,
    without_ours,
)

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.propagation.incoming import Acceptance

__all__ = [
    "ActorSpanProcessor",
    "AuditPropagator",
    "acceptance",
    "annotate",
    "enter",
    "install",
    "known",
    "leave",
    "refusals",
    "refused",
    "tell_of_refusals",
    "uninstall",
]

refusals: Final[dict[str, int]] = {}
"""Signed contexts that were refused in this process, by the reason."""
forks.after_in_child(refusals.clear)
_tell: Callable[[str], None] | None = None


def tell_of_refusals(function: Callable[[str], None] | None) -> None:
    """Call ``function`` with the reason of each context that is refused, or nobody any longer."""
    global _tell  # noqa: PLW0603 - as the pipeline, one a process
    _tell = function


def refused(reason: str) -> None:
    """Count a context that was refused, and have the trail say so."""
    refusals[reason] = refusals.get(reason, 0) + 1
    if _tell is not None:
        _tell(reason)


def acceptance(config: AuditConfig) -> Acceptance | None:
    """Return what accepts signed contexts at the entry of requests; None if the configuration wants none."""
    if not config.context.audience:
        return None
    from otel_audit.propagation.incoming import Acceptance

    return Acceptance.of(config)


def enter(header: str, *, visible: bool) -> Token[Context] | None:
    """Make OpenTelemetry's context fit for a request: nothing of a peer's goes on, and our ids are visible.

    A propagator of the application's extracts a signed context like any baggage, and would send it on.

    Args:
        header: ``baggage`` of the request, empty if it has none.
        visible: whether its actor and id are to be in the baggage of this process (``context.baggage``).

    Returns:
        What :func:`leave` takes when the request is over; None if there is nothing to be done.
    """
    if not header and not visible:
        return None
    try:
        before = context = get_current()
        if header:
            context = without_ours(context)
        if visible:
            from otel_audit.propagation.process_baggage import with_process_baggage

            context = with_process_baggage(context)
        return None if context is before else attach(context)
    except faults() as error:  # a context may be anybody's
        say_once(
            "The baggage of requests is left as it is: OpenTelemetry's context does not accept it", error
        )
        return None


def leave(token: Token[Context] | None) -> None:
    """Restore what was current before :func:`enter`."""
    if token is not None:
        detach(token)
