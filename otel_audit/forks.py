"""Notice that this process is a forked child, also after a fork that ran none of Python's hooks.

uWSGI forks its workers in C. Such a child holds whatever its parent held: locks that nobody will release,
files, random numbers that its siblings hold as well. So whoever keeps state of a process registers with
:func:`after_in_child` how it begins anew, and calls :func:`check` before it reads any of it, locks included.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_log: Final = logging.getLogger("otel_audit")
_getpid = os.getpid


def _wiped_in_children() -> memoryview | None:
    """Return memory that every fork gives its child as zeros; None where the system cannot do that.

    To read it is ten times cheaper than to ask for the process id: it takes no system call.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):
            page.madvise(_NO_ADVICE)
            return None  # an emulator that takes any advice, and heeds none
        page.madvise(_WIPE_ON_FORK)
    except (AttributeError, OSError):  # not Linux
        return None
    page[0] = 1
    return memoryview(page)


_WIPE_ON_FORK: Final = 18
"""``MADV_WIPEONFORK`` of Linux 4.14 and later, madvise(2); :mod:`mmap` has no name for it."""
_NO_ADVICE: Final = 0x7FFF


class _Process:
    """Which process this was when somebody last looked."""

    pid = _getpid()
    beginning = 0
    forked = False


_process: Final = _Process()
_wiped: Final = _wiped_in_children() or bytearray(1)
"""Its first byte is 0 where only the process id tells whether this is a child."""
_callbacks: Final[list[Callable[[], object]]] = []
_mutexes: Final[dict[int, threading.RLock]] = {}
"""By process id: a mutex inherited from the parent may be held by a thread that does not exist here."""


def after_in_child(callback: Callable[[], object]) -> None:
    """Have ``callback`` called in every forked child before anything of ours is used there.

    Callbacks run in the order they were registered in. They must take no lock of the parent.
    """
    _callbacks.append(callback)


def check() -> None:
    """Begin anew if this is a forked child and nobody has noticed."""
    if not _wiped[0] and _process.pid != _getpid():
        _begin_in_child()


def process_id() -> int:
    """Return ``os.getpid()``, nearly always without a system call; begins nothing anew."""
    return _process.pid if _wiped[0] else _getpid()


def is_unnoticed() -> bool:
    """Say whether this is a forked child that has used nothing of ours yet; takes no lock."""
    return _process.pid != process_id()


def has_forked() -> bool:
    """Say whether this process has made children by ``os.fork``; uWSGI's are not noticed."""
    return _process.forked and not is_unnoticed()


def _begin_in_child() -> None:
    pid = _getpid()
    with _mutexes.setdefault(pid, threading.RLock()):
        # The second condition: a callback, or a signal handler that interrupted one, asks again.
        if _process.pid == pid or _process.beginning == pid:
            return
        _process.beginning = pid
        _process.forked = False
        try:
            for callback in _callbacks:
                try:
                    callback()
                except Exception:  # noqa: BLE001 - the others must begin anew all the same
                    _log.exception("otel-audit: a forked child process could not reset its audit state")
        finally:
            _process.pid = pid
            if isinstance(_wiped, memoryview):
                _wiped[0] = 1


def _forked() -> None:
    _process.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child, after_in_parent=_forked)
