"""Requests of few records: acknowledged when they are on the disk, inserted by the hundred, seen at once."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from otel_audit.audit_record import AuditRecord, Bulk, Column, Target
from otel_audit.errors import StoreError
from otel_audit.pipeline.spool.frames import MAGIC
from otel_audit.server.engine.engine import EngineError
from otel_audit.server.otlp import journal as journal_module
from otel_audit.server.otlp.engine_rows import rows_by_engine
from otel_audit.server.otlp.journal import FEW, Journal
from otel_audit.server.otlp.rows import Rows
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import audit
from tests.trail import Serving, record, serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
POISON = "poison"


def one(name: str = "a.b", **parts: Any) -> AuditRecord:
    return record(name, "READ", at=time.time_ns(), **parts)


def post(running: Serving, *records: AuditRecord) -> None:
    answer = httpx.post(
        f"{running.http}/v1/audit", content=audit(list(records)).SerializeToString(), headers=PROTOBUF
    )
    assert answer.status_code == 200, answer.content


def seen(running: Serving) -> dict[str, int]:
    """Return how often each record is seen, asked as a client asks."""
    found = StoreClient(running.clickhouse).rows(
        "SELECT toString(record_id), count() FROM otel.audit_trail WHERE ordinal = 0 GROUP BY 1"
    )
    return {str(each): int(count) for each, count in found}


def waiting(tmp_path: Path) -> list[Path]:
    """Return the files of what a server has acknowledged and not inserted."""
    return sorted((tmp_path / "data" / "journal").iterdir())


def test_what_was_acknowledged_is_in_the_next_answer(tmp_path: Path) -> None:
    """Each time, over HTTP and gRPC, however soon it is asked."""
    sent: list[str] = []
    with serving(tmp_path) as running, grpc.insecure_channel(running.grpc) as channel:
        export = channel.unary_unary(EXPORT)
        for number in range(15):
            each = one()
            if number % 3:
                post(running, each)
            else:
                export(audit([each]).SerializeToString(), timeout=20)
            sent.append(each.id)
            assert seen(running) == dict.fromkeys(sent, 1)


def test_what_was_acknowledged_is_there_after_kill_9_whether_it_was_inserted_or_not(tmp_path: Path) -> None:
    """Of every log, with the rows of a bulk record; three times in a row."""
    expected: dict[str, int] = {}
    for _ in range(3):
        with serving(tmp_path, "--fsync") as running:
            keys = [str(number) for number in range(20)]
            bulk = one(target=Target("shop.Product"), bulk=Bulk(20, keys, [Column("price", keys, keys)]))
            records = [one(), one(), bulk, one("c.d", log="activity"), one("e.f", log="billing")]
            post(running, records[0])
            seen(running)
            for each in records[1:]:
                post(running, each)
            os.kill(running.pid, signal.SIGKILL)
        expected |= {each.id: 21 if each is bulk else 1 for each in records}
    with serving(tmp_path) as running:
        client = StoreClient(running.clickhouse)
        found: dict[str, int] = {}
        for log in ("audit", "activity", "other"):
            rows = client.rows(f"SELECT toString(record_id), count() FROM otel.{log}_trail GROUP BY 1")
            found |= {str(each): int(count) for each, count in rows}
    assert {each: found.get(each) for each in expected} == expected


def test_what_was_inserted_and_is_still_in_the_journal_is_seen_once(tmp_path: Path) -> None:
    """A server may die, or the disk forget that a file was removed, after the engine has its requests."""
    records = [one() for _ in range(5)]
    left_behind(tmp_path, *(prepared(each) for each in records))
    with serving(tmp_path) as running:
        for each in records[1:]:
            post(running, each)
        assert seen(running) == {each.id: 1 for each in records[1:]}
    shutil.copytree(tmp_path / "journal", tmp_path / "data" / "journal", dirs_exist_ok=True)
    with serving(tmp_path) as running:
        assert seen(running) == {each.id: 1 for each in records}
        assert waiting(tmp_path) == []


def test_a_server_that_stops_leaves_nothing_in_the_journal(tmp_path: Path) -> None:
    """So a version that knows none finds everything where it was."""
    with serving(tmp_path) as running:
        post(running, one())
    assert waiting(tmp_path) == []


def test_where_the_journal_cannot_be_written_requests_are_inserted_at_once(tmp_path: Path) -> None:
    """Acknowledged is durable and visible as ever."""
    with serving(tmp_path) as running:
        shutil.rmtree(tmp_path / "data" / "journal")
        each = one()
        post(running, each)
        assert seen(running) == {each.id: 1}
        os.kill(running.pid, signal.SIGKILL)
    with serving(tmp_path) as running:
        assert seen(running) == {each.id: 1}


class RefusingEngine:
    """Notes the ids it is given; refuses everything while it is full, and always a poisoned record."""

    def __init__(self) -> None:
        self.full = False
        self.inserted: list[bytes] = []
        self.inserts = 0
        self.slow = threading.Event()
        self.slow.set()

    @contextmanager
    def connection(self) -> Iterator[RefusingEngine]:
        yield self

    def prepare_inserts(self) -> None:
        pass

    def insert(
        self, table: str, columns: Sequence[str], input_format: str, chunks: list[bytes], *, without: str
    ) -> None:
        assert self.slow.wait(60)
        if self.full or any(POISON.encode() in chunk for chunk in chunks):
            raise EngineError("Code: 243. DB::Exception: no space")
        self.inserts += 1
        self.inserted += chunks

    def has(self, name: str) -> bool:
        return any(name.encode() in chunk for chunk in self.inserted)


@pytest.fixture
def engine() -> RefusingEngine:
    return RefusingEngine()


@pytest.fixture
def journal(engine: RefusingEngine, tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal", engine, "otel", fsync=True)  # type: ignore[arg-type]
    yield made
    engine.full = False
    engine.slow.set()
    made.close()


def prepared(*records: AuditRecord) -> Rows:
    made = rows_by_engine(audit(list(records)).SerializeToString())
    assert made is not None
    return made


def rows(*names: str) -> Rows:
    return prepared(*(one(name) for name in names))


def left_behind(tmp_path: Path, *requests: Rows) -> Path:
    """Make the file of a process that died before it had inserted these."""
    engine = RefusingEngine()
    engine.full = True
    journal = Journal(tmp_path / "journal", engine, "otel", fsync=True)  # type: ignore[arg-type]
    assert journal.take(requests)
    journal.close()
    return files(tmp_path)[-1]


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "journal").iterdir())


def settle_in_the_end(journal: Journal) -> None:
    """Ask until there is an answer: it is refused while what was acknowledged is tried again."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(StoreError):
            return journal.settle()
    raise TimeoutError("no answer")


