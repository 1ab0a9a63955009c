"""The Collector between the shop and the store: where it listens, how it is started, what it counts."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import NamedTuple

import httpx

from tour.processes import SHOP, free_port

CONFIG = SHOP.parent.parent / "collector" / "config.yaml"


class Counts(NamedTuple):
    """Audit records the Collector has seen, by what became of them."""

    accepted: int
    refused: int
    sent: int
    failed: int
    waiting: int

    def problems(self) -> list[str]:
        """Say in which way the counts tell of a record that did not reach the store; empty if in none."""
        if self.accepted and self.sent >= self.accepted and not (self.refused or self.failed or self.waiting):
            return []
        return [f"records on their way through the Collector: {self}"]


class Relay:
    """One Collector, with the repository's own configuration, on ports and directories of the demo."""

    def __init__(self, binary: str, state: Path) -> None:
        taken: set[int] = set()
        self.audit = free_port(4328, taken)
        self.http = free_port(0, taken)
        self.grpc = free_port(0, taken)
        self.health = free_port(13133, taken)
        self.metrics = free_port(8888, taken)
        self.arguments = [str(Path(binary).absolute()), f"--config={CONFIG}"]
        self.metrics_address = f"http://127.0.0.1:{self.metrics}/metrics"
        self._queue = state / "queue"
        self._token = secrets.token_hex(16)

    def environment(self, store: str) -> dict[str, str]:
        """Return what sends the shop's records and spans here, and from here to the store."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.http}",
            "OTEL_AUDIT_SINK_ENDPOINT": f"http://127.0.0.1:{self.audit}/v1/audit",
            "OTEL_AUDIT_SINK_TOKEN": self._token,
            "OTELCOL_AUDIT_TOKEN": self._token,
            "OTELCOL_AUDIT_PORT": str(self.audit),
            "OTELCOL_HTTP_PORT": str(self.http),
            "OTELCOL_GRPC_PORT": str(self.grpc),
            "OTELCOL_HEALTH_PORT": str(self.health),
            "OTELCOL_METRICS_PORT": str(self.metrics),
            "OTELCOL_QUEUE_DIR": str(self._queue),
            "OTELCOL_STORE_URL": store,
        }

    def healthy(self) -> bool:
        """Say whether it takes records."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.health}", timeout=1).is_success
        except httpx.TransportError:
            return False

    def counts(self) -> Counts:
        """Ask its metrics."""
        text = httpx.get(self.metrics_address, timeout=5).text
        return Counts(
            accepted=_sum(text, "otelcol_receiver_accepted_log_records", 'receiver="otlp/audit"'),
            refused=_sum(text, "otelcol_receiver_refused_log_records", 'receiver="otlp/audit"'),
            sent=_sum(text, "otelcol_exporter_sent_log_records", 'exporter="clickhouse/'),
            failed=_sum(text, "otelcol_exporter_send_failed_log_records", 'exporter="clickhouse/'),
            waiting=_sum(text, "otelcol_exporter_queue_size", 'exporter="clickhouse/audit"'),
        )


def _sum(text: str, name: str, label: str) -> int:
    """Add up a metric in Prometheus' text format, over the lines that have a label."""
    lines = re.findall(rf"^{name}\S*\{{([^}}]*)\}} (\S+)$", text, re.MULTILINE)
    return int(sum(float(value) for labels, value in lines if label in labels))
