"""Records of calls, where a request is written to its connection: redirects and retries one by one.

``http.client`` stands for all that is built on it (urllib, urllib3, requests, zeep, suds, botocore …), so
none of them is recorded twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from otel_audit.instrumentation.http_clients.calls import aiohttp, connections, httpcore, responses, urllib3

if TYPE_CHECKING:
    from otel_audit.http.outgoing.calls import Calls
    from otel_audit.instrumentation.patching import Patch


def table(calls: Calls) -> Iterator[Patch]:
    """List what is wrapped to record calls."""
    for client in (connections, responses, urllib3, httpcore, aiohttp):
        yield from client.table(calls)
