"""Keep web pages out: any page in a browser on this machine can send requests to a loopback port.

Two ways lead a page here. It sends a request to our address: the browser then names the page in ``Origin`` or
says ``Sec-Fetch-Site: cross-site``, at least on what could write. Or its own name is made to resolve to our
address (DNS rebinding): to the browser that is the page's own server, but ``Host`` still has that name.

https://fetch.spec.whatwg.org/#origin-header, https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from otel_audit.errors import ConfigurationError
from otel_audit.named_tuples import NamedTuple
from otel_audit.server.access import Access, Right, presented

Refusal: TypeAlias = Callable[[Headers, int, str], Response]
"""Makes the answer to a refused request, of its headers, a status and a message."""

HEALTH: Final = frozenset({"/health", "/ready", "/ping", "/replicas_status"})
"""Paths that say only whether the server works; a load balancer asks for them by any name."""
_OF_FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""What a page may send without asking us first (CORS)."""
_CREDENTIALS: Final = ("authorization", "x-clickhouse-user", "x-clickhouse-key")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SHOWN: Final = 100


class _Address(NamedTuple):
    host: str
    port: int | None


class Hosts:
    """The names this server answers to when no token says that a request is not a page's."""

    def __init__(self, listening: str, names: Iterable[str]) -> None:
        known = {"localhost", listening.lower()}
        for name in names:
            address = _address(name)
            if address is None or address.port is not None:
                raise ConfigurationError(
                    f"server.hosts has {name!r}: write names or addresses without scheme and port, such as "
                    "'store' or 'audit.example.org'"
                )
            known.add(address.host)
        self._known = known

    def answers(self, host: str, reached: str) -> bool:
        """Return whether ``Host`` is a name of ours, or the address at which a connection reached us."""
        address = _address(host)
        if address is None:
            return False
        if address.host in self._known:
            return True
        try:
            named = ipaddress.ip_address(address.host)
            return named.is_loopback or named == _plain(ipaddress.ip_address(reached))
        except ValueError:
            return False


def from_elsewhere(headers: Headers) -> str:
    """Return why a request is from the page of another server; empty if it is not."""
    if "cross-site" in (value.strip().lower() for value in headers.getlist("sec-fetch-site")):
        return "requests from web pages of other sites are refused (Sec-Fetch-Site: cross-site)"
    hosts = {_authority(host) for host in headers.getlist("host")}
    for origin in headers.getlist("origin"):
        own = _of_origin(origin)
        if own is None or hosts != {own}:
            return f"requests from web pages of other servers are refused (Origin: {_shown(origin)})"
    return ""


def from_a_page(headers: Headers) -> str:
    """Return why a request may be from a page, of whatever server; empty if no page can have sent it."""
    if mark := mark_of_a_page(headers):
        return mark
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in _OF_FORMS:
        return f"its Content-Type is {content_type}, which an HTML form sends; use application/octet-stream"
    if not content_type and not any(name in headers for name in _CREDENTIALS):
        return "it has neither a Content-Type nor credentials; use application/octet-stream"
    return ""


def mark_of_a_page(names: Iterable[str]) -> str:
    """Return which header shows that a browser sent a request; empty if none does."""
    for name in names:
        if name in ("origin", "referer") or name.startswith("sec-fetch-"):
            return f"it has the header {name.title()}, which browsers send"
    return ""


class NoPages:
    """An application around another one, which pages of other servers do not get to.

    Args:
        app: the other one.
        access: which rights need a token.
        rights: those that the port gives; if one is everybody's, ``Host`` must be a name of ours.
        hosts: those names.
        refusal: how this port says no.
    """

    def __init__(
        self, app: ASGIApp, access: Access, rights: Sequence[Right], hosts: Hosts, refusal: Refusal
    ) -> None:
        self._app = app
        self._access = access
        self._open = any(access.open(right) for right in rights)
        self._hosts = hosts
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if reason := from_elsewhere(headers):
                await self._refusal(headers, 403, reason)(scope, receive, send)
                return
            if self._open and scope["path"] not in HEALTH and (reason := self._misdirected(scope, headers)):
                await self._refusal(headers, 421, reason)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _misdirected(self, scope: Scope, headers: Headers) -> str:
        reached = (scope.get("server") or ("", None))[0]
        hosts = headers.getlist("host")
        if len(hosts) == 1 and self._hosts.answers(hosts[0], reached):
            return ""
        if self._access.rights(presented(headers.items())):
            return ""
        named = (
            f"requests for the host name {_shown(hosts[0])}"
            if hosts
            else "requests without a host name (header Host)"
        )
        return (
            f"without a token this server does not accept {named}: add the name to `hosts` in [server] "
            "(OTEL_AUDIT_SERVER_HOSTS), or send a token"
        )


@lru_cache(64)
def _address(host: str) -> _Address | None:
    """Take apart what a ``Host`` header has; None if it is not one name or address and perhaps a port."""
    host = host.strip()
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if not name or parts.netloc != host or "@" in host or any(each.isspace() for each in host):
        return None
    name = name.removesuffix(".")
    try:
        name = str(_plain(ipaddress.ip_address(name)))
    except ValueError:
        if ":" in name:
            return None
    return _Address(name, port)


def _of_origin(origin: str) -> _Address | None:
    scheme, _, host = origin.strip().lower().partition("://")
    return _authority(host) if scheme in _DEFAULT_PORTS else None


def _authority(host: str) -> _Address | None:
    """Take apart a host and port, without the port that browsers leave out."""
    address = _address(host)
    if address is not None and address.port in _DEFAULT_PORTS.values():
        return _Address(address.host, None)
    return address


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
