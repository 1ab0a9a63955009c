"""uWSGI forks in C: workers, mules and the spooler. Each must record from its first write on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import eventually
from tests.pipeline.otlp_sink import Reply
from tests.servers.site import Site, small_site

UWSGI = (
    "uwsgi",
    "--http-socket=127.0.0.1:{port}",
    "--module=tests.servers.small.wsgi",
    "--need-app",
    "--die-on-term",
    "--disable-logging",
    "--stats=stats.socket",
)
MODES = {
    "pre-fork": ("--master", "--processes=3"),
    "lazy-apps": ("--master", "--processes=3", "--lazy-apps"),
    "enable-threads": ("--master", "--processes=3", "--enable-threads"),
    "threads": ("--master", "--processes=2", "--threads=4"),
    "uwsgi-hooks": ("--master", "--processes=2", "--enable-threads", "--py-call-uwsgi-fork-hooks"),
    "no master": ("--processes=2", "--enable-threads"),
}


def wait_until_idle(site: Site) -> None:
    """Wait until no worker is busy: the answer is sent before its worker has done with the request."""

    def all_idle() -> bool:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(site.directory / "stats.socket"))
            told = json.loads(b"".join(iter(lambda: stats.recv(65536), b"")))
        return {worker["status"] for worker in told["workers"]} == {"idle"}

    eventually(all_idle, "all workers are idle")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with small_site(tmp_path) as site:
        yield site


@pytest.mark.parametrize(
    "mode",
    [
        "pre-fork",
        "lazy-apps",
        "enable-threads",
        pytest.param("threads", marks=pytest.mark.attack),
        pytest.param("uwsgi-hooks", marks=pytest.mark.attack),
        pytest.param("no master", marks=pytest.mark.attack),
    ],
)
def test_every_write_of_every_worker_is_on_record(site: Site, mode: str) -> None:
    """The first of each worker, and what the master wrote while it loaded the application."""
    site.serve(*UWSGI, *MODES[mode], environment={"SMALL_AT_IMPORT": "1"})
    site.get(times=12)
    wait_until_idle(site)
    site.stop()
    site.expect_all_recorded(at_least=14)
    site.expect_nothing_left()
    assert len({name.split("-")[0] for name in site.rows}) > 1, "one worker answered everything"


def test_records_arrive_while_uwsgi_serves(site: Site) -> None:
    """Those of the master as well, which has no thread to send them: its workers do. None of them imports."""
    site.serve(*UWSGI, *MODES["enable-threads"], environment={"SMALL_AT_IMPORT": "1"})
    site.get(times=3)
    site.expect_all_recorded(at_least=5)
    assert "threads: MainThread\n" in site.log.read_text()
    assert "imported: True\n" in site.log.read_text()


def test_without_threads_uwsgi_is_said_to_send_late(site: Site) -> None:
    """Python's threads stand still there while no request is served."""
    site.serve(*UWSGI, *MODES["pre-fork"])
    site.stop()
    assert "--enable-threads" in site.log.read_text()


@pytest.mark.attack
@pytest.mark.timeout(1200)
def test_no_worker_hangs(site: Site) -> None:
    """One of 20 did, when the master had a thread that held the interpreter while uWSGI forked."""
    for _ in range(30):
        site.serve(*UWSGI, *MODES["enable-threads"], environment={"SMALL_AT_IMPORT": "1"})
        site.get(times=9)
        wait_until_idle(site)
        site.stop()
    site.expect_all_recorded(at_least=30 * 11)


def test_mules_and_the_spooler_record(site: Site) -> None:
    """The master kills its spooler; what that had not sent is sent by whoever lives."""
    (site.directory / "tasks").mkdir()
    mule = Path(__file__).parent / "small" / "mule.py"
    site.serve(*UWSGI, *MODES["enable-threads"], f"--mule={mule}", "--spooler=tasks")
    site.get("spool/")
    assert site.process is not None
    site.process.wait_until(lambda: len(site.rows) >= 3, "mule and spooler have written")
    site.expect_all_recorded(at_least=3)
    assert len({name.split("-")[0] for name in site.rows}) >= 3


def test_what_a_busy_worker_had_not_sent_is_sent_by_the_next_one(site: Site) -> None:
    """uWSGI ends a worker that serves a request at once, without ``atexit``."""
    site.sink.respond = lambda _: Reply(503)
    site.serve(*UWSGI, "--master", "--enable-threads")
    with suppress(httpx.TimeoutException):
        httpx.get(site.url + "linger/", timeout=1)
    assert len(site.rows) == 2
    site.stop()
    assert site.recorded == []
    site.sink.respond = lambda _: Reply()
    site.serve(*UWSGI, "--master", "--enable-threads")
    site.expect_all_recorded(at_least=3)
