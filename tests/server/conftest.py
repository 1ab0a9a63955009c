"""One running server for the tests of its faces; a test that stops or breaks it starts its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.trail import Serving, serving


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that all tests of this folder share."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def otlp(server: Serving) -> Iterator[httpx.Client]:
    """An HTTP client of the shared server's OTLP port."""
    with httpx.Client(base_url=server.http, timeout=30) as client:
        yield client
