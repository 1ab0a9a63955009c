"""Real servers of several processes: they count together in Redis, and say so where each counts by itself."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import eventually
from tests.servers.site import Site, small_site
from tests.services import RedisServer

# A window that ends in 2033: no test comes to its turn.
RULES = json.dumps({"all": {"number": 20, "timeframe": 2_000_000_000}})
SWITCHED_ON = {
    "OTEL_AUDIT_THROTTLING_ENABLED": "true",
    "OTEL_AUDIT_THROTTLING_DEFAULTS": "false",
    "OTEL_AUDIT_THROTTLING_RULES": RULES,
    "OTEL_AUDIT_THROTTLING_TIMEOUT": "60",
}
WSGI = "tests.servers.small.wsgi:application"
ASGI = "tests.servers.small.asgi:application"
SERVERS = {
    "gunicorn": ("gunicorn", "--bind=127.0.0.1:{port}", "--workers=2", "--threads=4", WSGI),
    "uvicorn": ("uvicorn", ASGI, "--port={port}", "--workers=2"),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with small_site(tmp_path) as site:
        yield site


@pytest.mark.parametrize("name", SERVERS)
def test_of_fifty_requests_to_several_workers_exactly_as_many_pass_as_may(
    site: Site, redis: RedisServer, name: str
) -> None:
    environment = SWITCHED_ON | {"OTEL_AUDIT_THROTTLING_STORAGE": f"unix://{redis.socket}"}
    site.serve(*SERVERS[name], environment=environment)
    with redis.client() as client:
        client.flushall()  # the server was asked until it answered
    site.sink.records.clear()
    before = len(site.rows)
    begin = threading.Barrier(50)
    seen: Counter[int] = Counter()

    def ask() -> None:
        begin.wait()
        seen[httpx.get(site.url, timeout=60).status_code] += 1

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == Counter({200: 20, 429: 30})
    assert len(site.rows) == before + 20

    def refusals() -> list[str]:
        return [each.source.id for each in site.sink.records if each.event_name == "http.request.throttled"]

    eventually(lambda: len(refusals()) == 30, "each refusal is a record")
    assert set(refusals()) == {"127.0.0.1"}
    site.stop()


def test_workers_that_count_by_themselves_say_so(site: Site) -> None:
    site.serve(*SERVERS["gunicorn"], environment=SWITCHED_ON)
    site.get(times=3)
    site.stop()
    assert "each process counts requests by itself, and there are several" in site.log.read_text()
