"""The pipeline's own metrics, read from its counters when collected: no cost where records are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from otel_audit.otel_api import say_once
from otel_audit.pipeline.health import Health
from otel_audit.propagation import refusals
from otel_audit.semconv import CAPTURE_PLACE, ERROR_TYPE
from otel_audit.version import __version__

_COUNTERS: tuple[tuple[str, str, str, Callable[[Health], int]], ...] = (
    ("audit.records.emitted", "{record}", "Records written to the spool.", lambda h: h.emitted),
    ("audit.records.delivered", "{record}", "Records the sink acknowledged.", lambda h: h.delivered),
    ("audit.records.dropped", "{record}", "Records that could not be kept.", lambda h: h.dropped),
    (
        "audit.records.quarantined",
        "{record}",
        "Records the sink permanently refuses.",
        lambda h: h.quarantined,
    ),
    ("audit.delivery.failures", "{request}", "Requests the sink did not acknowledge.", lambda h: h.failures),
    ("audit.spool.damaged", "{place}", "Positions of the spool that were unreadable.", lambda h: h.damaged),
    (
        "audit.spool.damaged_bytes",
        "By",
        "Bytes of the spool that were unreadable.",
        lambda h: h.damaged_bytes,
    ),
    (
        "audit.spool.adopted",
        "{stream}",
        "Streams of terminated processes that were adopted.",
        lambda h: h.adopted,
    ),
)


_FAILURES: Final = (
    "audit.capture.failures",
    "{failure}",
    "Failures of capture: a record is missing, or less complete than asked.",
)

_REFUSALS: Final = (
    "audit.context.refused",
    "{context}",
    "Signed contexts of other services that were ignored: forged, expired, for another service.",
)


def _age(health: Health) -> float:
    return max(0.0, (time.time_ns() - health.oldest) / 1e9) if health.oldest else 0.0


_GAUGES: tuple[tuple[str, str, str, Callable[[Health], float]], ...] = (
    ("audit.queue.depth", "{record}", "Records of this process waiting for the sink.", lambda h: h.depth),
    ("audit.spool.unreadable", "{stream}", "Streams that currently cannot be read.", lambda h: h.unreadable),
    ("audit.queue.oldest_age", "s", "Age of the oldest record waiting for the sink.", _age),
)


def register(current: Callable[[], Health | None], meter: Meter | None = None) -> None:
    """Make the instruments, once a process; ``current`` gives the counters of the pipeline running now."""
    try:
        meter = meter or get_meter("otel_audit", __version__)
        for name, unit, description, count in _COUNTERS:
            meter.create_observable_counter(name, [_observe(current, count)], unit, description)
        name, unit, description = _FAILURES
        meter.create_observable_counter(name, [_failures(current)], unit, description)
        name, unit, description = _REFUSALS
        meter.create_observable_counter(name, [_observe_refusals], unit, description)
        for name, unit, description, read in _GAUGES:
            meter.create_observable_gauge(name, [_observe(current, read)], unit, description)
    except Exception as error:  # noqa: BLE001 - a meter provider may be anybody's
        say_once("otel-audit's own metrics are missing: the meter provider does not accept them", error)


def _failures(current: Callable[[], Health | None]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        health = current()
        found = {} if health is None else health.capture_failures.copy()
        return [Observation(count, {CAPTURE_PLACE: place}) for place, count in found.items()]

    return observe


def _observe_refusals(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(number, {ERROR_TYPE: reason}) for reason, number in refusals.copy().items()]


def _observe(
    current: Callable[[], Health | None], read: Callable[[Health], float]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        health = current()
        return [] if health is None else [Observation(read(health))]

    return observe
