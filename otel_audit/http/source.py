"""Where a request comes from: pure functions on the values a server hands over.

Nothing a client can write is believed: ``X-Forwarded-For`` and the request id header count only as far as
trusted proxies stand in front, and a session appears as a hash.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from functools import lru_cache
from typing import Final

from otel_audit.audit_record import Source
from otel_audit.redaction.lazy import pattern

UNKNOWN_ADDRESS: Final = "unknown"
_MAX_USER_AGENT: Final = 512
_REQUEST_ID: Final = pattern(r"[A-Za-z0-9][A-Za-z0-9._:/+=@~-]{0,127}")
_ZONE: Final = pattern(r"[A-Za-z0-9._~-]{1,32}")  # RFC 6874, without percent encoding
_BRACKETED: Final = pattern(r"\[([^\]]+)\](?::\d+)?")


def client_address(peer: str, forwarded_for: str, trusted_proxies: int) -> tuple[str, str]:
    """Say who sent a request, as ``(address, "ipv4" | "ipv6" | "")``.

    Each trusted proxy appends the address it was called from to X-Forwarded-For, so the client is the
    ``trusted_proxies``-th entry from the right; everything left of it is the client's own claim. With fewer
    entries the request did not come through all proxies, and the header cannot be told from a forged one:
    then, and with no trusted proxy, it is the peer of the connection.

    A peer without an address (a Unix socket) is ``("", "")``; an entry that is no address, ``unknown``.
    """
    if trusted_proxies > 0 and forwarded_for:
        hops = forwarded_for.rsplit(",", trusted_proxies)
        if len(hops) > trusted_proxies:
            return _address(hops[1].strip())
        if len(hops) == trusted_proxies:
            return _address(hops[0].strip())
    return _address(peer) if peer else ("", "")


@lru_cache(maxsize=4096)
def _address(text: str) -> tuple[str, str]:
    text = text.strip('"')
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        text = bracketed.group(1)
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN_ADDRESS, ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None and not _ZONE.fullmatch(
            address.scope_id
        ):  # Python takes any text for one
            return UNKNOWN_ADDRESS, ""
        if address.ipv4_mapped is None:
            return str(address), "ipv6"
        address = address.ipv4_mapped  # a dual-stack socket writes IPv4 peers this way
    return str(address), "ipv4"


def user_agent(header: str) -> str:
    """Cut a User-Agent header to what is worth keeping: 512 characters."""
    return header[:_MAX_USER_AGENT]


def source_of(address: tuple[str, str], agent: str, session: str, hmac_key: str) -> Source:
    """Say where a request comes from.

    Args:
        address: what :func:`client_address` says.
        agent: the User-Agent header.
        session: the key of the session, empty if there is none.
        hmac_key: as for :func:`session_hash`.
    """
    client, kind = address
    return Source(id=client, type=kind, user_agent=user_agent(agent), session=session_hash(session, hmac_key))


def forwarded_request_id(header: str) -> str:
    """Accept a request id of letters, digits and ``. _ : / + = @ ~ -``, up to 128; otherwise give ``""``."""
    return header if _REQUEST_ID.fullmatch(header) else ""


def session_hash(session_key: str, hmac_key: str) -> str:
    """Name a session without giving away the key that would take it over.

    ``hmac-sha256:`` or ``sha256:`` and 32 hexadecimal digits: records of one session can be told to belong
    together, also those of its login.
    """
    if not session_key:
        return ""
    key = session_key.encode("utf-8", "surrogatepass")
    if hmac_key:
        return "hmac-sha256:" + hmac.new(hmac_key.encode(), key, hashlib.sha256).hexdigest()[:32]
    return "sha256:" + hashlib.sha256(b"otel-audit session " + key).hexdigest()[:32]
