"""Who may talk to the server: tokens and what each opens, and which addresses may be listened on without."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from otel_audit.config.model import ServerConfig
from otel_audit.errors import ConfigurationError

Right: TypeAlias = Literal["read", "write", "admin"]

RIGHTS: Final[tuple[Right, ...]] = ("read", "write", "admin")


class Access:
    """Knows the token of each right; a right without one is everybody's.

    The token to administer opens the other two as well.
    """

    def __init__(self, tokens: Mapping[Right, str]) -> None:
        self._digests = {right: _digest(token) for right, token in tokens.items() if token}

    def rights(self, presented: Iterable[str]) -> frozenset[Right]:
        """Return what the presented secrets open, in time that does not depend on the tokens."""
        given = [_digest(secret) for secret in presented]
        matched = {
            right
            for right, digest in self._digests.items()
            if sum(hmac.compare_digest(digest, each) for each in given)
        }
        return frozenset(RIGHTS if "admin" in matched else matched)

    def named(self, presented: Iterable[str]) -> str:
        """Return the setting whose token was presented, for a record of who asked; empty if none was."""
        rights = self.rights(presented)
        if rights and len(self._digests) == len(RIGHTS) and len(set(self._digests.values())) == 1:
            return "token"
        return next((f"{right}_token" for right in ("admin", "read", "write") if right in rights), "")

    def open(self, right: Right) -> bool:
        """Return whether a right needs no token."""
        return right not in self._digests

    def allows(self, right: Right, presented: Iterable[str]) -> bool:
        """Return whether these secrets, or none, are enough."""
        return self.open(right) or right in self.rights(presented)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def presented(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Return the secrets of a request's headers: those of ``Authorization`` and ``X-ClickHouse-Key``.

    Headers only: addresses are kept in logs and histories.
    """
    secrets: list[str] = []
    for name, value in headers:
        if name == "authorization" and (secret := bearer(value)):
            secrets.append(secret)
        elif name == "x-clickhouse-key" and value:
            secrets.append(value)
    return secrets


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


def configured(options: ServerConfig) -> dict[Right, str]:
    """Return the token of each right as configured; empty where there is none."""
    return {
        "read": options.read_token or options.token,
        "write": options.write_token or options.token,
        "admin": options.admin_token or options.token,
    }


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(options: ServerConfig) -> None:
    """Refuse tokens that headers cannot carry, and to be open to other machines.

    Raises:
        ConfigurationError: a token is not plain ASCII, tokens contradict each other, or the address is public
            and something needs no token.
    """
    for name in ("token", "read_token", "write_token", "admin_token"):
        token = getattr(options, name)
        if not (token.isascii() and token.isprintable() and token == token.strip()):
            raise ConfigurationError(
                f"server.{name} has characters that HTTP headers cannot carry: use letters, digits and "
                "punctuation (`openssl rand -hex 32` makes a good one)"
            )
    tokens = configured(options)
    if options.no_token and tokens["read"]:
        raise ConfigurationError(
            "server.no_token lets everyone read, but a token to read is set "
            f"(server.{('read_token' if options.read_token else 'token')}): remove one of them"
        )
    if is_loopback(options.host):
        return
    if not tokens["write"]:
        raise ConfigurationError(
            f"server.host is {options.host!r}, which other machines can reach, but there is no "
            f"token{(' to write' if tokens['read'] else '')}: set "
            f"OTEL_AUDIT_SERVER_{('WRITE_' if tokens['read'] else '')}TOKEN (or "
            f"`{('write_' if tokens['read'] else '')}token` in [server]), or listen on 127.0.0.1"
        )
    if options.no_token:
        raise ConfigurationError(
            f"server.host is {options.host!r}, which other machines can reach: server.no_token is "
            "allowed only on loopback"
        )
