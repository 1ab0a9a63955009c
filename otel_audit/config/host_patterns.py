"""Hosts as the configuration names them: ``shop``, ``shop:8001``, ``*.internal``, ``[::1]:8001``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from otel_audit.named_tuples import NamedTuple

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)").fullmatch
_PORT: Final = re.compile(r"[0-9]{1,5}").fullmatch
_PRIVATE: Final = frozenset(
    # RFC 6762 (appendix G), RFC 6761, ICANN's "internal", and what Kubernetes and Consul use.
    {
        *("consul", "corp", "example", "home", "internal", "intranet", "invalid", "lan", "local"),
        *("localhost", "private", "svc", "test"),
    }
)
"""Names that nobody can register: `*.` before them means hosts of one's own."""


class Host(NamedTuple):
    """A host pattern: a name or address in lower case; ``subdomains``: all hosts below that name.

    ``port`` 0: any.
    """

    name: str
    port: int = 0
    subdomains: bool = False


class Hosts:
    """The hosts that a list of the configuration names; entries that are none are passed over."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._hosts = [host for host in map(parsed, entries) if isinstance(host, Host)]
        self.includes = lru_cache(maxsize=1024)(self._includes)
        """Say whether a host (name or address, as a client connects to it) and port are among them."""

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def _includes(self, host: str, port: int) -> bool:
        name = normalized(host)
        return any(
            (not known.port or known.port == port)
            and (name.endswith(f".{known.name}") if known.subdomains else name == known.name)
            for known in self._hosts
        )

    def includes_address(self, address: str) -> bool:
        """Say whether ``host:port`` is among them."""
        host, colon, port = address.rpartition(":")
        return bool(colon) and _PORT(port) is not None and self.includes(host, int(port))


def address_of(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    name = normalized(host)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def normalized(host: str) -> str:
    """Return a host name or address as patterns have it: lower case, ASCII, no brackets, no final dot."""
    name = host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
    if not name.isascii():
        try:
            return name.encode("idna").decode("ascii")
        except UnicodeError:
            return name
    if ":" in name:
        try:
            return str(ipaddress.IPv6Address(name))
        except ValueError:
            return name
    return name


def parsed(entry: str) -> Host | str:
    """Read an entry of the configuration; what is wrong with it is a text."""
    text = entry.strip()
    if "://" in text or "/" in text:
        return f"{entry!r} is not a host: write name or name:port, without scheme and path"
    if "@" in text:
        return "an entry has '@': write name or name:port, without user and password"
    if text in ("", "*"):
        return f"{entry!r} names no host: write a host or a domain, such as 'fulfilment:8001' or '*.internal'"
    name, port = _divided(text)
    if port is None:
        return f"{entry!r}: its port is not a number from 1 to 65535"
    subdomains = name.startswith("*.")
    name = name if name.startswith("[") else normalized(name.removeprefix("*."))
    if "*" in name or "?" in name:
        return f"{entry!r}: a wildcard stands for all subdomains, and only at the beginning: '*.internal'"
    if ":" in name:
        return Host(name, port) if _is_ipv6(name) and not subdomains else f"{entry!r} is not a host"
    labels = name.split(".")
    if not all(map(_LABEL, labels)):
        return f"{entry!r} is not a host: write name or name:port, such as 'fulfilment.internal:8001'"
    if subdomains and len(labels) == 1 and name not in _PRIVATE:
        return f"{entry!r} would be every host below .{name}: write a domain of your own, '*.example.{name}'"
    return Host(name, port, subdomains)


def host_problem(entry: str) -> str:
    """Say what is wrong with an entry of the configuration; empty if nothing is."""
    found = parsed(entry)
    return found if isinstance(found, str) else ""


def _divided(text: str) -> tuple[str, int | None]:
    """Divide into host and port: 0 if there is none, None if it is not valid."""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket:
            return text, 0
        port = rest.removeprefix(":") or "?" if rest else ""
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
        port = port or "?"
    else:
        name, port = text, ""
    if not port:
        return name, 0
    return name, int(port) if _PORT(port) is not None and 0 < int(port) < 65536 else None


def _is_ipv6(name: str) -> bool:
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True
