"""``http.client``: what urllib, urllib3, requests and most other clients send their requests with.

A request is written header by header. The one named ``baggage`` is held back and written last, when
everything that the application and other instrumentations add is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otel_audit.instrumentation.http_clients.wrapping import Wrappers, destination_unknown
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults
from otel_audit.propagation.outgoing import HEADER, Destination

if TYPE_CHECKING:
    from otel_audit.instrumentation.http_clients.wrapping import Propagation

_MODULE: Final = "http.client"
_HELD: Final = "_otel_audit_baggage"


def table(propagation: Propagation) -> list[Patch]:
    """List what is wrapped of the standard library."""
    connection = f"{_MODULE}:HTTPConnection"
    wrappers = _Wrappers(propagation)
    return [
        Patch(
            f"{connection}.putrequest", wrappers.putrequest, "where a request goes is known here", late=True
        ),
        Patch(f"{connection}.putheader", wrappers.putheader, "the application's own baggage", late=True),
        Patch(
            f"{connection}.endheaders", wrappers.endheaders, "the last moment to write a header", late=True
        ),
    ]


class _Held:
    """The request that a connection is writing: its destination, and the baggage it was given."""

    __slots__ = ("baggage", "destination")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.baggage: list[str] = []


class _Wrappers(Wrappers):
    def putrequest(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.putrequest``."""

        def putrequest(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            result = original(connection, method, url, *args, **kwargs)
            held = None
            if self._propagation.outgoing is not None:
                try:
                    held = _Held(destination(connection, url))
                except faults() as error:  # the call goes on
                    destination_unknown(error)
            vars(connection)[_HELD] = held
            return result

        return putrequest

    def putheader(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.putheader``."""

        def putheader(connection: Any, header: Any, *values: Any) -> Any:
            held = vars(connection).get(_HELD)
            if held is not None and len(header) == len(HEADER) and _text(header).lower() == HEADER:
                try:
                    held.baggage += [_text(value) for value in values]
                    return None
                except faults():  # whatever is wrong with it, the original will say
                    pass
            return original(connection, header, *values)

        return putheader

    def endheaders(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.endheaders``."""

        def endheaders(connection: Any, *args: Any, **kwargs: Any) -> Any:
            held = vars(connection).pop(_HELD, None)
            if held is not None:
                before = ",".join(held.baggage)
                outgoing = self._propagation.outgoing
                header = None if outgoing is None else outgoing.header(held.destination, before)
                if header is None:
                    header = before
                if header:
                    connection.putheader(HEADER, header)
            return original(connection, *args, **kwargs)

        return endheaders


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.decode("latin-1") if isinstance(value, bytes) else str(int(value))


def destination(connection: Any, url: str) -> Destination:
    """Say where a request goes: what a connection is to, or behind it if that is a proxy."""
    scheme = "https" if connection.default_port == 443 else "http"  # urllib3's is no HTTPSConnection
    own = (str(connection.host), int(connection.port or 0))
    tunnel = getattr(connection, "_tunnel_host", None)
    if tunnel:
        return Destination.of(scheme, tunnel, getattr(connection, "_tunnel_port", None), own)
    if url[:8].lower().startswith(("http://", "https://")):  # a proxy is asked to forward it, and reads it
        parts = urlsplit(url)
        asked = Destination.of(parts.scheme.lower(), parts.hostname or "", parts.port)
        return Destination("http", asked.host, asked.port, own)
    socks = vars(connection).get("_socks_options")  # urllib3's
    proxy = None if socks is None else (str(socks["proxy_host"]), int(socks["proxy_port"]))
    return Destination.of(scheme, *own, proxy)
