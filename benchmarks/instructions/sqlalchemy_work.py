"""What is counted of SQLAlchemy: ``python -m benchmarks.instructions.sqlalchemy_work KIND [JOB…]``.

Each job is done twice uncounted, then three times counted, COMMIT included. No thread sends: it would be
counted.
"""

from __future__ import annotations

import json
import os
import sys

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.instructions.counter import Counter
from benchmarks.pipelines import without_sender
from benchmarks.sqlalchemy_jobs import JOBS, NOT_AUDITED
from benchmarks.sqlalchemy_tables import Article, Base, Unaudited, connect
from otel_audit.config.model import SQLAlchemyConfig

_WARM = 2
_COUNTED = 3
NAMES = {**JOBS, "select, not audited": NOT_AUDITED}


def _count(engine: Engine, names: list[str]) -> None:
    counter = Counter()
    for name in names:
        job = NAMES[name]
        model = Unaudited if job is NOT_AUDITED else Article
        for repeat in range(_WARM + _COUNTED):
            with Session(engine) as session:
                work = job.prepare(session, model)

                def whole(work=work, session=session) -> None:  # type: ignore[no-untyped-def]
                    work()
                    session.commit()

                if repeat < _WARM:
                    whole()
                else:
                    counter(name, whole)


def main(kind: str, names: list[str]) -> None:
    """Count the jobs ``names`` in a process of one ``kind``: plain or audited."""
    engine = connect(json.loads(os.environ["BENCH_DATABASE"]))
    Base.metadata.create_all(engine)
    if kind == "plain":
        _count(engine, names)
        return

    from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor

    section = SQLAlchemyConfig(models=["bench_article"])
    with without_sender(instrument=False, sqlalchemy=section) as pipeline:
        for name in names:
            before = pipeline.status().bytes
            SQLAlchemyAuditInstrumentor().instrument(**NAMES[name].settings)
            _count(engine, [name])
            SQLAlchemyAuditInstrumentor().uninstrument()
            if (pipeline.status().bytes > before) is (NAMES[name] is NOT_AUDITED):
                raise RuntimeError(
                    f"{name}: what was counted is no figure: recorded, or not, against the plan"
                )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
