"""A worker of uvicorn dies by SIGKILL in the middle of its writes, again and again."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import create_engine

from tests import services
from tests.attack.effort import counted, effort
from tests.e2e.running import Process, answers, eventually
from tests.instrumentation.sqlalchemy import truth
from tests.instrumentation.sqlalchemy.zoo import Base
from tests.pipeline.spooling import spooled_records

ROOT = Path(__file__).parents[3]
SERVICE = "tests.instrumentation.sqlalchemy.killed_service:app"
ROWS_OF_A_REQUEST = 3


class Client(threading.Thread):
    """Someone who writes without a pause, and counts the requests that broke."""

    def __init__(self, number: int, url: str, halt: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.url, self.halt = number, url, halt
        self.done = self.broken = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        step = 0
        keys = ""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.halt.is_set() and self.failure is None:
                step += 1
                title = {"title": f"{self.number}-{step}"}
                try:
                    if not keys or step % 4 == 0:
                        made = client.post("/animals", params=title).raise_for_status().json()
                        keys = "{}/{}".format(*made)
                    elif step % 4 == 3:
                        gone, keys = keys, ""
                        client.delete(f"/animals/{gone}").raise_for_status()
                    else:
                        client.post(f"/animals/{keys}", params=title).raise_for_status()
                    self.done += 1
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    self.broken += 1
                    keys = ""
                except httpx.ConnectError:
                    time.sleep(0.01)
                except Exception as error:  # noqa: BLE001 - the test shows it
                    self.failure = error


class Row(NamedTuple):
    """A change; no two are the same."""

    table: str
    verb: str
    key: str
    old: str | None
    new: str | None


def rows(changes: Iterable[Iterable[truth.RowChange]]) -> Counter[Row]:
    return Counter(
        Row(each.table, each.verb, each.key, each.old.get("title"), each.new.get("title"))
        for some in changes
        for each in some
    )


def workers(parent: int) -> list[int]:
    """Return the processes that serve."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@effort(4, 50)
@pytest.mark.timeout(600)
def test_every_committed_row_is_on_record_and_none_is_invented(
    tmp_path: Path, postgresql_server: services.PostgreSQLServer, rounds: int
) -> None:
    """The triggers say what was committed; `success` is all of it but what is `unknown`, and no more."""
    with postgresql_server.database() as name:
        place = (
            f"{postgresql_server.user}@/{name}?host={postgresql_server.host}&port={postgresql_server.port}"
        )
        engine = create_engine(f"postgresql+psycopg://{place}")
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
            truth.install(connection)
        port = services.free_port()
        service = Process(
            [
                sys.executable,
                "-m",
                "uvicorn",
                SERVICE,
                "--workers=2",
                f"--port={port}",
                "--log-level=warning",
            ],
            {"SERVICE_DATABASE": f"postgresql+asyncpg://{place}", "SERVICE_SPOOL": str(tmp_path / "spool")},
            tmp_path / "log",
            cwd=ROOT,
        )
        halt = threading.Event()
        clients = [Client(number, f"http://127.0.0.1:{port}", halt) for number in range(4)]
        try:
            service.wait_until(lambda: answers(f"http://127.0.0.1:{port}"), "the service answers")
            for client in clients:
                client.start()
            kill_workers(service, clients, rounds)
            halt.set()
            for client in clients:
                client.join(60)
                assert client.failure is None, (client.failure, service.output())
            service.stop()
        finally:
            halt.set()
            service.kill()

        with engine.connect() as connection:
            happened = rows(truth.truth(connection).values())
        engine.dispose()
    records = spooled_records(tmp_path / "spool")
    assert {record.completeness for record in records} == {"full"}
    committed, unknown = (
        rows(truth.trail(records, outcome)[0].values()) for outcome in ("success", "unknown")
    )
    broken = sum(client.broken for client in clients)
    assert happened.total() > rounds
    assert committed - happened == Counter(), "invented"
    assert happened - committed - unknown == Counter(), "missing"
    assert max(committed.values()) == 1, "told twice"
    assert not committed & unknown, "told twice"
    assert unknown.total() <= ROWS_OF_A_REQUEST * broken
    counted("uvicorn workers killed", rounds)
    counted("uvicorn workers killed: rows committed", happened.total())
    counted("uvicorn workers killed: rows unknown", unknown.total())


def kill_workers(service: Process, clients: list[Client], times: int) -> None:
    """Kill one worker after another; each time the service goes on."""
    choose = random.Random(20)
    eventually(lambda: all(client.done or client.failure for client in clients), "every client wrote", 60)
    for _ in range(times):
        time.sleep(choose.uniform(0.02, 0.2))
        eventually(lambda: len(workers(service.pid)) == 2, "two workers", 60)
        os.kill(choose.choice(workers(service.pid)), signal.SIGKILL)
        done = sum(client.done for client in clients)
        eventually(
            lambda seen=done: any(c.failure for c in clients) or sum(c.done for c in clients) > seen + 4,  # type: ignore[misc]
            "the service goes on",
            60,
        )
        assert not any(client.failure for client in clients), ([c.failure for c in clients], service.output())
