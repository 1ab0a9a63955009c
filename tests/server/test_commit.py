"""Group commit: what is written together, who hears of what, and when a sender is asked to wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import httpx
import pytest

from otel_audit.errors import StoreError
from otel_audit.server.access import Access
from otel_audit.server.engine.engine import EngineError
from otel_audit.server.otlp.commit import Awaited, Backlog, Busy, Committer
from otel_audit.server.otlp.http_receiver import Intake, receiver
from otel_audit.server.otlp.rows import Rows
from tests.server.otlp_messages import audit
from tests.trail import record

PROTOBUF = {"Content-Type": "application/x-protobuf"}


class FakeEngine:
    """Writes to a list; a group that holds a poisoned block fails, and all wait for ``gate``."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.tried: list[list[bytes]] = []
        self.gate = threading.Event()
        self.writing = threading.Semaphore(0)
        self.gate.set()

    @contextmanager
    def connection(self) -> Iterator[FakeEngine]:
        yield self

    def prepare_inserts(self) -> None:
        pass

    def insert(
        self, table: str, columns: Sequence[str], input_format: str, chunks: list[bytes], *, without: str
    ) -> None:
        self.tried.append(chunks)
        self.writing.release()
        assert self.gate.wait(10)
        if any(chunk.startswith(b"disk") for chunk in chunks):
            raise EngineError("Code: 243. DB::Exception: no space")
        if any(chunk.startswith(b"bug") for chunk in chunks):
            raise ZeroDivisionError("whatever")
        self.groups.append(chunks)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def committer(engine: FakeEngine) -> Iterator[Committer]:
    committer = Committer(engine, "otel", "audit_log")  # type: ignore[arg-type]
    yield committer
    engine.gate.set()
    committer.close()


def rows(block: bytes, size: int = 1) -> Rows:
    return Rows("audit_log", ("Body",), block, size)


def test_what_waits_during_an_insert_is_written_together(engine: FakeEngine, committer: Committer) -> None:
    """One alone is written at once; those behind it share the next insert, in their order."""
    engine.gate.clear()
    first = committer.submit(rows(b"1"))
    assert engine.writing.acquire(timeout=10)
    others = [committer.submit(rows(block)) for block in (b"2", b"3", b"4")]
    assert not any(future.done() for future in (first, *others))
    engine.gate.set()
    for future in (first, *others):
        assert future.result(10) is None
    assert engine.groups == [[b"1"], [b"2", b"3", b"4"]]


def test_when_many_rows_wait_a_second_insert_runs_beside_the_first(
    engine: FakeEngine, committer: Committer
) -> None:
    """Few rows wait for the running one; thousands do not."""
    engine.gate.clear()
    futures = [committer.submit(rows(b"1"))]
    assert engine.writing.acquire(timeout=10)
    futures.append(committer.submit(rows(b"2", 100)))
    assert not engine.writing.acquire(timeout=0.2)
    futures.append(committer.submit(rows(b"3", 5000)))
    assert engine.writing.acquire(timeout=10)
    engine.gate.set()
    for future in futures:
        future.result(10)
    assert sorted(engine.groups) == [[b"1"], [b"2", b"3"]]


def test_one_request_that_cannot_be_written_fails_alone(engine: FakeEngine, committer: Committer) -> None:
    """Its neighbours in the group are written; its sender hears why."""
    engine.gate.clear()
    committer.submit(rows(b"0"))
    assert engine.writing.acquire(timeout=10)
    futures = [committer.submit(rows(block)) for block in (b"a", b"disk", b"b", b"bug")]
    engine.gate.set()
    assert [future.exception(10) is None for future in futures] == [True, False, True, False]
    assert isinstance(futures[1].exception(), EngineError)
    assert isinstance(futures[3].exception(), StoreError)
    assert engine.groups == [[b"0"], [b"a"], [b"b"]]
    assert committer.submit(rows(b"later")).result(10) is None


def test_what_was_accepted_is_written_before_it_closes(engine: FakeEngine) -> None:
    """And nothing is accepted after."""
    committer = Committer(engine, "otel", "audit_log")  # type: ignore[arg-type]
    engine.gate.clear()
    futures = [committer.submit(rows(str(number).encode())) for number in range(20)]
    closing = threading.Thread(target=committer.close)
    closing.start()
    engine.gate.set()
    closing.join(10)
    assert all(future.result(0) is None for future in futures)
    assert sum(len(group) for group in engine.groups) == 20
    assert not committer.alive
    with pytest.raises(Busy):
        committer.submit(rows(b"late"))


