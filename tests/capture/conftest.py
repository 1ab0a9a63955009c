"""The pipeline's fixtures, for what captures into it."""

from __future__ import annotations

from tests.pipeline.conftest import pipeline, pipelines, spool_directory

__all__ = ["pipeline", "pipelines", "spool_directory"]
