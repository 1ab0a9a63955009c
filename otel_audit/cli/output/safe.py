r"""Text from records on its way to a terminal: nothing in it may move the cursor, colour or hide.

Escaped are control characters (C0, DEL, C1), line and paragraph separators, what turns the direction of
writing, invisible format characters and lone surrogates (variation selectors only choose a glyph and stay,
names are written with them): they appear as ``\x1b``, ``\u202e`` …
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: object) -> str:
    """Return text that shows as itself and does nothing else; what is escaped stays readable."""
    return _UNSAFE.sub(_escape, str(text))


def safe_lines(text: str) -> str:
    """Do what :func:`safe` does, but keep line ends: for our own messages that quote others."""
    return "\n".join(map(safe, text.split("\n")))


def _escape(match: re.Match[str]) -> str:
    letter = match.group()
    code = ord(letter)
    return _SHORT.get(letter) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def safe_json(value: Any) -> str:
    """Write a value as JSON on one line, escaping inside its texts whatever :func:`safe` would."""
    return _UNSAFE.sub(_escape_json, msgspec.json.encode(value).decode())


def _escape_json(match: re.Match[str]) -> str:
    # Outside of texts JSON is ASCII without controls, so this is always inside one.
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def shortened(text: str, width: int) -> str:
    """Cut text to ``width`` characters, ending in an ellipsis where something is missing."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
