"""What stands in place of a sensitive value of a record: nothing, a mask, its end, or a keyed hash."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec
from msgspec import UNSET

from otel_audit.errors import ConfigurationError
from otel_audit.values import Portable, portable

MINIMUM_KEY: Final = 16
_DEFAULT_LAST: Final = 4
_DIGEST_HEX: Final = 32  # 128 bits: two values never share a hash by accident
OMIT: Final = "omit"
"""No value, not even that there is none: a rule of ``[[policy]]`` asks for it, a field cannot."""

# Sorted keys: equal values have equal hashes, however a JSON field was written.
_canonical = msgspec.json.Encoder(order="sorted").encode


def keep_last(value: Portable, count: int, mask: str) -> str:
    """Return ``mask`` and the last ``count`` characters; only ``mask`` where that would show over half."""
    text = value if isinstance(value, str) else _encoded(value).decode("utf-8", "replace")
    return mask + text[-count:] if count and len(text) >= 2 * count else mask


def keyed_hash(value: Portable, key: bytes) -> str:
    """Return ``hmac:`` and 32 hexadecimal digits: equal values stay comparable, and cannot be guessed."""
    digest = hmac.new(key, _encoded(value), hashlib.sha256).hexdigest()
    return "hmac:" + digest[:_DIGEST_HEX]


def _encoded(value: Portable) -> bytes:
    # Half a surrogate pair is no character: it cannot be encoded, and must not cost the record its values.
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return _canonical(value)
    except UnicodeEncodeError:
        return _canonical(portable(value))


class Strategies:
    """The strategies by name, with the mask and key of the configuration."""

    def __init__(self, *, mask: str, hmac_key: str) -> None:
        """Take the settings ``redaction.replacement`` and ``redaction.hmac_key``.

        Raises:
            ConfigurationError: the key is shorter than 16 characters.
        """
        if hmac_key and len(hmac_key) < MINIMUM_KEY:
            raise ConfigurationError(
                f"redaction.hmac_key has {len(hmac_key)} characters; it needs at least {MINIMUM_KEY}"
            )
        self._mask = mask
        self._key = hmac_key.encode()

    def check(self, strategy: str, where: str) -> None:
        """Refuse a strategy that cannot be applied.

        Raises:
            ConfigurationError: ``where`` asks for ``hmac`` and there is no key.
        """
        if strategy == "hmac" and not self._key:
            raise ConfigurationError(
                f"{where} is hmac, and redaction.hmac_key is not set; set OTEL_AUDIT_REDACTION_HMAC_KEY to "
                f"at least {MINIMUM_KEY} characters"
            )

    @property
    def has_key(self) -> bool:
        """Whether values can be hashed."""
        return bool(self._key)

    def digest(self, digest: bytes) -> str:
        """Return the keyed hash of the hash of a value; empty without a key."""
        return keyed_hash(digest.hex(), self._key) if self._key else ""

    def apply(self, strategy: str, value: Portable) -> Portable:
        """Return what a record may carry of ``value``; ``UNSET`` for ``drop``. ``None`` stays ``None``.

        A strategy not known, or ``hmac`` without a key, masks: too little in the trail, never too much.
        """
        if value is None or strategy == "keep":
            return value
        if strategy == "drop":
            return UNSET  # type: ignore[return-value]
        if strategy == "hmac" and self._key:
            return keyed_hash(value, self._key)
        name, _, count = strategy.partition(":")
        if name == "keep_last":
            return keep_last(value, int(count) if count else _DEFAULT_LAST, self._mask)
        return self._mask
