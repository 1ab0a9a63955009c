"""A store of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_audit.store.client import StoreClient
from tests.trail import serving


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreClient]:
    """Ask an empty store that the tests of one module share."""
    with serving(tmp_path_factory.mktemp("store")) as server:
        client = StoreClient(server.clickhouse)
        yield client
        client.close()
