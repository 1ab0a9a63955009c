"""Who acts, across processes: on spans, in baggage, and in the signed context of calls between services.

What only some processes need is loaded when a configuration asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_audit import forks
from otel_audit.propagation.identity import (
    ActorSpanProcessor,
    AuditPropagator,
    annotate,
    install,
    known,
    uninstall,
)

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.propagation.incoming import Acceptance

__all__ = [
    "ActorSpanProcessor",
    "AuditPropagator",
    "acceptance",
    "annotate",
    "install",
    "known",
    "refusals",
    "uninstall",
]

refusals: Final[dict[str, int]] = {}
"""Signed contexts that were refused in this process, by the reason."""
forks.after_in_child(refusals.clear)


def acceptance(config: AuditConfig) -> Acceptance | None:
    """Return what accepts signed contexts at the entry of requests; None if the configuration wants none."""
    if not config.context.audience:
        return None
    from otel_audit.propagation.incoming import Acceptance

    return Acceptance.of(config)
