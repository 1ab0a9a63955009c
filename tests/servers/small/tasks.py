"""Celery tasks over a broker of files."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

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
