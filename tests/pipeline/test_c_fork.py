"""A process forked in C, as uWSGI forks its workers, runs none of Python's fork hooks."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_audit import forks
from otel_audit.audit_record import AuditRecord, new_record_id
from otel_audit.pipeline import sender
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from tests.pipeline.spooling import audit_config, make_record, spooled_records, target_ids, wait_until

if TYPE_CHECKING:  # scripts below import this file, and must not get with it what the sender imports
    from tests.pipeline.otlp_sink import Sink

_fork = ctypes.PyDLL(None).fork
"""With the interpreter held, as uWSGI does."""
_LONGEST = 20


def fork(work: Callable[[], object]) -> int:
    """Run ``work`` in a child forked in C; its exit status is 0 unless that raised."""
    # A child asked by a thread to hand over the interpreter waits for that thread, which it does not have:
    # whoever waits for it now gets it, and the next one asks too late.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_LONGEST)
    time.sleep(0.02)
    try:
        pid: int = _fork()
    finally:
        sys.setswitchinterval(interval)
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    return pid


def status(pid: int) -> int:
    """Wait for a child; one that hangs is killed, and counts as that."""
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        ended, how = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(how)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def in_child(work: Callable[[], object]) -> None:
    """Run ``work`` in a child forked in C, and expect that it did not raise."""
    assert status(fork(work)) == 0


def kinds(records: list[AuditRecord]) -> list[tuple[str, str]]:
    """Return target id and outcome of each record of :func:`make_record`."""
    return sorted((record.target.id, record.outcome) for record in records if record.target)


@pytest.fixture(autouse=True, params=["by memory", "by process id"])
def noticed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a child as on Linux, and as where memory is no sign of one."""
    if request.param == "by process id":
        monkeypatch.setattr("otel_audit.forks._wiped", bytearray(1))


@pytest.mark.parametrize("how", ["emit", "intend"])
def test_the_first_thing_a_child_writes_is_kept(
    pipeline: AuditPipeline, spool_directory: Path, how: str
) -> None:
    """Whichever way it is written, and in a stream of its own."""
    pipeline.logger.emit(make_record(pipeline, 1))

    def write() -> None:
        if how == "emit":
            pipeline.logger.emit(make_record(pipeline, 2))
        else:
            pipeline.logger.settle(pipeline.logger.intend([make_record(pipeline, 2)]), "success")

    in_child(write)
    pipeline.logger.emit(make_record(pipeline, 3))
    assert kinds(spooled_records(spool_directory)) == [("1", "success"), ("2", "success"), ("3", "success")]
    assert len(layout.list_incarnations(spool_directory)) == 2


