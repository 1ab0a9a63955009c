"""SQLAlchemy, plain and audited by us and by SQLAlchemy-Continuum: in one run, round by round.

A time is that of the statements and of COMMIT: records are kept there.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.databases import VENDORS, entries, environment
from benchmarks.figures import Figure, beside_plain, interleaved, noise, quantile, ratio, report
from benchmarks.pipelines import configuration
from benchmarks.sink import require_posts
from benchmarks.sqlalchemy_jobs import JOBS, NOT_AUDITED, NOT_READ, Job
from benchmarks.sqlalchemy_tables import Article, Base, Unaudited, connect, fill

_ROUNDS: Final = 30
_ROUNDS_OF_OTHERS: Final = 3

GOALS: Final = {
    "flush inserts": {"postgresql": 1.10, "sqlite": 1.10},
    "flush updates": {"postgresql": 1.20, "sqlite": 1.20},
    "flush deletes": {"postgresql": 1.20, "sqlite": 1.40},
    "execute(update)": {"postgresql": 1.7, "sqlite": 3.0},
    "execute(delete)": {"postgresql": 2.2, "sqlite": 4.0},
    "executemany": {"postgresql": 1.1, "sqlite": 1.3},
    "one row": {"postgresql": 1.3, "sqlite": 1.3},
    "reads of a list": {"postgresql": 1.05, "sqlite": 1.05},
}
_NOT_AUDITED_GOAL: Final = 5.0
"""Microseconds a statement on a table that is not audited may pay."""


def timed(engine: Engine, job: Job, model: Any) -> float:
    """Return the seconds that one of a job takes, with its COMMIT."""
    fill(engine, model, job.rows)
    _once(engine, job, model)
    return _timed(engine, job, model)


def _once(engine: Engine, job: Job, model: Any) -> None:
    """Do a job without keeping it: what is looked up once in a process is none of what is measured."""
    with Session(engine) as session:
        job.prepare(session, model)()
        session.rollback()


def _timed(engine: Engine, job: Job, model: Any) -> float:
    with Session(engine) as session:
        work = job.prepare(session, model)
        gc.collect()
        start = time.perf_counter()
        work()
        session.commit()
        return (time.perf_counter() - start) / job.times


def measure(vendor: str, engine: Engine) -> Iterator[Figure]:
    import otel_audit
    from otel_audit.config.model import SQLAlchemyConfig
    from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor

    Base.metadata.create_all(engine)
    instrumentor = SQLAlchemyAuditInstrumentor()
    with configuration() as config:
        audited = SQLAlchemyConfig(models=["bench_article"])
        pipeline = otel_audit.setup(msgspec.structs.replace(config, sqlalchemy=audited), instrument=False)
        assert pipeline is not None

        def with_audit(job: Job, model: Any) -> float:
            fill(engine, model, job.rows)
            instrumentor.instrument(**job.settings)
            try:
                _once(engine, job, model)
                pipeline.flush(60)
                before = pipeline.health.emitted
                taken = _timed(engine, job, model)
                recorded = pipeline.health.emitted > before
            finally:
                instrumentor.uninstrument()
                # What is left to send is sent on our time, not on that of whoever comes next.
                pipeline.flush(60)
            if recorded is not (model is Article):
                raise RuntimeError(f"{job.what}: recorded: {recorded}; what was measured is no figure")
            return taken

        try:
            for name, job in JOBS.items():
                modes = {
                    "plain SQLAlchemy": partial(timed, engine, job, Article),
                    "plain SQLAlchemy again": partial(timed, engine, job, Article),
                    "otel-audit": partial(with_audit, job, Article),
                }
                yield from _compare(f"{job.what}, {vendor}", modes, GOALS.get(name, {}).get(vendor))
            for job in (NOT_AUDITED, NOT_READ):
                modes = {
                    "plain": partial(timed, engine, job, Unaudited),
                    "audited": partial(with_audit, job, Unaudited),
                }
                yield _not_audited(f"{job.what}, {vendor}", modes)
            require_posts(config.sink.endpoint)
        finally:
            otel_audit.shutdown()


def _compare(name: str, modes: dict[str, Callable[[], float]], goal: float | None) -> Iterator[Figure]:
    for mode in modes.values():
        mode()
    times = interleaved(modes, _ROUNDS)
    yield from beside_plain(name, times, "plain SQLAlchemy", goal)


def _not_audited(name: str, modes: dict[str, Callable[[], float]]) -> Figure:
    for mode in modes.values():
        mode()
    times = interleaved(modes, _ROUNDS)
    more = sorted(with_us - plain for with_us, plain in zip(times["audited"], times["plain"], strict=True))
    return Figure(
        name=name,
        value=more[len(more) // 2] * 1e6,
        unit="µs more",
        goal=_NOT_AUDITED_GOAL,
        note=f"middle half {quantile(more, 0.25) * 1e6:.1f}–{quantile(more, 0.75) * 1e6:.1f}; "
        f"plain {sorted(times['plain'])[_ROUNDS // 2] * 1e6:.0f} µs",
    )


def continuum(vendor: str, engine: Engine) -> Iterator[Figure]:
    """Measure SQLAlchemy-Continuum against SQLAlchemy without, in a process without us."""
    from sqlalchemy.orm import DeclarativeBase, configure_mappers
    from sqlalchemy_continuum import make_versioned, versioning_manager

    from benchmarks.sqlalchemy_tables import columns

    make_versioned(user_cls=None)

    class Versioned(DeclarativeBase):
        pass

    # Continuum makes the class of the versions of the columns in the class itself.
    made = {"__tablename__": "bench_versioned", "__versioned__": {}, **columns()}
    versioned_article = type("VersionedArticle", (Versioned,), made)
    configure_mappers()
    Base.metadata.create_all(engine)
    Versioned.metadata.create_all(engine)
    versioning_manager.options["versioning"] = False  # what it is switched off by; its listeners stay

    def versioned(job: Job) -> float:
        versioning_manager.options["versioning"] = True
        try:
            return timed(engine, job, versioned_article)
        finally:
            versioning_manager.options["versioning"] = False

    for name in ("flush inserts", "flush updates", "flush deletes"):
        job = JOBS[name]
        modes = {"plain": partial(timed, engine, job, Article), "continuum": partial(versioned, job)}
        for mode in modes.values():
            mode()
        times = interleaved(modes, _ROUNDS_OF_OTHERS)
        yield Figure(
            name=f"{job.what}, {vendor}: SQLAlchemy-Continuum",
            value=ratio(times["continuum"], times["plain"]),
            unit="x plain",
            noise=noise(times["continuum"], times["plain"]),
            note="for comparison",
        )


def main(arguments: list[str]) -> None:
    """Measure one kind on one database, or all of them, each in a process of its own."""
    if arguments:
        kind, vendor = arguments
        engine = connect(json.loads(os.environ["BENCH_DATABASE"]))
        report({"ours": measure, "continuum": continuum}[kind](vendor, engine))
        return
    for vendor in VENDORS:
        for kind in ("ours", "continuum"):
            with entries(vendor) as [entry]:
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.sqlalchemy_writes", kind, vendor],
                    check=True,
                    env=environment(entry),
                )


if __name__ == "__main__":
    main(sys.argv[1:])
