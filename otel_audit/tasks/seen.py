"""Which tasks this machine has seen: a file for each, so that all workers of a spool directory share it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Final

_PERIODS: Final = 2


class Seen:
    """Remembers keys for at least ``lifetime`` seconds.

    Args:
        directory: the spool's; files lie in a directory of their own in it.
        lifetime: seconds.
        now: seconds since the epoch.
    """

    def __init__(self, directory: Path, lifetime: float, now: Callable[[], float] = time.time) -> None:
        self._directory = directory.absolute() / "seen"
        self._period = max(60.0, lifetime)
        self._now = now
        self._current = -1

    def first(self, key: str) -> bool:
        """Say whether this is the first time that ``key`` is asked for; true where it cannot be noted."""
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        period = int(self._now() // self._period)
        if period != self._current:
            self._forget(period)
            self._current = period
        for before in range(1, _PERIODS):
            if (self._directory / str(period - before) / name).exists():
                return False
        try:
            os.close(os.open(self._directory / str(period) / name, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        except OSError:
            return True
        return True

    def _forget(self, period: int) -> None:
        """Make the directory of a period, and remove those that are over."""
        with suppress(OSError):
            (self._directory / str(period)).mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in self._directory.iterdir():
                if each.name.isdigit() and int(each.name) <= period - _PERIODS:
                    rmtree(each, ignore_errors=True)
