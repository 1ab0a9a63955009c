"""Which requests are not recorded at all, by path and by the address of the client: pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from otel_audit.config.globs import Globs, matcher
from otel_audit.config.sections.requests import RequestsConfig

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ignored:
    """What ``requests.ignore_paths`` and ``requests.ignore_addresses`` name."""

    def __init__(self, section: RequestsConfig) -> None:
        self._path = matcher(Globs.of(section.ignore_paths)) if section.ignore_paths else None
        self._networks = tuple(network(text) for text in section.ignore_addresses)
        self.by_address = bool(self._networks)

    def path(self, path: str) -> bool:
        """Say whether requests for ``path`` are not recorded."""
        return self._path is not None and bool(self._path(path))

    def address(self, address: str) -> bool:
        """Say whether requests of a client are not recorded; an address that is none is."""
        return bool(address) and _within(address, self._networks)


def network(text: str) -> _Network:
    """Return the network that an address or a network stands for.

    Raises:
        ValueError: it is neither.
    """
    return ipaddress.ip_network(text, strict=False)


@lru_cache(maxsize=4096)
def _within(address: str, networks: tuple[_Network, ...]) -> bool:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(known in each for each in networks if each.version == known.version)
