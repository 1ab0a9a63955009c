"""What is counted of SQLAlchemy: ``python -m benchmarks.instructions.sqlalchemy_work KIND [JOB…]``.

Each job is done twice uncounted, then three times counted, COMMIT included. No thread sends: it would be
counted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.instructions.counter import Counter
from benchmarks.pipelines import without_sender
from benchmarks.sqlalchemy_jobs import JOBS, NOT_AUDITED, NOT_READ
from benchmarks.sqlalchemy_tables import Article, Base, Unaudited, connect, fill
from otel_audit.config.model import SQLAlchemyConfig

_WARM = 2
_COUNTED = 3
NAMES = {**JOBS, "select, not audited": NOT_AUDITED, "select, others read": NOT_READ}
_SILENT = (NOT_AUDITED, NOT_READ)


def _count(engine: Engine, name: str, emitted: Callable[[], int] | None = None) -> None:
    """Count a job; where it is audited, ``emitted`` says how many records there are so far."""
    counter = Counter()
    job = NAMES[name]
    model = Unaudited if job in _SILENT else Article
    for repeat in range(_WARM + _COUNTED):
        fill(engine, model, job.rows)
        before = emitted() if emitted else 0
        with Session(engine) as session:
            work = job.prepare(session, model)

            def whole(work=work, session=session) -> None:  # type: ignore[no-untyped-def]
                work()
                session.commit()

            if repeat < _WARM:
                whole()
            else:
                counter(name, whole)
        if emitted and (emitted() > before) is (job in _SILENT):
            raise RuntimeError(f"{name}: what was counted is no figure: recorded, or not, against the plan")


def main(kind: str, names: list[str]) -> None:
    """Count the jobs ``names`` in a process of one ``kind``: plain or audited."""
    engine = connect(json.loads(os.environ["BENCH_DATABASE"]))
    Base.metadata.create_all(engine)
    if kind == "plain":
        for name in names:
            _count(engine, name)
        return

    from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor

    section = SQLAlchemyConfig(models=["bench_article"])
    with without_sender(instrument=False, sqlalchemy=section) as pipeline:
        for name in names:
            SQLAlchemyAuditInstrumentor().instrument(**NAMES[name].settings)
            _count(engine, name, lambda: pipeline.health.emitted)
            SQLAlchemyAuditInstrumentor().uninstrument()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
