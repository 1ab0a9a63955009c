"""uWSGI forks in C: workers, mules and the spooler. Each must record from its first write on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.otlp_sink import Reply
from tests.servers.site import Site, small_site

UWSGI = (
    "uwsgi",
    "--http-socket=127.0.0.1:{port}",
    "--module=tests.servers.small.wsgi",
    "--need-app",
    "--die-on-term",
    "--disable-logging",
)
MODES = {
    "pre-fork": ("--master", "--processes=3"),
    "lazy-apps": ("--master", "--processes=3", "--lazy-apps"),
    "enable-threads": ("--master", "--processes=3", "--enable-threads"),
    "threads": ("--master", "--processes=2", "--threads=4"),
    "uwsgi-hooks": ("--master", "--processes=2", "--enable-threads", "--py-call-uwsgi-fork-hooks"),
    "no master": ("--processes=2", "--enable-threads"),
}


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


def test_what_a_worker_was_sending_when_it_stood_still_is_sent_at_its_end(site: Site) -> None:
    """Without threads the request to the sink waits for the next one to the site, longer than it may take."""
    asked, over = threading.Event(), threading.Event()

    def keep_the_first_waiting(_: object) -> Reply:
        if asked.is_set():
            return Reply()
        asked.set()
        over.wait(60)
        return Reply(503)

    site.sink.respond = keep_the_first_waiting
    site.serve(*UWSGI, "--master", environment={"OTEL_AUDIT_SINK_TIMEOUT": "1"})
    while not asked.wait(0.01):
        site.get()
    time.sleep(1.5)
    site.stop()
    over.set()
    site.expect_all_recorded(at_least=1)
    site.expect_nothing_left()
