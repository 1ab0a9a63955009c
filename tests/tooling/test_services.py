"""The private servers of the tests: there when asked for, gone afterwards, and clear when they cannot be."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import services

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["postgresql_server", "mariadb_server"])
def test_each_database_is_empty_and_separate(name: str, request: pytest.FixtureRequest) -> None:
    """Two databases of one server hold a table of the same name without meeting."""
    server = request.getfixturevalue(name)
    with server.database() as first, server.database() as second:
        for database in (first, second):
            rows = server.execute(
                "CREATE TABLE things (id integer)",
                f"INSERT INTO things VALUES ({len(database)})",
                "SELECT count(*) FROM things",
                database=database,
            )
            assert rows == [(1,)]


def test_each_test_has_an_empty_redis(redis: services.RedisServer) -> None:
    """By its port and by its socket it is the same one."""
    from redis import Redis

    with redis.client() as by_port, Redis(unix_socket_path=redis.socket) as by_socket:
        assert by_port.dbsize() == 0
        by_socket.set("key", "value")
        assert by_port.get("key") == b"value"


def test_no_two_processes_are_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while nobody listens there: a server may be stopped and started again in the middle of a test."""
    script = "from tests.services import free_port\nprint(free_port(), flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        offers = iter([taken, taken + 1])
        monkeypatch.setattr("tests.services.secrets.choice", lambda _: next(offers))
        assert services.free_port() == taken + 1
        other.stdin.write("\n")


def test_a_missing_server_fails_and_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody should read of a skipped test where a server was promised."""
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    with pytest.raises(services.ServiceUnavailable, match=r"make packages.*install postgresql"):
        services.postgresql().__enter__()
    with pytest.raises(services.ServiceUnavailable, match=r"make packages.*install mariadb-server"):
        services.mariadb().__enter__()
    with pytest.raises(services.ServiceUnavailable, match=r"make packages.*install redis-server"):
        services.redis().__enter__()


def test_a_server_that_does_not_start_shows_its_log() -> None:
    """The reason is in the message, not in a directory that is gone by then."""
    with (
        pytest.raises(services.ServiceUnavailable, match="no_such_setting"),
        services.postgresql("no_such_setting=1"),
    ):
        pytest.fail("it started")


@pytest.mark.skipif(sys.platform != "linux", reason="parent death signals are Linux's")
def test_a_server_ends_with_a_killed_owner() -> None:
    """A suite that was killed leaves no server behind."""
    script = (
        "import sys, time\n"
        "from tests import services\n"
        "with services.postgresql() as server:\n"
        "    print(server.process.pid, server.directory, flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid, directory = owner.stdout.readline().split()
    try:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        services.wait_until(lambda: not _alive(int(pid)), 20, "the server ended")
    finally:
        owner.stdout.close()
        shutil.rmtree(directory, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
