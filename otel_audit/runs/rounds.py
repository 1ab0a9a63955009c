"""One thread that looks after all runs of this process every few seconds; none while nothing runs."""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

from otel_audit import forks
from otel_audit.interruptions import faults
from otel_audit.otel_api import say_once
from otel_audit.pipeline import process_end

_LINGER: Final = 30.0
"""Seconds that the thread waits for another run before it ends."""
_RENEWAL: Final = 5.0
"""Seconds between rounds where no output is to be sent."""


class Looked(Protocol):
    """What is looked after."""

    def look_after(self) -> None:
        """Do what is due."""
        ...

    def killed(self, signal: str) -> None:
        """Say that a signal is about to end the process."""
        ...


class _Rounds:
    """The runs of this process, and when each is due (time.monotonic)."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.due: dict[Looked, list[float]] = {}
        self.sooner = threading.Event()
        self.wakes = 0.0
        self.thread: threading.Thread | None = None


_rounds = _Rounds()


def _begin_in_child() -> None:
    global _rounds  # noqa: PLW0603 - the parent's runs are looked after by the parent
    _rounds = _Rounds()


forks.after_in_child(_begin_in_child)


def add(run: Looked, period: float) -> None:
    """Look after a run every ``period`` seconds from now on."""
    rounds = _rounds
    period = period or _RENEWAL
    with rounds.mutex:
        at = time.monotonic() + period
        rounds.due[run] = [at, period]
        if at < rounds.wakes:
            rounds.sooner.set()
        if rounds.thread is None:
            rounds.thread = threading.Thread(
                target=_go_round, args=(rounds,), name="otel-audit-runs", daemon=True
            )
            try:
                rounds.thread.start()
            except RuntimeError as error:  # no thread to be had, or the interpreter is ending
                rounds.thread = None
                say_once("What a running command prints is recorded at its end only", error)


def remove(run: Looked) -> None:
    """Look after a run no longer."""
    with _rounds.mutex:
        _rounds.due.pop(run, None)


def _killed(signal: str) -> None:
    """Have all runs say how they end, the innermost first."""
    for run in reversed(list(_rounds.due)):
        run.killed(signal)


process_end.before_signals_end(_killed)


def _go_round(rounds: _Rounds) -> None:
    idle = time.monotonic()
    while True:
        now = time.monotonic()
        with rounds.mutex:
            due = [run for run, (at, _) in rounds.due.items() if at <= now]
            for run in due:
                at = rounds.due[run]
                at[0] = now + at[1]
            if rounds.due:
                idle = now
            elif now - idle > _LINGER:
                rounds.thread = None
                return
            # Of a run that comes meanwhile nobody needs to tell: it is due later.
            rounds.wakes = min((at for at, _ in rounds.due.values()), default=now + _RENEWAL)
        for run in due:
            try:
                run.look_after()
            except faults() as error:  # a run of many; the others go on
                say_once("A running command cannot be looked after", error)
        rounds.sooner.wait(max(rounds.wakes - time.monotonic(), 0.01))
        rounds.sooner.clear()
