"""What is counted of SQLAlchemy: ``python -m benchmarks.instructions.sqlalchemy_work KIND [JOB…]``.

Each job is done twice uncounted, then three times counted, COMMIT included. No thread sends: it would be
counted.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from functools import partial
from unittest import mock

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.instructions.counter import Counter
from benchmarks.pipelines import configuration
from benchmarks.sqlalchemy_jobs import JOBS, NOT_AUDITED
from benchmarks.sqlalchemy_tables import Article, Base, Unaudited, connect

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

    import otel_audit
    from otel_audit.config.model import SQLAlchemyConfig
    from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
    from otel_audit.pipeline import provider

    with ExitStack() as stack:
        config = stack.enter_context(configuration())
        config = msgspec.structs.replace(config, sqlalchemy=SQLAlchemyConfig(models=["bench_article"]))
        stack.enter_context(mock.patch.object(provider, "start", partial(provider.start, ship=False)))
        pipeline = otel_audit.setup(config, instrument=False)
        stack.callback(otel_audit.shutdown)
        assert pipeline is not None
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
