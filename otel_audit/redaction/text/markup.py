"""Values in XML and HTML: of elements, of CDATA, and of attributes beside an attribute that names them."""

from __future__ import annotations

import re
from collections.abc import Callable

from otel_audit.redaction.lazy import pattern

_TAG = pattern(
    r"""<(?P<name>[\w:.\-]++)
        (?P<attributes>(?:[\s/](?:[^<>"']|"[^"]{0,4096}+"|'[^']{0,4096}+'|["']){0,8192}+)?+)
        (?:>|\Z)""",
    re.VERBOSE,
)
_ATTRIBUTE = pattern(
    r"""(?<![\w:.\-])(?P<name>[\w:.\-]++)\s?+=\s?+
        (?:\\*(?P<quote>["'])(?P<quoted>(?:(?!(?P=quote))[^\\])*+)|(?P<bare>[^\s"'<>\\]++))""",
    re.VERBOSE,
)
_TEXT = pattern(r"\s{0,64}+(?:<!\[CDATA\[(?P<cdata>(?:(?!\]\]>)[\s\S])*+)|(?P<text>[^<]++)(?=</))")
# The same inside a document, as text.
_ESCAPED = pattern(
    r"(?P<tag>&(?:amp;)?lt;(?P<name>[\w:.\-]{1,64}+)[^&<>]{0,256}+&(?:amp;)?gt;)"
    r"(?P<text>(?:(?!&(?:amp;)?lt;)[^<])++)(?=&(?:amp;)?lt;/)"
)
_PLACEHOLDER = pattern(
    r"\s?(?:%s|%\(\w{1,64}\)s|\{\w{0,64}\}|\{[{%][^{}]{0,256}[}%]\}|\$\{[^{}]{0,256}\})\s?\Z"
)
_NAMING = frozenset({"name", "key", "id", "type", "property", "autocomplete", "http-equiv"})
_HOLDING = frozenset({"value", "content", "data-value", "data"})


def scrub(text: str, is_secret: Callable[[str], bool], mask: str) -> str:
    """Return ``text`` without what stands in sensitive elements and beside sensitive names."""
    if "lt;" in text:
        text = _ESCAPED.sub(lambda found: found["tag"] + mask if is_secret(found["name"]) else found[0], text)
    parts: list[str] = []
    copied = position = 0

    def remove(start: int, end: int) -> None:
        nonlocal copied
        if (
            start < end
            and start >= copied
            and text[start:end] != mask
            and not _PLACEHOLDER.match(text, start, end)
        ):
            parts.extend((text[copied:start], mask))
            copied = end

    while (tag := _TAG.search(text, position)) is not None:
        position = tag.end()
        secret = is_secret(tag["name"])
        values = []
        if "=" in tag["attributes"]:
            for found in _ATTRIBUTE.finditer(text, *tag.span("attributes")):
                name = found["name"].lower()
                kind = found.lastgroup or "bare"
                if name in _HOLDING:
                    values.append(found.span(kind))
                elif name in _NAMING and is_secret(found[kind]):
                    secret = True
        if secret:
            for start, end in values:
                remove(start, end)
            inside = _TEXT.match(text, position)
            if inside is not None and inside.lastgroup:
                start, end = inside.span(inside.lastgroup)
                remove(start, end)
                position = max(position, end)
    return "".join((*parts, text[copied:])) if parts else text
