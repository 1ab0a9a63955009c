"""Addresses without credentials and secrets: queries by parameter, URLs part by part."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_plus, unquote_plus

from otel_audit.long_texts import rest_of
from otel_audit.redaction.named_values import are_apart
from otel_audit.redaction.names import SENSITIVE, removes
from otel_audit.redaction.value_redactor import ValueRedactor

MAX_QUERY: Final = 4096
"""Characters of a query that are shown."""
MAX_PATH: Final = 2048
_READ: Final = 8 * 1024
_MAX_PARAMETERS: Final = 500
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*+:)?//(?P<authority>[^/?#]*+)")
_PORT: Final = re.compile(r":\d{1,5}\Z")


def query(raw: str, redactor: ValueRedactor) -> str:
    """Return a query without secrets, as it was written; at most :data:`MAX_QUERY` characters."""
    if not raw:
        return ""
    length = len(raw)
    if raw in redactor.clean_queries:
        return raw
    parts = raw[:_READ].split("&", _MAX_PARAMETERS)
    if length > _READ or len(parts) > _MAX_PARAMETERS:
        parts.pop()  # what is cut off may not be known as a secret
    names, shown, clean = [], [], []
    for part in parts:
        name, new = _parameter(part, redactor)
        names.append(name)
        shown.append(new)
        if new is part:
            clean.append(part)
    made = "&".join(shown)
    # What one parameter alone does not show: names that stand in another, and what was not encoded.
    if redactor.has_own_values or redactor.suspects("?" + "&".join(clean)) or are_apart(names):
        made = redactor.text("?" + made)[1:]
    if len(made) > MAX_QUERY or length > _READ:
        return made[:MAX_QUERY] + rest_of(length)
    if made == raw:
        redactor.remember_clean_query(raw)
    return made


def _parameter(part: str, redactor: ValueRedactor) -> tuple[str, str]:
    """Return the name of a parameter, and what may be shown: the same object if that is all of it."""
    name, equals, value = part.partition("=")
    plain = unquote_plus(name) if "%" in name or "+" in name else name
    found = redactor.names.decide(plain)
    if found == "allowed":
        return plain, part
    if found == "clean" and redactor.builtin and redactor.names.in_address(plain):
        found = "secret"
    if found in SENSITIVE and equals:
        return plain, f"{name}={redactor.mask}" if removes(found, unquote_plus(value)) else part
    if "%" in part or "+" in part:
        read = unquote_plus(part)
        shown = redactor.text(read)
        if shown != read:
            name, equals, value = shown.partition("=")
            return plain, quote_plus(name, "[]") + equals + quote_plus(value, "[]/:@?")
    return plain, part


def url(text: str, redactor: ValueRedactor) -> str:
    """Return an address without userinfo and secrets: of its path, its query and its fragment."""
    if len(text) > _READ:
        text = text[:_READ].rpartition("&")[0] or text[:MAX_PATH]
    before, hash_, fragment = text.partition("#")
    before, mark, raw = before.partition("?")
    found = _URL.match(before)
    if found is None:
        scheme = authority = ""
        path = before
    else:
        scheme = f"{found['scheme'] or ''}//"
        authority = _authority(found["authority"], redactor.mask)
        path = before[found.end() :]
    path = redactor.text(path)[:MAX_PATH]
    shown = query(raw, redactor)
    after = query(fragment, redactor) if "=" in fragment else redactor.text(fragment)[:MAX_QUERY]
    return "".join((scheme, authority, path, mark, shown, hash_, after))


def _authority(authority: str, mask: str) -> str:
    userinfo, at, host = authority.rpartition("@")
    if at:
        return f"{mask}@{host}" if userinfo else host
    # Without an @, `http://name:password` would be a host with a port.
    if ":" in authority and not authority.startswith("[") and not _PORT.search(authority):
        name, _, rest = authority.partition(":")
        return f"{name}:{mask}" if rest else authority
    return authority
