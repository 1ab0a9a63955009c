"""What the Collector takes, keeps and passes on, beside the embedded store on the same machine; nothing lost.

usage: python -m benchmarks.collector [PART…]

BENCH_COLLECTOR_SECONDS=10 shortens the minute that load and outage last, for a quick look.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.bodies import sample
from benchmarks.databases import entries, environment
from benchmarks.figures import Figure, report
from benchmarks.loading import Request, post_at, post_for
from benchmarks.pipelines import directory
from benchmarks.processes import Memory, cpu_seconds, memory
from otel_audit.audit_record import new_record_id
from tests.collector.running import TOKEN, Collector, Trail, binary, kill
from tests.e2e.running import Store, command

_SECONDS = float(os.environ.get("BENCH_COLLECTOR_SECONDS", "60"))
_HEADERS = {"Authorization": f"Bearer {TOKEN}"}
_SETTINGS = {"GOGC": "200"}  # less CPU for some 100 MB more; docs/collector.md
_BATCH = 500
_CLIENTS = 4
_LOAD_GOAL = 25_000
_SPOOLED = 120_000
_SPOOL_GOAL = 8_000
_ANSWER_GOAL = 2.0
_OUTAGE_RATE = 500
_OUTAGE_GOAL = 300.0
_MIB = 1 << 20
_PATIENCE = 600
_QUEUE = "otelcol_exporter_queue_size clickhouse/audit"


class Running(NamedTuple):
    """A store, a Collector in front of it, and where they keep their files."""

    directory: Path
    store: Store
    collector: Collector


@contextmanager
def running() -> Iterator[Running]:
    """Run both for the length of a ``with`` block."""
    with directory() as path, ExitStack() as stack:
        store = Store(path)
        collector = Collector(path, store.url, environment=_SETTINGS)
        for part in (store, collector):
            stack.callback(kill, part)
            part.start()
        yield Running(path, store, collector)


class Costs:
    """The CPU each process uses from here on."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def a_record(self, records: int) -> dict[str, float]:
        """Return the microseconds each has used for a record so far."""
        return {
            name: (cpu_seconds(pid) - self._before[name]) / records * 1e6 for name, pid in self._pids.items()
        }


def load() -> Iterator[Figure]:
    """A load generator, as fast as the Collector answers."""
    with running() as (_, store, collector):
        request = Request(_BATCH)
        warm = _BATCH * post_for(2, collector.sink, _HEADERS, request, _CLIENTS)
        _wait(lambda: Trail(store).count() == warm, "the store has what it was warmed up with")
        costs = Costs(Collector=_pid(collector), store=_pid(store))
        started = time.monotonic()
        records = _BATCH * post_for(_SECONDS, collector.sink, _HEADERS, request, _CLIENTS)
        accepted = time.monotonic()
        waiting, used = collector.metrics()[_QUEUE], memory(_pid(collector))
        # The Collector's own count, so that asking costs the store nothing while it works.
        _wait(lambda: collector.metrics()[_QUEUE] == 0, "the queue is empty")
        visible = time.monotonic()
        each = costs.a_record(records)
        _require(store, warm + records)
    yield Figure(
        name=f"load generator → Collector, accepted on disk, {_SECONDS:.0f} s",
        value=records / (accepted - started),
        unit="records/s",
        goal=_LOAD_GOAL,
        at_least=True,
        note=f"{len(request()) // _BATCH} bytes a record, {_BATCH} a request; {waiting} in the queue at the "
        f"end, {_memory(used)}",
    )
    yield Figure(
        name="the same, until all are visible in the store",
        value=records / (visible - started),
        unit="records/s",
        goal=_LOAD_GOAL,
        at_least=True,
        note=f"{records} records, none lost; CPU a record: {_split(each)}",
    )


def spool() -> Iterator[Figure]:
    """A full spool through our own sender and the Collector, and the same without it."""
    with running() as (path, store, collector):
        yield from _drained(
            path, store, collector.sink, "Collector → ", Collector=_pid(collector), store=_pid(store)
        )
    with directory() as path, ExitStack() as stack:
        store = Store(path)
        stack.callback(kill, store)
        store.start()
        yield from _drained(path, store, f"{store.sink}/v1/audit", "", store=_pid(store))