def test_both_threads_stay_at_work_whoever_takes_the_rows(engine: FakeEngine, committer: Committer) -> None:
    """While one waits a moment for more senders, the other may take all that waits: neither ends by that."""
    futures = []
    for _ in range(30):
        engine.gate.clear()
        futures.append(committer.submit(rows(b"running")))
        assert engine.writing.acquire(timeout=10)
        futures += [committer.submit(rows(b"few")), committer.submit(rows(b"few"))]
        engine.gate.set()
        futures[-3].result(10)
        time.sleep(0.002)  # the first thread waits for its three senders
        futures.append(committer.submit(rows(b"many", 5000)))
        for future in futures[-3:]:
            future.result(10)
        while engine.writing.acquire(timeout=0.01):
            pass
    assert committer.alive
    assert sum(len(group) for group in engine.groups) == len(futures)


def test_nothing_to_write_needs_no_insert(engine: FakeEngine, committer: Committer) -> None:
    """An empty request is acknowledged at once."""
    assert committer.submit(rows(b"", 0)).result(0) is None
    assert not engine.tried


def test_a_sender_that_goes_away_stops_nothing(engine: FakeEngine, committer: Committer) -> None:
    """Its rows are written with the others'."""
    engine.gate.clear()
    committer.submit(rows(b"0"))
    assert engine.writing.acquire(timeout=10)
    gone, stays = committer.submit(rows(b"1")), committer.submit(rows(b"2"))
    assert not gone.cancel()
    engine.gate.set()
    assert stays.result(10) is None
    assert committer.submit(rows(b"3")).result(10) is None


def test_the_backlog_is_bounded_but_never_closed_to_all() -> None:
    """One request alone always has room, however large; a second must fit."""
    backlog = Backlog(100)
    with backlog.hold(1000), pytest.raises(Busy, match="1000 bytes are waiting"), backlog.hold(1):
        pass
    with backlog.hold(60), backlog.hold(40), pytest.raises(Busy), backlog.hold(1):
        pass
    with backlog.hold(100):
        pass


def test_a_full_server_asks_senders_to_come_back(engine: FakeEngine, committer: Committer) -> None:
    """503 with Retry-After, for room and for a store that does not take it; then it goes on."""
    body = audit([record("a.b", "READ", at=1)]).SerializeToString() + b"\xf8\x07\x01"  # no plain request
    backlog = Backlog(10)
    intake = Intake(committer, committer, backlog, Access({}), 10**6)

    def not_ready() -> None:
        raise StoreError("no")

    def answers() -> list[httpx.Response]:
        return asyncio.run(ask())

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(receiver(intake, not_ready))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return [
                await client.post("/v1/logs", content=body, headers=PROTOBUF),
                await client.get("/ready"),
            ]

    with backlog.hold(10):
        busy, unready = answers()
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "1")
    assert (unready.status_code, unready.json()["reason"]) == (503, "no")
    assert answers()[0].status_code == 200
    engine.insert = _no_space  # type: ignore[method-assign]
    full = answers()[0]
    assert (full.status_code, full.headers["Retry-After"]) == (503, "5")
    assert b"no space" in full.content


def _no_space(*_: object, **__: object) -> None:
    raise EngineError("Code: 243. DB::Exception: no space left")


def test_a_loop_hears_of_everything_that_other_threads_finish() -> None:
    """Each coroutine once, with its result or its error, however many finish at once."""
    futures: list[Future[None]] = [Future() for _ in range(300)]

    def finish() -> None:
        for number, future in enumerate(futures):
            if number % 3:
                future.set_result(None)
            else:
                future.set_exception(Busy(str(number)))

    async def wait() -> list[BaseException | None]:
        awaited = Awaited()
        tasks = [asyncio.ensure_future(awaited.done(future)) for future in futures]
        await asyncio.sleep(0)
        tasks[1].cancel()
        threads = [threading.Thread(target=finish)]
        threads[0].start()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        threads[0].join()
        await awaited.done(futures[1])  # long done
        return found

    found = asyncio.run(wait())
    assert isinstance(found.pop(1), asyncio.CancelledError)
    expected = [str(number) if number % 3 == 0 else "None" for number in range(300) if number != 1]
    assert [str(each) for each in found] == expected
