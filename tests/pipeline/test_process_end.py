"""Processes that end other than through ``atexit``: by a signal, as a child of multiprocessing."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from otel_audit.pipeline.pipeline_records import STREAM_END, STREAM_START
from otel_audit.pipeline.spool import directory as layout
from tests.pipeline.otlp_sink import Reply, Sink
from tests.pipeline.spooling import (
    PROLOGUE,
    run_script,
    spooled_records,
    start_script,
    target_ids,
    wait_until,
)

START = """
pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2], sink_shutdown_timeout=60.0))
pipeline.logger.emit(make_record(pipeline, 1))
"""
KILL = """
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


LOOP = """
import asyncio
async def main():
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def run(script: str, directory: Path, sink: Sink, *, expect: int) -> str:
    """Run a script that has a pipeline and has recorded something."""
    return run_script(START + textwrap.dedent(script), directory, sink.url, expect=expect)


def delivered_and_ended(sink: Sink, directory: Path) -> bool:
    """Say whether the sink has the record, its stream has ended, and the spool is empty."""
    return (
        target_ids(sink.records) == ["1"]
        and sink.events.count(STREAM_START) == sink.events.count(STREAM_END)
        and layout.list_incarnations(directory) == []
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_process_after_the_rest_was_sent(
    spool_directory: Path, sink: Sink, number: signal.Signals
) -> None:
    """And the parent sees that signal."""
    # nohup, and what runs tests in the background, may have it ignored.
    default = f"signal.signal({int(number)}, signal.SIG_DFL)"
    kill = f"os.kill(os.getpid(), {int(number)}); time.sleep(60)"
    run_script(default + START + kill, spool_directory, sink.url, expect=-number)
    assert delivered_and_ended(sink, spool_directory)


@pytest.mark.parametrize(
    "script",
    [
        LOOP,
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()\nthreading.Event().wait(60)",
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()\nos.read(os.pipe()[0], 1)",
        "signal.set_wakeup_fd(os.open('/dev/null', os.O_WRONLY | os.O_NONBLOCK))\n" + KILL,
        "signal.siginterrupt(signal.SIGTERM, False)\n" + KILL,
    ],
    ids=["event loop", "lock", "system call", "wakeup fd", "siginterrupt"],
)
def test_whatever_the_main_thread_waits_for_a_signal_ends_it(
    spool_directory: Path, sink: Sink, script: str
) -> None:
    """As it does without us."""
    run(script, spool_directory, sink, expect=-signal.SIGTERM)
    assert delivered_and_ended(sink, spool_directory)


@pytest.mark.parametrize(
    "lock", ["pipeline.spool._mutex", "pipeline.sender._mutex", "pipeline.sender._moved"]
)
def test_a_signal_may_interrupt_whoever_holds_a_lock(spool_directory: Path, sink: Sink, lock: str) -> None:
    """The stream then has no end if somebody was writing; the record is sent all the same."""
    run(f"with {lock}:{textwrap.indent(KILL, '    ')}", spool_directory, sink, expect=-signal.SIGTERM)
    assert target_ids(sink.records) == ["1"]


def test_a_second_signal_ends_it_at_once(spool_directory: Path, sink: Sink) -> None:
    """However long the sink takes."""
    asked, answer = threading.Event(), threading.Event()

    def wait(_: object) -> Reply:
        asked.set()
        answer.wait(60)
        return Reply()

    sink.respond = wait
    process = start_script(START + "print('up', flush=True)\n" + "time.sleep(120)", spool_directory, sink.url)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert asked.wait(30)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)  # it waits for the answer
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    answer.set()
    assert target_ids(spooled_records(spool_directory)) == ["1"]


@pytest.mark.parametrize(("end", "expect"), [("", 0), (KILL, -signal.SIGTERM)], ids=["atexit", "signal"])
def test_a_request_that_was_already_failing_does_not_stand_for_the_last_attempt(
    spool_directory: Path, sink: Sink, end: str, expect: int
) -> None:
    """As one does that uWSGI without threads stopped midway: its time is over before the end begins."""
    asked, over = threading.Event(), threading.Event()

    def keep_the_first_waiting(_: object) -> Reply:
        if asked.is_set():
            return Reply()
        asked.set()
        over.wait(60)
        return Reply(503)

    sink.respond = keep_the_first_waiting
    script = (
        START.replace("=60.0", "=60.0, sink_timeout=2.0") + "print('up', flush=True); sys.stdin.readline()"
    )
    process = start_script(script + end, spool_directory, sink.url, stdin=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert asked.wait(30)
    process.communicate("end\n", timeout=60)
    over.set()
    assert process.returncode == expect
    assert delivered_and_ended(sink, spool_directory)


def test_without_a_sink_the_rest_stays(spool_directory: Path) -> None:
    """Nobody is waited for who does not answer."""
    script = START + KILL
    run_script(script, spool_directory, "http://127.0.0.1:9/v1/audit", expect=-signal.SIGTERM)
    assert target_ids(spooled_records(spool_directory)) == ["1"]


@pytest.mark.parametrize(
    ("script", "expect"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))", 7),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(8))", 8),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL)", -15),
        ("before = signal.signal(signal.SIGTERM, lambda *a: callable(before) and before(*a))", -15),
        ("provider.stop(); assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL", -15),
    ],
)
def test_a_handler_installed_later_decides(
    spool_directory: Path, sink: Sink, script: str, expect: int
) -> None:
    """Ours is gone then, or is called by it."""
    run(script + KILL, spool_directory, sink, expect=expect)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "signal.getsignal(signal.SIGTERM) is signal.SIG_IGN",
        ),
        (
            "mine = lambda *_: 0; signal.signal(signal.SIGTERM, mine)",
            "signal.getsignal(signal.SIGTERM) is mine",
        ),
        (
            "import faulthandler; faulthandler.register(signal.SIGTERM)",
            "signal.getsignal(signal.SIGTERM) is signal.SIG_DFL",
        ),
        ("", "signal.getsignal(signal.SIGINT) is signal.default_int_handler"),
    ],
    ids=["ignored", "handled", "handled in C", "interrupt"],
)
def test_a_handler_that_stands_is_left_alone(
    spool_directory: Path, sink: Sink, before: str, after: str
) -> None:
    """Only the default is replaced."""
    run_script(f"{before}\n{START}\nassert {after}", spool_directory, sink.url)


def test_outside_the_main_thread_no_handler_is_installed(spool_directory: Path, sink: Sink) -> None:
    """Python does not allow it."""
    script = f"""
