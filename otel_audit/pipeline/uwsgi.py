"""uWSGI forks in C; its master runs neither Python's fork hooks nor ``atexit``."""

from __future__ import annotations

import sys
from typing import Any


def will_fork() -> bool:
    """Say whether uWSGI's workers, mules and spooler will be forked from this process."""
    uwsgi = _module()
    return (
        uwsgi is not None
        and not uwsgi.worker_id()
        and not uwsgi.mule_id()
        and not getattr(uwsgi, "i_am_the_spooler", lambda: False)()
    )


def has_threads() -> bool:
    """Say whether threads run while uWSGI waits for requests; True outside uWSGI."""
    uwsgi = _module()
    return uwsgi is None or any(uwsgi.opt.get(name) for name in ("enable-threads", "threads"))


def _module() -> Any:
    # uWSGI makes this module itself; nothing of that name can be installed.
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi if hasattr(uwsgi, "worker_id") else None
