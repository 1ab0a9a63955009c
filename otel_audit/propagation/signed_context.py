"""The signed audit context: who began the work, in the baggage of a call or in the header of a message.

A JSON Web Token (RFC 7519) signed with HMAC-SHA256, in the baggage entry :data:`NAME`. The claims:

=======  =========================================================================================
``aud``  host and port of the service called, ``fulfilment.internal:8001``; ``queue/orders`` in a message
``exp``  the second since 1970 after which it is refused
``sub``  id of who began the work; absent if nobody is known
``kind`` what that is: ``user``, ``service``, ``system``; absent if not known
``tid``  tenant; absent if there is none
``rid``  id of the request in which the work began; absent outside of one
``jti``  id of the task that carries it; absent in calls
``try``  how often that task was tried before; absent the first time
=======  =========================================================================================

There is one way to write each: header and claims must be byte for byte what :func:`sign` would have written,
so nothing in it can be read in two ways. The header names the version, the algorithm is that of the key, and
the key is derived from the configured secret: an application that signs its own tokens with the same secret
accepts none of these, and the other way round.

Pure: no configuration, no context, no clock.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

NAME: Final = "otel_audit.context"
"""The key of the baggage entry."""
MAX_BYTES: Final = 512
"""Of the whole entry: name, ``=`` and value."""
LIFETIME: Final = 60
"""Seconds for which a context is valid: a call must have arrived by then."""
CLOCK_SKEW: Final = 30
"""Seconds by which the clocks of two services may differ."""
MAX_LIFETIME: Final = 600
"""Seconds into the future beyond which no expiry is accepted."""

Reason: TypeAlias = Literal[
    "oversized",
    "ambiguous",
    "malformed",
    "unknown_key",
    "forged",
    "expired",
    "not_yet_valid",
    "audience",
    "replayed",
]
"""Why a context was refused."""

_FORM: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})").fullmatch
_LONGEST: Final = MAX_BYTES - len(NAME) - 1
_DERIVED_FOR: Final = b"otel-audit signed context, version 1"


class Refused(Exception):
    """A context is not accepted; ``reason`` is one of :data:`Reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str
    typ: str


class SignedContext(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "audience": "aud",
        "expiry": "exp",
        "initiator": "sub",
        "tenant": "tid",
        "request": "rid",
        "task": "jti",
        "retry": "try",
    },
):
    """What a signed context says."""

    audience: str
    expiry: int
    initiator: str = ""
    kind: str = ""
    tenant: str = ""
    request: str = ""
    task: str = ""
    retry: int = 0


class Key:
    """One key: its id, and what is derived from its secret (text of any characters)."""

    __slots__ = ("_secret", "header", "id")

    def __init__(self, id: str, secret: str) -> None:  # noqa: A002 - its name in every standard
        self.id = id
        self._secret = hmac.digest(secret.encode("utf-8", "surrogatepass"), _DERIVED_FOR, "sha256")
        self.header = _text(msgspec.json.encode(_Header("HS256", id, "audit-context.1+jwt")))

    def __repr__(self) -> str:
        return f"Key({self.id!r})"

    def signature(self, signed: str) -> str:
        """Sign a text of ASCII."""
        return _text(hmac.digest(self._secret, signed.encode("ascii"), hashlib.sha256))


def sign(context: SignedContext, key: Key) -> str:
    """Return the value of the baggage entry; empty if it would be longer than :data:`MAX_BYTES` allows.

    Raises:
        UnicodeEncodeError: a text has half of a surrogate pair.
    """
    signed = f"{key.header}.{_text(_encode(context))}"
    value = f"{signed}.{key.signature(signed)}"
    return value if len(value) <= _LONGEST else ""


def verify(
    value: str,
    keys: Mapping[str, Key],
    is_audience: Callable[[str], bool],
    now: float,
    longest: float = MAX_LIFETIME,
) -> SignedContext:
    """Return what a context says, if one of the keys signed it for this service and it is still valid.

    Args:
        value: of the baggage entry, as it came.
        keys: by :attr:`Key.header`.
        is_audience: says whether ``host:port``, or ``queue/name``, is a name of this service.
        now: seconds since the epoch.
        longest: seconds into the future beyond which no expiry is accepted.

    Raises:
        Refused: and why.
    """
    if len(value) > _LONGEST:
        raise Refused("oversized")
    parts = _FORM(value)
    if parts is None:
        raise Refused("malformed")
    header, claims, signature = parts.groups()
    key = keys.get(header)
    if key is None:
        raise Refused("unknown_key")
    if not hmac.compare_digest(key.signature(f"{header}.{claims}"), signature):
        raise Refused("forged")
    context = _decoded(claims)
    if context.expiry < now - CLOCK_SKEW:
        raise Refused("expired")
    if context.expiry > now + longest + CLOCK_SKEW:
        raise Refused("not_yet_valid")
    if not is_audience(context.audience):
        raise Refused("audience")
    return context


def unverified(value: str) -> tuple[str, SignedContext]:
    """Return the key id and what a context says, to show it: nothing of it is known to be true.

    Raises:
        Refused: it is not one that :func:`sign` writes.
    """
    parts = _FORM(value) if len(value) <= _LONGEST else None
    if parts is None:
        raise Refused("malformed" if len(value) <= _LONGEST else "oversized")
    try:
        header = _decode_header(binascii.a2b_base64(_padded(parts[1])))
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused("malformed") from error
    return header.kid, _decoded(parts[2])


def _decoded(claims: str) -> SignedContext:
    """Read claims that are written as we write them; whoever has the key may have written anything."""
    try:
        context = _decode(binascii.a2b_base64(_padded(claims)))
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused("malformed") from error
    if _text(_encode(context)) != claims:
        raise Refused("malformed")
    return context


def _padded(text: str) -> str:
    return text.translate(_FROM_URL) + "=" * (-len(text) % 4)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


_FROM_URL: Final = str.maketrans("-_", "+/")
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(SignedContext).decode
_decode_header: Final = msgspec.json.Decoder(_Header).decode
