"""Celery tasks over a broker of files."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

_QUEUE = Path(os.environ["SMALL_QUEUE"])
(_QUEUE / "control").mkdir(parents=True, exist_ok=True)

app = Celery("small", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(_QUEUE),
        "data_folder_out": str(_QUEUE),
        "control_folder": str(_QUEUE / "control"),
    },
    task_ignore_result=True,
)


@app.task  # type: ignore[untyped-decorator]
def make() -> str:
    """Create a group."""
    from tests.servers.small.urls import make_group

    return make_group()


@app.task(soft_time_limit=0.5)  # type: ignore[untyped-decorator]
def make_until_limited() -> None:
    """Create groups until the time is over, and then note that it was said so."""
    from tests.servers.small.urls import make_group

    try:
        for _ in range(10_000):
            make_group()
    except SoftTimeLimitExceeded:
        (_QUEUE / f"limited-{uuid.uuid4()}").touch()
