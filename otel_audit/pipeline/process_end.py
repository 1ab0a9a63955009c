"""How processes end other than through ``atexit``: by a signal, by ``os._exit``, in a pool of workers.

Each such end gets the chance to end the stream and to send what is left of it; nobody's exit status changes.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from otel_audit import forks

_LAST: Final = -1000
"""Priority among the finalizers of multiprocessing: the application's own may record something."""
_SPAWNING: Final = ("multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver")
"""Imported by who starts children without a fork of its own."""
_HOSTS: Final = ("uwsgi", "mod_wsgi")
"""Modules of servers that handle signals in C and end the interpreter properly."""
_PATIENCE: Final = 1.0
"""Seconds that work which a signal ends has to say so."""


def has_children() -> bool:
    """Say whether this process has made others that may have left records behind."""
    return forks.has_forked() or any(name in sys.modules for name in _SPAWNING)


# --- signals -----------------------------------------------------------------------------------

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""SIGINT raises KeyboardInterrupt, which leads to ``atexit``."""


class _Handling:
    """What the handler needs, and whether it is at work."""

    rest: Callable[[], object] = staticmethod(lambda: None)
    ending = False
    pid = 0
    tell: Final[list[Callable[[str], object]]] = []

    @classmethod
    def begin_in_child(cls) -> None:
        cls.ending = False


forks.after_in_child(_Handling.begin_in_child)


def handle_signals(rest: Callable[[], object]) -> None:
    """Have ``rest`` called before a signal ends this process, where nobody else handles that signal.

    Only from the main thread, only where the default stands. ``rest`` must take no lock.
    """
    _Handling.rest = staticmethod(rest)
    if threading.current_thread() is not threading.main_thread() or any(
        host in sys.modules for host in _HOSTS
    ):
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL and not _handled_in_c(number):
            with suppress(ValueError, OSError):  # a subinterpreter
                signal.signal(number, _end)


def before_signals_end(tell: Callable[[str], object]) -> None:
    """Have ``tell`` called with the name of a signal that ends this process, in a thread, for a second.

    The signal may have interrupted whoever holds a lock that it takes.
    """
    _Handling.tell.append(tell)


def _tell(number: int) -> None:
    done = _thread.allocate_lock()
    done.acquire()

    def tell() -> None:
        try:
            for each in _Handling.tell:
                with suppress(Exception):  # whatever it is, the process must end
                    each(signal.Signals(number).name)
        finally:
            done.release()

    # Not threading's: it takes a lock that the signal may have interrupted somebody with.
    _thread.start_new_thread(tell, ())
    done.acquire(timeout=_PATIENCE)


def leave_signals() -> None:
    """Put the default back where our handler still stands."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is _end:
                with suppress(ValueError, OSError):
                    signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    """Send what is left, then end by the same signal, so that the parent sees the usual status."""
    if not _Handling.ending and not forks.is_unnoticed():
        _Handling.ending = True
        with suppress(Exception):  # whatever it is, the process must end
            if _Handling.tell:
                _tell(number)
            _Handling.rest()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    _Handling.ending = False  # still here: process 1 of a container, which signals do not end by default


def _handled_in_c(number: int) -> bool:
    """Say whether a handler stands that Python does not know of: faulthandler's, an embedding program's."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


# --- workers -----------------------------------------------------------------------------------


def arrange(rest: Callable[[], object]) -> None:
    """Have ``rest`` called where this process, which has just recorded something, ends without ``atexit``.

    Children of multiprocessing and of billiard end by ``os._exit`` once their finalizers have run, those of
    Celery's pool once ``worker_process_shutdown`` has been sent. Only what the application has imported is
    looked at.
    """
    for package in ("multiprocessing", "billiard"):
        process, util = (sys.modules.get(f"{package}.{name}") for name in ("process", "util"))
        if process is not None and util is not None and _is_child(process):
            util.Finalize(None, rest, exitpriority=_LAST)
    celery: Any = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(lambda **_: rest(), weak=False)


def _is_child(process: Any) -> bool:
    return getattr(process.current_process(), "_parent_pid", None) is not None
