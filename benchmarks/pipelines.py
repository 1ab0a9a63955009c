"""Configurations to measure with: a spool in a temporary directory, a sink that accepts everything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec

from benchmarks.sink import sink
from otel_audit.config.model import AuditConfig, DjangoConfig, SinkConfig, SpoolConfig

if TYPE_CHECKING:
    from otel_audit.pipeline.provider import AuditPipeline


@contextmanager
def directory() -> Iterator[Path]:
    """Return a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="otel-audit-bench-") as path:
        yield Path(path)


@contextmanager
def configuration(models: list[str] | None = None, endpoint: str | None = None) -> Iterator[AuditConfig]:
    """Return a configuration that records ``models`` and sends to ``endpoint``, by default a sink it runs."""
    with directory() as path, sink() as address:
        yield AuditConfig(
            django=DjangoConfig(models=models or []),
            spool=SpoolConfig(directory=str(path / "spool")),
            sink=SinkConfig(
                endpoint=endpoint or f"{address}/v1/audit", token=os.environ.get("OTEL_AUDIT_SINK_TOKEN", "")
            ),
        )


@contextmanager
def without_sender(*, instrument: bool = True, **sections: Any) -> Iterator[AuditPipeline]:
    """Start otel-audit with these sections of the configuration; no thread sends: it would be counted."""
    import otel_audit
    from otel_audit.pipeline import provider

    with (
        configuration() as config,
        mock.patch.object(provider, "start", partial(provider.start, ship=False)),
    ):
        pipeline = otel_audit.setup(msgspec.structs.replace(config, **sections), instrument=instrument)
        assert pipeline is not None
        try:
            yield pipeline
        finally:
            otel_audit.shutdown()
