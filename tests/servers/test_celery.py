"""Celery's workers: children end by ``os._exit``, when the pool is stopped or after some tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, run
from tests.servers.site import Site, small_site

POOLS = {
    "prefork": ("--pool=prefork", "--concurrency=2"),
    "prefork, a child per task": ("--pool=prefork", "--concurrency=2", "--max-tasks-per-child=1"),
    "threads": ("--pool=threads", "--concurrency=2"),
    "solo": ("--pool=solo",),
    "gevent": ("--pool=gevent", "--concurrency=2"),
}
TASKS = 5


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all pools, one after the other."""
    with small_site(tmp_path_factory.mktemp("site")) as site:
        site.environment["SMALL_QUEUE"] = str(site.directory / "queue")
        yield site


@pytest.mark.parametrize(
    "pool",
    [pytest.param(pool, marks=pytest.mark.attack) if pool in ("threads", "solo") else pool for pool in POOLS],
)
def test_nothing_is_left_when_a_worker_is_ended(prepared: Site, pool: str) -> None:
    """Each child sends what it has; the parent what is left of children that ended before it."""
    site, before = prepared, len(prepared.rows)
    run(
        sys.executable,
        "-c",
        f"from tests.servers.small.tasks import make; [make.delay() for _ in range({TASKS})]",
        environment=site.environment,
        cwd=ROOT,
    )
    gevent = {"OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all"}
    process = site.start(
        "celery",
        "--app=tests.servers.small.tasks",
        "worker",
        "--without-gossip",
        "--without-mingle",
        *POOLS[pool],
        environment=gevent if pool == "gevent" else {},
    )
    process.wait_until(lambda: len(site.rows) == before + TASKS, "the tasks are done")
    assert site.stop() == 0, process.output()
    site.expect_nothing_left()
    actors = {(record.actor.type, record.actor.id) for record in site.creations}
    assert actors == {("system", "tests.servers.small.tasks.make")}


def test_soft_time_limits_reach_the_tasks(prepared: Site) -> None:
    """Each of them, and what each task committed until then is on record."""
    site = prepared
    queue = Path(site.environment["SMALL_QUEUE"])
    run(
        sys.executable,
        "-c",
        "from tests.servers.small.tasks import make_until_limited as make; "
        f"[make.delay() for _ in range({TASKS})]",
        environment=site.environment,
        cwd=ROOT,
    )
    process = site.start(
        "celery",
        "--app=tests.servers.small.tasks",
        "worker",
        "--without-gossip",
        "--without-mingle",
        *POOLS["prefork"],
    )
    process.wait_until(lambda: len(list(queue.glob("limited-*"))) == TASKS, "all were limited")
    assert site.stop() == 0, process.output()
    kept: dict[str, set[object]] = {"success": set(), "unknown": set(), "failure": set()}
    counted = 0
    for record in site.creations:
        kept[record.outcome].update(change.new for change in record.changes if change.field == "name")
        # Limited between the statement and its noting: the row is on record by its count.
        counted += record.outcome != "failure" and not record.changes
    rows = set(site.rows)
    assert len(rows - kept["success"] - kept["unknown"]) <= counted
    assert kept["success"] <= rows
