"""Pipelines and sinks that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_audit.config.model import AuditConfig
from otel_audit.pipeline.provider import AuditPipeline
from tests.pipeline.otlp_sink import Sink
from tests.pipeline.spooling import audit_config


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A sink that accepts everything until told otherwise."""
    with Sink() as sink:
        yield sink


@pytest.fixture
def spool_directory(tmp_path: Path) -> Path:
    """A spool directory that does not exist yet."""
    return tmp_path / "spool"


@pytest.fixture
def pipelines() -> Iterator[Callable[..., AuditPipeline]]:
    """Make pipelines that are shut down, without waiting for a sink, when the test ends."""
    made: list[AuditPipeline] = []

    def make(config: AuditConfig, *, ship: bool = False) -> AuditPipeline:
        pipeline = AuditPipeline(config, ship=ship)
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.shutdown(0)


@pytest.fixture
def pipeline(spool_directory: Path, pipelines: Callable[..., AuditPipeline]) -> AuditPipeline:
    """A pipeline that keeps and ships nothing."""
    return pipelines(audit_config(spool_directory))
