"""Who may talk to the server: the bearer token, and which addresses may be listened on without one."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Iterable

from otel_audit.errors import ConfigurationError


class Access:
    """Checks the token of a request; without a configured token everyone is let in."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def allows(self, candidates: Iterable[str | None]) -> bool:
        """Say whether one of the presented secrets is the token, in time that does not depend on it."""
        if not self._token:
            return True
        found = False
        for candidate in candidates:
            found |= hmac.compare_digest((candidate or "").encode("utf-8", "surrogateescape"), self._token)
        return found

    def named(self, candidates: Iterable[str | None]) -> str:
        """Return the name of the token that was presented; empty where none is asked for."""
        return "token" if self._token and self.allows(candidates) else ""


def bearer(authorization: str | None) -> str | None:
    """Take the secret out of an ``Authorization`` header: a bearer token, or the password of basic."""
    scheme, _, secret = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(secret, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def check_access(host: str, token: str) -> None:
    """Refuse to listen on anything but loopback without a token, and a token that headers cannot carry.

    Raises:
        ConfigurationError: the address is public and there is no token, or the token is not plain ASCII.
    """
    if not (token.isascii() and token.isprintable() and token == token.strip()):
        raise ConfigurationError(
            "server.token has characters that HTTP headers cannot carry: use letters, digits and punctuation "
            "(`openssl rand -hex 32` makes a good one)"
        )
    if token or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ConfigurationError(
        f"server.host is {host!r}, which others can reach, but there is no token: "
        "set OTEL_AUDIT_SERVER_TOKEN (or `token` in [server]), or listen on 127.0.0.1"
    )