def test_many_requests_are_one_insert(engine: RefusingEngine, journal: Journal) -> None:
    """Those that came while another was running."""
    engine.slow.clear()
    for number in range(20):
        assert journal.take([rows(f"name.{number}")])
    engine.slow.set()
    journal.settle()
    assert engine.inserts <= 2
    assert all(engine.has(f"name.{number}") for number in range(20))


def test_nobody_needs_to_ask(engine: RefusingEngine, journal: Journal, tmp_path: Path) -> None:
    """What waits is inserted soon, and its file removed."""
    assert journal.take([rows("a.b")])
    deadline = time.monotonic() + 30
    while files(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.has("a.b")
    assert files(tmp_path) == []


def test_a_question_waits_for_what_is_being_inserted(engine: RefusingEngine, journal: Journal) -> None:
    """And for what came after that insert had begun."""
    engine.slow.clear()
    assert journal.take([rows("first.one")])
    asked = threading.Thread(target=journal.settle)
    asked.start()
    time.sleep(0.1)
    assert journal.take([rows("second.one")])
    late = threading.Thread(target=journal.settle)
    late.start()
    assert asked.is_alive()
    engine.slow.set()
    for each in (asked, late):
        each.join(30)
    assert engine.has("first.one")
    assert engine.has("second.one")


def test_a_question_does_not_wait_for_the_records_of_other_questions(
    engine: RefusingEngine, journal: Journal
) -> None:
    """But for what was acknowledged before them, after them and together with them."""
    question = rows("asked.one")._replace(awaited=False)
    engine.slow.clear()
    assert journal.take([question])
    journal.settle()
    assert journal.take([rows("first.one")])
    assert journal.take([question])
    asked = threading.Thread(target=journal.settle)
    asked.start()
    asked.join(0.2)
    assert asked.is_alive()
    engine.slow.set()
    asked.join(30)
    assert engine.has("first.one")
    assert journal.take([question, rows("second.one")])
    journal.settle()
    assert engine.has("second.one")


def test_who_asked_is_in_the_store_soon_though_no_answer_waits_for_it(tmp_path: Path) -> None:
    """However fast the next questions come."""
    with serving(tmp_path) as running:
        client = StoreClient(running.clickhouse)
        asked = "SELECT count() FROM otel.other_trail WHERE log = 'access' AND message = 'SELECT 4711'"
        client.rows("SELECT 4711")
        deadline = time.monotonic() + 30
        while client.rows(asked) != [[1]] and time.monotonic() < deadline:
            pass
        assert client.rows(asked) == [[1]]


def test_large_groups_and_other_rows_are_not_for_the_journal(journal: Journal, tmp_path: Path) -> None:
    """They are worth an insert of their own."""
    assert not journal.take([rows(*["a.b"] * (FEW + 1))])
    assert not journal.take([rows("a.b"), rows(*["a.b"] * FEW)])
    assert not journal.take([Rows("audit_log", ("Body",), b"1", 1)])
    assert files(tmp_path) == []


def test_what_the_engine_refuses_is_kept_and_tried_again(
    engine: RefusingEngine, journal: Journal, tmp_path: Path
) -> None:
    """A question hears of it, new requests go to the engine, whose refusal their senders hear."""
    engine.full = True
    assert journal.take([rows("a.b")])
    with pytest.raises(StoreError, match=r"1 requests that were acknowledged cannot be inserted: .*no space"):
        journal.settle()
    assert not journal.take([rows("c.d")])
    assert len(files(tmp_path)) == 1
    engine.full = False
    journal.settle()
    assert engine.has("a.b")
    assert journal.take([rows("e.f")])


def test_one_request_the_engine_refuses_holds_up_nobody(
    engine: RefusingEngine, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are inserted, questions are answered, and it stays on the disk, which the log says."""
    engine.slow.clear()
    names = [f"name.{number}" for number in range(9)]
    for name in [*names[:5], POISON, *names[5:]]:
        assert journal.take([rows(name)])
    engine.slow.set()
    journal.settle()
    assert all(engine.has(name) for name in names)
    assert not engine.has(POISON)
    assert any(str(path) in caplog.text for path in files(tmp_path))
    assert journal.take([rows("e.f")])
    journal.settle()
    assert engine.has("e.f")


def test_a_request_that_is_refused_alone_is_put_aside_as_well(
    engine: RefusingEngine, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries; then senders hear from the engine, until it takes something."""
    monkeypatch.setattr(journal_module, "_AGAIN", 0.01)
    assert journal.take([rows(POISON)])
    settle_in_the_end(journal)
    assert len(files(tmp_path)) == 1
    assert not journal.take([rows("a.b")])
    journal.passed()
    assert journal.take([rows("a.b")])
    journal.settle()
    assert engine.has("a.b")


def test_what_was_put_aside_is_tried_again(
    engine: RefusingEngine, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody asks and nothing else comes."""
    monkeypatch.setattr(journal_module, "_AGAIN", 0.01)
    monkeypatch.setattr(journal_module, "_AGAIN_ASIDE", 0.05)
    engine.full = True
    assert journal.take([rows("a.b")])
    settle_in_the_end(journal)
    deadline = time.monotonic() + 30
    assert not engine.has("a.b")
    engine.full = False
    while files(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.has("a.b")
    assert files(tmp_path) == []
    assert journal.take([rows("c.d")])


def test_what_the_engine_refused_to_the_end_is_inserted_at_a_later_start(
    engine: RefusingEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is on the disk all the time; a server whose engine still refuses it starts all the same."""
    first = Journal(tmp_path / "journal", engine, "otel", fsync=True)  # type: ignore[arg-type]
    engine.full = True
    assert first.take([rows("a.b")])
    first.close()
    Journal(tmp_path / "journal", engine, "otel", fsync=True).close()  # type: ignore[arg-type]
    assert str(files(tmp_path)[0]) in caplog.text
    engine.full = False
    Journal(tmp_path / "journal", engine, "otel", fsync=True).close()  # type: ignore[arg-type]
    assert engine.has("a.b")
    assert files(tmp_path) == []


def test_a_file_of_somebody_else_is_left_alone(engine: RefusingEngine, tmp_path: Path) -> None:
    """File managers and backups leave theirs in any directory."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / ".DS_Store").touch()
    (tmp_path / "journal" / "copy.requests").touch()
    Journal(tmp_path / "journal", engine, "otel", fsync=True).close()  # type: ignore[arg-type]
    assert [path.name for path in files(tmp_path)] == [".DS_Store", "copy.requests"]


def test_a_request_that_was_cut_off_in_the_middle_is_set_aside(
    engine: RefusingEngine, tmp_path: Path
) -> None:
    """Those before it are inserted; what remains of it is kept for whoever wants to look."""
    file = left_behind(tmp_path, rows("first.one"), rows("second.one"), rows("third.one"))
    file.write_bytes(file.read_bytes()[:-7])
    Journal(tmp_path / "journal", engine, "otel", fsync=True).close()  # type: ignore[arg-type]
    assert engine.has("first.one")
    assert engine.has("second.one")
    assert not engine.has("third.one")
    assert [path.suffix for path in files(tmp_path)] == [".damaged"]


def test_what_was_set_aside_before_stays(engine: RefusingEngine, tmp_path: Path) -> None:
    """Whoever looks finds what each of the crashes left."""
    for _ in range(2):
        file = left_behind(tmp_path, rows("first.one"))
        file.write_bytes(file.read_bytes()[:-7])
        Journal(tmp_path / "journal", engine, "otel", fsync=True).close()  # type: ignore[arg-type]
    assert [path.suffix for path in files(tmp_path)] == [".damaged", ".damaged"]


def test_a_changed_byte_costs_its_own_request_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it is: in the request, or in what stands before it. The file is kept."""
    requests = [rows("first.one"), rows("second.one"), rows("third.one")]
    for changed in (0, 5, 9, 12, 13, -1):
        file = left_behind(tmp_path, *requests)
        data = bytearray(file.read_bytes())
        begins = [at for at in range(len(data)) if data.startswith(MAGIC, at)]
        data[begins[1] + changed if changed >= 0 else begins[2] - 1] ^= 0x10
        file.write_bytes(data)
        after = RefusingEngine()
        Journal(tmp_path / "journal", after, "otel", fsync=True).close()  # type: ignore[arg-type]
        assert [after.has(name) for name in ("first.one", "second.one", "third.one")] == [True, False, True]
        assert f"kept as {file.with_suffix('.damaged')}" in caplog.text
    assert {path.suffix for path in files(tmp_path)} == {".damaged"}


def test_what_the_disk_does_not_confirm_is_not_acknowledged(
    engine: RefusingEngine, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what comes after it is found, though it may be there by half."""

    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    engine.slow.clear()
    assert journal.take([rows("first.one")])
    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "_datasync", failing)
        assert not journal.take([rows("lost.one")])
    half = files(tmp_path)[-1]
    half.write_bytes(half.read_bytes()[:-7])
    assert journal.take([rows("third.one")])
    copied = tmp_path / "copy"
    shutil.copytree(tmp_path / "journal", copied)
    after = RefusingEngine()
    Journal(copied, after, "otel", fsync=True).close()  # type: ignore[arg-type]
    assert after.has("third.one")
