"""OTLP request bodies to load a store with: like the sender's, each record with an id of its own."""

from __future__ import annotations

import gzip
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Change,
    Database,
    Request,
    Source,
    Target,
    new_record_id,
)
from otel_audit.semconv import to_attributes

_PREFIX = len("019ab1c2-7d3e-7c10-9a52-")
_TICK = 16
"""The lowest bits of a time in which the records of one request may differ: some 65 µs."""


class Template:
    """An encoded request; each call gives it with ids nobody had before, and the time of now.

    Only the first halves of the ids and the upper bytes of the times are exchanged: 0.5 ms for 500 records,
    so that what is measured is not the load. The times matter: records come in the order of time, and a
    store whose rows all had the times of the first request would have to interleave them at each merge.
    """

    def __init__(self) -> None:
        self._id = new_record_id()[:_PREFIX].encode()
        self.now = _ticked()
        self.encoded = b""

    def id(self, number: int) -> str:
        """Return the id of one of its records."""
        return f"{self._id.decode()}{number:012x}"

    def __call__(self) -> bytes:
        now = _ticked()
        body = self.encoded.replace(self._id, new_record_id()[:_PREFIX].encode())
        return body.replace(_upper(self.now), _upper(now))


def _ticked() -> int:
    return time.time_ns() >> _TICK << _TICK


def _upper(nanoseconds: int) -> bytes:
    return nanoseconds.to_bytes(8, "little")[_TICK // 8 :]


class Bodies:
    """Makes bodies of ``size`` records from one template."""

    def __init__(self, size: int) -> None:
        self._template = Template()
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        resource.resource.attributes.append(_pair("service.name", "bench"))
        scope = resource.scope_logs.add()
        for number in range(size):
            record = sample(self._template.id(number), self._template.now + number, number)
            log = scope.log_records.add(
                time_unix_nano=record.timestamp,
                observed_time_unix_nano=record.observed_timestamp,
                event_name=record.event_name,
            )
            log.attributes.extend(_pair(name, value) for name, value in to_attributes(record).items())
        self._template.encoded = request.SerializeToString()

    def __call__(self, *, compress: bool) -> bytes:
        """Make the next body."""
        body = self._template()
        return gzip.compress(body, 1) if compress else body


def sample(record_id: str, now: int, number: int) -> AuditRecord:
    """Make a record as an order that is paid leaves it."""
    return AuditRecord(
        id=record_id,
        timestamp=now,
        observed_timestamp=now,
        event_name="shop.order.update",
        action="UPDATE",
        actor=Actor(id=str(number % 50), type="user"),
        target=Target("shop.Order", str(number)),
        source=Source(id="203.0.113.7", type="ipv4", user_agent="Mozilla/5.0 (X11; Linux) Firefox/145.0"),
        request=Request(id=f"{number:032x}", method="POST", route="orders/<int:pk>/", view="shop.views.pay"),
        database=Database(system="postgresql", namespace="shop", table="shop_order"),
        changes=[
            Change("state", "open", "paid"),
            Change("total", f"{number}.50", f"{number}.75", "decimal"),
            Change("updated", "2026-11-23T12:00:00+00:00", "2026-11-23T12:00:01+00:00", "datetime"),
        ],
        old_values="as_loaded",
        trace_id=f"{number + 1:032x}",
        span_id=f"{number + 1:016x}",
    )


def _pair(name: str, value: object) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=name, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=name, value=AnyValue(int_value=value))
    return KeyValue(key=name, value=AnyValue(string_value=str(value)))
