"""What a command printed: its end is kept while it prints, cheaply; then made readable and redacted."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from typing import Final

from otel_audit.redaction.text.budget import CHARACTERS
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import plain_text

LIMIT: Final = 64 * 1024
_BEFORE: Final = 16 * 1024
"""Characters before what is shown that redaction looks at, for the names of values."""
_LONGEST_LINE: Final = 8 * 1024
_MAX_PARTS: Final = 4096
# CSI, OSC and other strings, charsets, and escapes of two characters; C1 as single characters, too.
_ESCAPE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*+[0-~]?"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_KEY_END: Final = re.compile(r"-----END[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BEGIN: Final = "-----BEGIN"


class OutputTail:
    """Keeps the end of what is written, at least ``limit`` characters; what a write costs does not grow.

    :meth:`write` takes text, or bytes in UTF-8: to stand below a ``TextIOWrapper`` is cheapest, where one
    call brings many lines. Of two threads that write at once, one may lose what it wrote, no more.
    """

    __slots__ = ("_decoder", "_kept", "_length", "_most", "_open", "_parts", "size")

    def __init__(self, limit: int = LIMIT) -> None:
        self._kept = limit + _BEFORE
        self._most = 4 * self._kept
        self._parts: list[str | bytes] = []  # bytes are ASCII: they are decoded only if they are kept
        self._length = 0
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._open = False  # whether a character has begun
        self.size = 0
        """Characters written so far."""

    def write(self, text: str | bytes) -> None:
        """Take what was written."""
        if type(text) is not str and not (type(text) is bytes and text.isascii() and not self._open):
            text = self._text(text)
        length = len(text)
        self.size += length
        self._length += length
        self._parts.append(text)
        if self._length > self._most or len(self._parts) > _MAX_PARTS:
            self._forget()

    def text(self) -> str:
        """Return the end of what was written, as it was; whoever shows it calls ``Contents.output``."""
        return self._forget()

    def _text(self, text: str | bytes) -> str:
        if isinstance(text, str):
            return str.__str__(text)
        if len(text) > self._most:  # only the end is decoded; what is before it counts as one byte each
            self.size += len(text) - self._most
            text = text[-self._most :]
        decoded = self._decoder.decode(bytes(text))
        self._open = bool(self._decoder.getstate()[0])
        return decoded

    def _forget(self) -> str:
        """Keep the end only, and return it."""
        kept: list[str] = []
        room = self._kept
        for part in reversed(self._parts):
            if room <= 0:
                break
            end = part[-room:]
            kept.append(end if isinstance(end, str) else end.decode())
            room -= len(end)
        kept.reverse()
        text = "".join(kept)
        self._parts = [text]
        self._length = len(text)
        return text


def readable(text: str) -> str:
    """Return text without colours, cursor movements, control characters, and what was overwritten."""
    if "\x1b" in text or not text.isascii():
        text = _ESCAPE.sub("", text)
    if "\r" in text:
        # Of a line that was written over, as a progress bar is, what stood there last.
        text = "\n".join([line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")])
    return _CONTROL.sub("", text)


def output(text: str, redactor: ValueRedactor, limit: int, size: int | None) -> str:
    """Return the end of an output; as for :meth:`otel_audit.http.contents.Contents.output`."""
    size = len(text) if size is None else size
    # Of a longer text, redaction would search the beginning, and leave out the end.
    kept = text[-min(limit + _BEFORE, CHARACTERS) :]
    shown = readable(kept)
    if size > len(kept):
        shown = _from_a_line(shown)
    shown = redactor.text(plain_text(shown))
    said = f"… ({size} characters)\n"
    if size <= len(kept) and len(shown) <= limit:
        end = shown
    else:
        end = said + shown[len(shown) - min(len(shown), max(0, limit - len(said))) :]
    return end if len(end.encode()) <= limit else _last_bytes(end, limit, said)


def _from_a_line(text: str) -> str:
    """Begin with a whole line: the name of a value may stand before the cut, and so may the head of a key."""
    line = text.find("\n", 0, _LONGEST_LINE)
    text = text[line + 1 :] if line >= 0 else text[_LONGEST_LINE:]
    key = _KEY_END.search(text)
    return text[key.end() :] if key is not None and _KEY_BEGIN not in text[: key.start()] else text


def _last_bytes(text: str, limit: int, said: str) -> str:
    room = max(0, limit - len(said.encode()))
    tail = text.encode()[-room:] if room else b""
    return (said + tail.decode("utf-8", "ignore")) if room else ""