def work():{textwrap.indent(START, "    ")}
thread = threading.Thread(target=work); thread.start(); thread.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    run_script(script, spool_directory, sink.url)
    assert delivered_and_ended(sink, spool_directory)


@pytest.mark.parametrize("fork", ["os.fork()", "__import__('ctypes').PyDLL(None).fork()"])
def test_a_child_that_recorded_nothing_ends_at_once(spool_directory: Path, sink: Sink, fork: str) -> None:
    """Its parent's records are no reason to wait, not even if the sink would have to be waited for."""
    sink.respond = lambda _: Reply(503)
    script = f"""
    pid = {fork}
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(os.waitstatus_to_exitcode(ended[1]) if ended[0] else "waits", flush=True)
    os._exit(0)
    """
    assert run(script, spool_directory, sink, expect=0).split() == ["-15"]


WORKERS = (
    PROLOGUE
    + """
import concurrent.futures, multiprocessing

def work(number):
    pipeline = provider.current() or provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
    pipeline.logger.emit(make_record(pipeline, number))

def die(number):
    work(number)
    os._exit(0)

if __name__ == "__main__":
    provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
"""
)


def run_workers(directory: Path, spool: Path, sink: Sink, script: str) -> None:
    """Run a program whose ``work(number)`` can be found by a spawned child."""
    file = directory / "workers.py"
    file.write_text(WORKERS + textwrap.indent(textwrap.dedent(script), "    "))
    done = subprocess.run(
        [sys.executable, str(file), str(spool), sink.url],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_send_what_they_recorded(
    tmp_path: Path, spool_directory: Path, sink: Sink, method: str
) -> None:
    """They end by ``os._exit``; each ends its stream before."""
    script = f"""
    context = multiprocessing.get_context("{method}")
    child = context.Process(target=work, args=(1,))
    child.start(); child.join()
    assert child.exitcode == 0
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work, 2).result()
    """
    run_workers(tmp_path, spool_directory, sink, script)
    assert target_ids(sink.records) == ["1", "2"]
    assert sink.events.count(STREAM_START) == sink.events.count(STREAM_END) == 2
    assert layout.list_incarnations(spool_directory) == []


def test_children_of_billiard_send_what_they_recorded(
    tmp_path: Path, spool_directory: Path, sink: Sink
) -> None:
    """Celery's own multiprocessing."""
    script = """
    import billiard
    child = billiard.Process(target=work, args=(1,))
    child.start(); child.join()
    assert child.exitcode == 0
    os._exit(0)
    """
    run_workers(tmp_path, spool_directory, sink, script)
    assert delivered_and_ended(sink, spool_directory)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_parents_end_sends_what_dead_children_left(
    tmp_path: Path, spool_directory: Path, sink: Sink, method: str
) -> None:
    """Though the parent recorded nothing itself."""
    script = f"""
    context = multiprocessing.get_context("{method}")
    children = [context.Process(target=die, args=(number,)) for number in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    """
    run_workers(tmp_path, spool_directory, sink, script)
    assert sorted(target_ids(sink.records)) == [str(number) for number in range(8)]
    assert layout.list_incarnations(spool_directory) == []


def test_a_pool_that_is_terminated_loses_nothing(tmp_path: Path, spool_directory: Path, sink: Sink) -> None:
    """``Pool.__exit__`` sends SIGTERM to its children."""
    script = """
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(work, range(6))
    """
    run_workers(tmp_path, spool_directory, sink, script)
    assert sorted(target_ids(sink.records)) == [str(number) for number in range(6)]
    assert layout.list_incarnations(spool_directory) == []


def test_after_a_rest_the_next_record_begins_another_stream(spool_directory: Path, sink: Sink) -> None:
    """A lifespan, or a task, that ends need not be the end of the process."""
    script = """
    for number in (2, 3):
        assert pipeline.rest(20)
        pipeline.logger.emit(make_record(pipeline, number))
    """
    run(script, spool_directory, sink, expect=0)
    assert target_ids(sink.records) == ["1", "2", "3"]
    assert sink.events.count(STREAM_START) == sink.events.count(STREAM_END) == 3
    assert layout.list_incarnations(spool_directory) == []


def test_writers_go_on_while_streams_end(spool_directory: Path, sink: Sink) -> None:
    """No record falls between two streams, and no intent is ended."""
    script = """
    def work(first):
        for number in range(first, first + 200):
            handle = pipeline.logger.intend([make_record(pipeline, number)])
            pipeline.logger.settle(handle, "success")

    threads = [threading.Thread(target=work, args=(first,)) for first in (1000, 2000, 3000)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pipeline.rest(20)
    """
    run(script, spool_directory, sink, expect=0)
    expected = [1, *range(1000, 1200), *range(2000, 2200), *range(3000, 3200)]
    assert sorted(map(int, target_ids(sink.records))) == expected
    assert {record.outcome for record in sink.records if record.event_name == "shop.order.update"} == {
        "success"
    }
    wait_until(lambda: layout.list_incarnations(spool_directory) == [], "all is sent")
