"""What messages and lists may show of a setting: no secret, and no credentials inside an address."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from otel_audit.config.headers import is_header_name

HIDDEN: Final = "********"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_NO_PORT: Final = re.compile(r"\A([^/:\[\]]*):(?!\d*(?:/|\Z))[^/]*")  # `http://name:password`, cut off there
_USER: Final = re.compile(r"(?<=://)[^/\s'\"]*@")


def shown(value: Any, *, secret: bool) -> Any:
    """Return a value as it may be shown."""
    if secret:
        if isinstance(value, dict):
            return dict.fromkeys(map(shown_name, value), HIDDEN)
        return HIDDEN if value else value
    return without_credentials(value) if isinstance(value, str) and "://" in value else value


def shown_name(name: str) -> str:
    """Return the name of a header, or nothing if it is not valid: `Authorization: x` contains a secret."""
    return name if is_header_name(name) else HIDDEN


def without_credentials(address: str) -> str:
    """Return an address, valid or not, without user, password and query, which may contain a key."""
    scheme = found.group() if (found := _SCHEME.match(address)) else ""
    before, at, rest = address[len(scheme) :].rpartition("@")
    rest, mark, query = rest.partition("?")
    rest = _NO_PORT.sub(rf"\1:{HIDDEN}", rest)
    return "".join((scheme, HIDDEN if before else "", at, rest, mark, HIDDEN if query else ""))


def given(table: msgspec.Struct) -> dict[str, Any]:
    """Return the settings of a table that have not their default."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(table)}
    return {name: value for name, value in msgspec.structs.asdict(table).items() if value != defaults[name]}


def described(value: Any) -> str:
    """Return what was written, for a message about it: short, and without credentials."""
    text = _USER.sub(f"{HIDDEN}@", repr(value))
    return text if len(text) <= 60 else text[:57] + "..."
