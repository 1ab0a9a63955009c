"""Whether anything of ours is active in this process: without it, a test records nothing."""

from __future__ import annotations

from typing import Any, Final

NOT_INSTRUMENTED: Final = (
    "nothing is instrumented, so changes, logins and requests are not recorded: run the tests under "
    "opentelemetry-instrument, call otel_audit.setup() before them, or use pytest's fixture `audited`"
)


def is_instrumented() -> bool:
    """Say whether any of our instrumentors is active in this process."""
    return any(instrumentor.is_instrumented_by_opentelemetry for instrumentor in instrumentors())


def instrumentors() -> list[Any]:
    """Return the instrumentors of ours that were made in this process, active or not."""
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

    found, kinds = [], [BaseInstrumentor]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        made = vars(kind).get("_instance")
        if made is not None and kind.__module__.startswith("otel_audit."):
            found.append(made)
    return found
