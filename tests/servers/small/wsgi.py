"""For WSGI servers. ``SMALL_AT_IMPORT=1``: the process that loads it creates a group."""

from __future__ import annotations

import os
import sys
import threading

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from tests.servers.small.urls import make_group  # noqa: E402

if os.environ.get("SMALL_AT_IMPORT"):
    print("imported:", "otel_audit.pipeline.delivery.rounds" in sys.modules, flush=True)
    make_group()
    print("threads:", *sorted(thread.name for thread in threading.enumerate()), flush=True)

try:
    import uwsgi
except ImportError:
    pass
else:

    def _spooler(_: dict[bytes, bytes]) -> int:
        make_group()
        return int(uwsgi.SPOOL_OK)

    uwsgi.spooler = _spooler
