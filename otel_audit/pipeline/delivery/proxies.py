"""Which proxy leads to the sink: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

Read as ``requests`` reads them, and with it the OTLP/HTTP exporters of OpenTelemetry's SDK: one environment
means the same for spans and for audit records.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from otel_audit.errors import ConfigurationError
from otel_audit.named_tuples import NamedTuple

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy to go through; ``authorization`` is the value of ``Proxy-Authorization``, or empty."""

    scheme: str
    host: str
    port: int
    authorization: str

    @property
    def where(self) -> str:
        """Its address, without the password."""
        return f"{self.scheme}://{self.host}:{self.port}"


def proxy_for(url: SplitResult) -> Proxy | None:
    """Return the proxy the environment names for an address, None to go there directly.

    Raises:
        ConfigurationError: it is one we cannot speak to (SOCKS), or no address.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies_environment

    proxies = getproxies_environment()
    found = proxies.get(url.scheme) or proxies.get("all")
    host = url.hostname or ""
    if not found or _is_exempt(url, host, proxies.get("no", "")):
        return None
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        valid = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(
            f"{url.scheme.upper()}_PROXY or ALL_PROXY is not the address of an HTTP proxy, such as "
            f"http://proxy.example:3128: correct it, or add {host} to NO_PROXY"
        )
    authorization = ""
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = f"Basic {base64.b64encode(secret).decode()}"
    return Proxy(parts.scheme, parts.hostname or "", port, authorization)


def _is_exempt(url: SplitResult, host: str, no_proxy: str) -> bool:
    """Say whether NO_PROXY names a host: by its end, with its port, or as a network (10.0.0.0/8)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if not entry:
            continue
        if entry in ("*", host, f".{host}"):
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                pass
        names = (host, f"{host}:{url.port or _DEFAULT_PORTS[url.scheme]}")
        if address is None and any(name.endswith(entry) for name in names):
            return True
    return False
