"""At which server a database is, by the settings of its connection: nothing is asked of anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_audit.capture.transactions.connection import NO_ADDRESS
from otel_audit.interruptions import faults

_NOT_A_HOST: Final = ("/", "@", "\\")  # sockets and pipes of this machine
_SEVERAL: Final = ","


def server_address(settings: Mapping[str, Any]) -> tuple[str, int]:
    """Return ``server.address`` and ``server.port`` of an entry of ``DATABASES``.

    Empty for a file or a socket, and where several hosts are named: which of them answers is known by asking
    only. The port is 0 where the settings leave it to the driver.
    """
    try:
        options = settings.get("OPTIONS") or {}
        if options.get("unix_socket"):
            return NO_ADDRESS
        host = str(settings.get("HOST") or options.get("host") or "").strip()
        if not host or host.startswith(_NOT_A_HOST) or _SEVERAL in host:
            return NO_ADDRESS
        port = str(settings.get("PORT") or options.get("port") or "").strip()
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
        return host, number if number <= 65535 else 0
    except faults():  # settings may be anything
        return NO_ADDRESS
