"""The databases things are measured on, each in a process of its own: Django is configured once a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.pipelines import directory
from tests import services

VENDORS = ("sqlite", "postgresql")


@contextmanager
def entries(vendor: str, count: int = 1) -> Iterator[list[dict[str, Any]]]:
    """Return ``DATABASES`` entries of ``count`` new databases."""
    if vendor == "sqlite":
        with directory() as path:
            yield [
                {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path / f"{number}.sqlite3")}
                for number in range(count)
            ]
    else:
        with services.postgresql() as server:
            yield [server.django(server.create_database()) for _ in range(count)]


def environment(entry: dict[str, Any], *, peers: bool = False) -> dict[str, str]:
    """Return the environment in which ``benchmarks.bench`` uses the database ``entry``."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "benchmarks.bench.settings",
        "BENCH_DATABASE": json.dumps(entry),
        "BENCH_PEERS": "1" if peers else "",
    }


def on_each(module: str) -> None:
    """Run ``module`` once a vendor, with the vendor as its argument; its figures are ours."""
    for vendor in VENDORS:
        with entries(vendor) as [entry]:
            subprocess.run(
                [sys.executable, "-m", module, vendor], check=True, env=environment(entry, peers=True)
            )
