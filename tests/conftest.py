"""What every test may ask for: private database servers, started once a process and only when asked for.

And in which order tests run.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import services

if TYPE_CHECKING:
    from otel_audit.store.client import StoreClient
    from tests.trail import Serving

# Where tests run in the background, SIGINT is ignored, and every process they start would inherit that: none
# could be ended by Ctrl-C as a user would.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The machine is shared: how long an example takes says nothing.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_COLLECTOR = Path(__file__).parent / "collector"
_BUILD_SECONDS = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the Collector's tests last: they wait for its binary, which scripts/test may still be building.

    The longest of them, which compiles, comes first of these: nothing waits for it in the end.
    """
    for item in items:
        if _COLLECTOR in item.path.parents:
            item.add_marker(pytest.mark.timeout(_BUILD_SECONDS))
    items.sort(key=lambda item: (_COLLECTOR in item.path.parents, item.path.name != "test_router.py"))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[services.PostgreSQLServer]:
    """A private PostgreSQL server; a test that wants a database takes ``postgresql``."""
    with services.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[services.MariaDBServer]:
    """A private MariaDB server; a test that wants a database takes ``mariadb``."""
    with services.mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[services.RedisServer]:
    """A private Redis; a test that wants it empty takes ``redis``."""
    with services.redis() as server:
        yield server


@pytest.fixture
def redis(redis_server: services.RedisServer) -> services.RedisServer:
    """A private Redis, empty."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server


@pytest.fixture
def postgresql(postgresql_server: services.PostgreSQLServer) -> Iterator[dict[str, object]]:
    """The ``DATABASES`` entry of a new, empty PostgreSQL database."""
    with postgresql_server.database() as name:
        yield postgresql_server.django(name)


@pytest.fixture
def mariadb(mariadb_server: services.MariaDBServer) -> Iterator[dict[str, object]]:
    """The ``DATABASES`` entry of a new, empty MariaDB database."""
    with mariadb_server.database() as name:
        yield mariadb_server.django(name)


@pytest.fixture
def store(server: Serving) -> Iterator[StoreClient]:
    """A client of the query port of the test's own fixture ``server``."""
    from otel_audit.store.client import StoreClient

    with closing(StoreClient(server.clickhouse)) as client:
        yield client