def _drained(path: Path, store: Store, sink: str, between: str, /, **pids: int) -> Iterator[Figure]:
    settings = os.environ | {
        "OTEL_AUDIT_SPOOL_DIRECTORY": str(path / "spool"),
        "OTEL_AUDIT_SINK_ENDPOINT": sink,
        "OTEL_AUDIT_SINK_TOKEN": TOKEN,
    }
    subprocess.run([sys.executable, "-m", "benchmarks.collector", "fill"], check=True, env=settings)
    costs = Costs(**pids)
    started = time.monotonic()
    sender = subprocess.Popen(
        [command("otel-audit"), "spool", "drain"], env=settings, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(sender.pid, 0)
    sent = time.monotonic()
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"`otel-audit spool drain` ended with {os.waitstatus_to_exitcode(status)}")
    _wait(lambda: Trail(store).count() >= _SPOOLED, "all are visible")
    visible = time.monotonic()
    each = {"sender": (usage.ru_utime + usage.ru_stime) / _SPOOLED * 1e6, **costs.a_record(_SPOOLED)}
    _require(store, _SPOOLED)
    yield Figure(
        name=f"full spool → sender → {between}store",
        value=_SPOOLED / (visible - started),
        unit="records/s",
        goal=_SPOOL_GOAL,
        at_least=True,
        note=f"{_SPOOLED} records, none lost, sent after {sent - started:.1f} s; "
        f"CPU a record: {_split(each)}",
    )


def fill() -> None:
    """Fill the spool the environment names, without sending."""
    from otel_audit.config.loader import load as load_config
    from otel_audit.pipeline.provider import AuditPipeline

    pipeline = AuditPipeline(load_config(None).config, ship=False)
    for first in range(0, _SPOOLED, 100):
        now = time.time_ns()
        pipeline.logger.keep(
            [sample(new_record_id(now), now + number, number) for number in range(first, first + 100)]
        )
    pipeline.shutdown(0)


def answer() -> Iterator[Figure]:
    """From a commit to the answer of a query, through the Collector."""
    with running() as (_, store, collector), entries("sqlite") as [entry]:
        # It writes its figures where ours go.
        subprocess.run(
            [sys.executable, "-m", "benchmarks.answer", collector.base, store.url, str(_ANSWER_GOAL)],
            check=True,
            env=environment(entry) | {"OTEL_AUDIT_SINK_TOKEN": TOKEN},
        )
    return iter(())


def outage() -> Iterator[Figure]:
    """The Collector's memory while the store is away and records come at a steady rate."""
    with running() as (_, store, collector):
        request = Request(_OUTAGE_RATE // 10)
        warm = sum(1 for _ in post_at(0.1, 5, collector.sink, _HEADERS, request))
        store.stop()
        most = Memory(0, 0)
        sent = 0
        for sent in post_at(0.1, _SECONDS, collector.sink, _HEADERS, request):
            if sent % 10 == 0:
                now = memory(_pid(collector))
                most = Memory(max(most.resident, now.resident), max(most.anonymous, now.anonymous))
        waiting = collector.metrics()[_QUEUE]
        store.start()
        _wait(lambda: collector.metrics()[_QUEUE] == 0, "the queue is empty")
        _require(store, (warm + sent) * (_OUTAGE_RATE // 10))
    yield Figure(
        name=f"Collector's memory, {_SECONDS:.0f} s without the store at {_OUTAGE_RATE} records/s",
        value=most.resident / _MIB,
        unit="MiB",
        goal=_OUTAGE_GOAL,
        note=f"{_memory(most)}; {waiting} records in the queue, none lost",
    )


def _pid(part: Store | Collector) -> int:
    assert part.process is not None
    return part.process.pid


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {_PATIENCE} s: {what}")
        time.sleep(0.1)


def _require(store: Store, expected: int) -> None:
    """Raise unless every record that was accepted is in the store, once."""
    [seen] = store.query(
        "SELECT uniqExact(record_id) AS records, count() AS rows FROM otel.audit_events FINAL "
        "WHERE ordinal = 0 AND event_name = 'shop.order.update'"
    )
    if seen != {"records": expected, "rows": expected}:
        raise RuntimeError(f"{expected} records were accepted, the store shows {seen}")


def _split(each: dict[str, float]) -> str:
    return ", ".join(f"{name} {microseconds:.0f} µs" for name, microseconds in each.items())


def _memory(used: Memory) -> str:
    return f"resident {used.resident / _MIB:.0f} MiB, of it anonymous {used.anonymous / _MIB:.0f} MiB"


PARTS = {"load": load, "spool": spool, "answer": answer, "outage": outage}


def main(names: Sequence[str]) -> None:
    """Measure the parts named, by default all."""
    if list(names) == ["fill"]:
        fill()
        return
    binary()  # built now, if need be, and not while something is measured
    for name in names or PARTS:
        report(PARTS[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