def test_a_child_cannot_settle_what_its_parent_intended(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """And does not take it for an intent of its own."""
    parents = pipeline.logger.intend([make_record(pipeline, 1)])

    def write() -> None:
        pipeline.logger.intend([make_record(pipeline, 2)])
        pipeline.logger.settle(parents, "failure")

    in_child(write)
    pipeline.logger.settle(parents, "success")
    assert kinds(spooled_records(spool_directory)) == [("1", "success"), ("2", "unknown")]


@pytest.mark.parametrize("held", ["writer", "sender", "logger", "imports"])
def test_a_lock_held_by_another_thread_does_not_stop_the_child(
    spool_directory: Path, pipelines: Callable[..., AuditPipeline], held: str
) -> None:
    """The thread that would release it exists in the parent only."""
    pipeline = pipelines(audit_config(spool_directory), ship=True)
    assert pipeline.sender is not None
    lock = {
        "writer": pipeline.spool._mutex,
        "sender": pipeline.sender._mutex,
        "logger": pipeline.logger._mutex,
        "imports": sender._importing._mutex,
    }[held]
    release, taken = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()

    def write() -> None:
        pipeline.logger.settle(pipeline.logger.intend([make_record(pipeline, 2)]), "success")
        pipeline.logger.emit(make_record(pipeline, 3))
        pipeline.flush(0)

    pid = fork(write)
    try:
        assert status(pid) == 0
    finally:
        release.set()
        thread.join()


def test_several_threads_may_be_the_first_to_write(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """None sees half of a process that is beginning anew."""
    pipeline.logger.emit(make_record(pipeline, 0))

    def write() -> None:
        together = threading.Barrier(8)

        def one(number: int) -> None:
            together.wait()
            pipeline.logger.settle(pipeline.logger.intend([make_record(pipeline, number)]), "success")

        threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_child(write)
    assert sorted(map(int, target_ids(spooled_records(spool_directory)))) == list(range(9))


def test_siblings_make_different_ids() -> None:
    """Random numbers drawn by the parent are used by none of its children."""
    new_record_id(0)
    read, write = os.pipe()
    for _ in range(2):
        in_child(lambda: os.write(write, new_record_id(0).encode() + b"\n"))
    os.close(write)
    with os.fdopen(read) as lines:
        first, second = lines.read().split()
    assert len({first, second, new_record_id(0)}) == 3


def test_a_child_that_records_nothing_leaves_the_parent_alone(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Its exit must not end the parent's stream, nor make one of its own."""
    pipeline.logger.emit(make_record(pipeline, 1))
    in_child(pipeline.shutdown)
    pipeline.logger.emit(make_record(pipeline, 2))
    assert target_ids(spooled_records(spool_directory)) == ["1", "2"]
    assert len(layout.list_incarnations(spool_directory)) == 1


PARENT = f"""
import sys, time
from pathlib import Path
from otel_audit.pipeline import provider
from tests.pipeline.spooling import audit_config, make_record
from tests.pipeline.test_c_fork import in_child

pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
pipeline.logger.emit(make_record(pipeline, 1))
assert pipeline.flush({_LONGEST})

def write():
    pipeline.logger.emit(make_record(pipeline, 2))
    assert pipeline.flush({_LONGEST})

# A fork in C leaves the interpreter's own lock as it is: no thread may be waiting for it just then.
time.sleep(0.3)
in_child(write)
"""


def test_a_child_sends_with_a_thread_of_its_own(spool_directory: Path, sink: Sink) -> None:
    """Though the parent's thread, which it believes to be alive, was sending."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(spool_directory), sink.url],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert target_ids(sink.records) == ["1", "2"]


IMPORTING = f"""
import os, sys, threading
from pathlib import Path
from otel_audit.pipeline import provider
from tests.pipeline.spooling import audit_config, make_record
from tests.pipeline.test_c_fork import fork, status

reached, go_on = threading.Event(), threading.Event()

def slowly(event, arguments):  # with the locks of the modules that import it, and of no other
    if event == "import" and arguments[0] == sys.argv[3] and not reached.is_set():
        reached.set()
        go_on.wait()

sys.addaudithook(slowly)
pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
pipeline.logger.emit(make_record(pipeline, 1))
assert reached.wait({_LONGEST}), "nobody imports"
threading.Timer(0.3, go_on.set).start() if sys.argv[4] == "python" else None

def write(number):
    pipeline.logger.settle(pipeline.logger.intend([make_record(pipeline, number)]), "success")
    pipeline.logger.emit(make_record(pipeline, number + 1))
    sent = pipeline.flush(0.5)
    assert sent == (sys.argv[4] == "python"), sent

def beget():
    write(2)
    if sys.argv[4] == "C":  # what the child has inherited, its child has as well
        pid = os.fork()
        if pid == 0:
            write(4)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

if sys.argv[4] == "python":
    pid = os.fork()
    if pid == 0:
        write(2)
        os._exit(0)
else:
    pid = fork(beget)
assert status(pid) == 0
go_on.set()
assert pipeline.flush({_LONGEST})
pipeline.sender.rest({_LONGEST}, adopt=True)
"""


@pytest.mark.parametrize("module", ["google.protobuf.message", "otel_audit.pipeline.delivery.shipper"])
@pytest.mark.parametrize("how", ["C", "python"])
def test_a_fork_while_the_sender_imports_does_not_hang(
    spool_directory: Path, sink: Sink, how: str, module: str
) -> None:
    """No thread of the child will release the locks of an import that goes on; Python's fork waits for it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, str(spool_directory), sink.url, module, how],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = ["1", "2", "3"] if how == "python" else ["1", "2", "3", "4", "5"]
    assert sorted(target_ids(sink.records)) == expected


def test_a_child_gives_up_its_share_of_the_parents_lock(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """A dead parent's stream can be adopted while a child that records lives on."""
    read, write = os.pipe()

    def live_on() -> None:
        pipeline.logger.emit(make_record(pipeline, 2))
        time.sleep(_LONGEST)

    def parent() -> None:
        pipeline.logger.emit(make_record(pipeline, 1))
        child = fork(live_on)
        os.write(write, str(child).encode())
        wait_until(lambda: len(layout.list_incarnations(spool_directory)) == 2, "the child has written")

    in_child(parent)
    first, second = layout.list_incarnations(spool_directory)
    lock = layout.try_lock(first)
    assert lock is not None
    lock.release()
    assert layout.try_lock(second) is None
    os.kill(int(os.read(read, 20)), 9)


def test_callbacks_run_once_for_each_child() -> None:
    """Whether the hooks of Python ran or somebody had to notice."""
    runs: list[int] = []
    forks.after_in_child(lambda: runs.append(os.getpid()))

    def look() -> None:
        forks.check()
        forks.check()
        assert runs == [os.getpid()]

    in_child(look)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if runs == [os.getpid()] else 1)
    assert status(pid) == 0
    assert forks.has_forked()


def test_every_process_knows_its_own_id() -> None:
    """Before and after it has begun anew, and a child's child."""
    parent = forks.process_id()

    def look(deeper: int = 2) -> None:
        assert forks.process_id() == os.getpid() != parent
        forks.check()
        assert forks.process_id() == os.getpid()
        if deeper:
            in_child(lambda: look(deeper - 1))

    in_child(look)
    assert forks.process_id() == os.getpid() == parent


def test_a_system_that_takes_advice_and_heeds_none_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As emulators of other processors do; whether its memory is wiped cannot be told."""

    class Heedless(mmap.mmap):
        def madvise(self, *advice: int) -> None:
            pass

    monkeypatch.setattr(mmap, "mmap", Heedless)
    spec = importlib.util.spec_from_file_location("forks_again", forks.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)

    def look() -> None:
        assert again.process_id() == os.getpid()

    assert again.process_id() == os.getpid()
    in_child(look)


def test_a_daemon_that_closes_every_file_records(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """Ours are among them."""
    pipeline.logger.emit(make_record(pipeline, 1))

    def write() -> None:
        os.closerange(3, 1024)
        pipeline.logger.emit(make_record(pipeline, 2))

    in_child(write)
    assert target_ids(spooled_records(spool_directory)) == ["1", "2"]
