"""The sensitive parts of a path, found by the route that matched it: ``reset/<uidb64>/<token>/``."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from otel_audit.redaction.lazy import pattern

IsSecret = Callable[[str], bool]

# Django's `<int:pk>` and `(?P<pk>…)`, Starlette's `{pk:int}`, `:pk` of others.
_PARAMETER = pattern(
    r"(?<!\?P)<(?:(?P<converter>\w{1,64}):)?(?P<angle>\w{1,64})>|\{(?P<brace>\w{1,64})(?::(?P<kind>[^{}]{0,64}))?\}|(?<=/):(?P<colon>\w{1,64})"
)
_GROUP = pattern(r"\(\?P<(\w{1,64})>")
_LONGEST: Final = 2048
_SHORTEST: Final = 4
_IN_ADDRESS = pattern(r"[^?#]*+")
_ORIGIN = pattern(r"[a-z][a-z0-9+.\-]{0,32}+://[^/]*+", re.IGNORECASE)


def secret_groups(route: str, is_secret: IsSecret) -> list[str]:
    """Return the names of the sensitive parameters of a route."""
    names = [found["angle"] or found["brace"] or found["colon"] for found in _PARAMETER.finditer(route)]
    return [name for name in [*names, *_GROUP.findall(route)] if is_secret(name)]


def secrets(route: str, path: str, is_secret: IsSecret) -> set[str]:
    """Return what stands in a path or an address at the sensitive parameters of its route.

    A path that its route does not explain is sensitive as a whole.
    """
    origin = _ORIGIN.match(path)
    found = _IN_ADDRESS.match(path, 0 if origin is None else origin.end())
    given = "" if found is None else found.group()
    names = secret_groups(route, is_secret)
    if not names or not given.strip("/"):
        return set()
    shape = _shape(route)
    match = shape.search(given) if shape is not None and len(given) <= _LONGEST else None
    if match is None:
        return {given}
    return {value for name in names if (value := match.groupdict().get(name)) and value.strip("/")}


def without(text: str, values: set[str], mask: str) -> str:
    """Return a text without these values, as they are and decoded."""
    for value in values:
        for spelling in {value, unquote(value)}:
            if len(spelling) >= _SHORTEST:
                text = text.replace(spelling, mask)
            elif f"/{spelling}" in text:
                text = re.sub(rf"(?<=/){re.escape(spelling)}(?=[/?#]|\Z)", lambda _: mask, text)
    return text


@lru_cache(maxsize=512)
def _shape(route: str) -> re.Pattern[str] | None:
    """Return the expression of a route; None if it is none."""
    is_expression = _GROUP.search(route) is not None
    parts: list[str] = []
    copied = 0
    for found in _PARAMETER.finditer(route):
        name = found["angle"] or found["brace"] or found["colon"]
        literal = route[copied : found.start()]
        parts.append(literal if is_expression else re.escape(literal))
        takes_slashes = found["converter"] == "path" or found["kind"] == "path"
        parts.append(f"(?P<{name}>.+)" if takes_slashes else f"(?P<{name}>[^/]+)")
        copied = found.end()
    parts.append(route[copied:] if is_expression else re.escape(route[copied:]))
    source = "".join(parts).lstrip("^").rstrip("$")
    try:
        return re.compile(f"(?:^|/){source.removeprefix('/')}")
    except re.error:
        return None
