"""What is counted of records of requests: ``python -m benchmarks.instructions.request_work KIND [JOB…]``.

The requests of ``benchmarks/server_requests.py``: twenty uncounted, then three times ten counted. The kind
says how much is recorded. No thread sends: it would be counted.
"""

from __future__ import annotations

import sys
from typing import Final

from benchmarks import server_requests
from benchmarks.instructions.counter import Counter
from benchmarks.pipelines import without_sender
from otel_audit.config.model import RequestsConfig

NAMES: Final = {"Django request": server_requests.django, "FastAPI request": server_requests.fastapi}
KINDS: Final = ("nothing to audit", "metadata", "request_response")
EACH: Final = 10
_WARM: Final = 20
_COUNTED: Final = 3


def main(kind: str, names: list[str]) -> None:
    """Count the requests ``names`` in a process that records them as ``kind`` says."""
    counter = Counter()
    with without_sender(instrument=False, requests=RequestsConfig(enabled=True)) as pipeline:
        for name in names:
            requests = NAMES[name](pipeline.config)
            requests.ready[kind]()
            before = pipeline.status().bytes

            def ten() -> None:
                for _ in range(EACH):
                    requests.once()  # noqa: B023

            for _ in range(_WARM):
                requests.once()
            for _ in range(_COUNTED):
                counter(name, ten)
            if (pipeline.status().bytes > before) is not (kind in KINDS[1:]):
                raise RuntimeError(f"{kind}: what was counted is no figure")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
