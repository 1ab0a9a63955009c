"""Where in a TOML text each key stands: ``tomllib`` reads values but forgets their lines.

Works on text ``tomllib`` has accepted already, so it looks only for where keys and values end.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

KeyPath: TypeAlias = tuple[str, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map every table and key of a valid TOML text to the number of its line, from 1.

    Before the keys of a table that stands in a list comes its position: ``("policy", "0", "path")``.
    """
    return _scanned(text).lines


def item_lines(text: str) -> dict[KeyPath, list[int]]:
    """Map every key of a valid TOML text that holds a list to the numbers of the lines of its items."""
    return _scanned(text).items


def _scanned(text: str) -> _Scan:
    scan = _Scan(text)
    table: KeyPath = ()
    while scan.blank() < len(text):
        start = scan.position
        if text.startswith("[", start):
            repeated = text.startswith("[[", start)
            scan.position += 2 if repeated else 1
            table = scan.table(scan.key(), repeated=repeated)
            scan.note(table, start)
            scan.position = text.index("]", scan.position)
            scan.position += 2 if repeated else 1
        else:
            scan.pair(table)
    return scan


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[KeyPath, int] = {}
        self.items: dict[KeyPath, list[int]] = {}
        self._repeated: dict[KeyPath, int] = {}

    def table(self, key: KeyPath, *, repeated: bool) -> KeyPath:
        """Return the path of a table: behind the key of one that repeats stands its position."""
        path: KeyPath = ()
        for part in key[:-1]:
            path += (part,)
            if path in self._repeated:
                path += (str(self._repeated[path]),)
        path += key[-1:]
        if repeated:
            self.note(path, self.position)
            self._repeated[path] = self._repeated.get(path, -1) + 1
            path += (str(self._repeated[path]),)
        return path

    def note(self, path: KeyPath, position: int) -> None:
        self.lines.setdefault(path, self._line(position))

    def _line(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.position)
        if match is not None:
            self.position = match.end()
        return self.position

    def blank(self) -> int:
        """Skip white space and comments, over lines."""
        return self._skip(_BLANK)

    def key(self) -> KeyPath:
        """Read a dotted key; stop behind it."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            match = _STRING.match(self.text, self.position) or _BARE_KEY.match(self.text, self.position)
            if match is None:
                return tuple(parts)
            part = match.group()
            if part[0] == '"':
                import tomllib

                part = tomllib.loads(f"key = {part}")["key"]  # escapes, by the one who knows them
            elif part[0] == "'":
                part = part[1:-1]
            parts.append(part)
            self.position = match.end()
            self._skip(_SPACE)
            if not self.text.startswith(".", self.position):
                return tuple(parts)
            self.position += 1

    def pair(self, table: KeyPath) -> None:
        """Read ``key = value``, noting the key and those of inline tables in the value."""
        start = self.position
        path = table + self.key()
        for length in range(len(table) + 1, len(path) + 1):
            self.note(path[:length], start)
        self.position = self.text.index("=", self.position) + 1
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath, *, nested: bool = False) -> None:
        opening = self.text[self.position : self.position + 1]
        if opening in ("[", "{"):
            self.position += 1
            closing = "]" if opening == "[" else "}"
            while True:
                self.blank()
                here = self.text[self.position : self.position + 1]
                if here in (closing, ""):
                    self.position += 1
                    return
                if here == ",":
                    self.position += 1
                elif opening == "{":
                    self.pair(path)
                else:
                    if not nested:
                        self.items.setdefault(path, []).append(self._line(self.position))
                    item = path if nested else (*path, str(len(self.items[path]) - 1))
                    self._value(item, nested=True)
        elif _STRING.match(self.text, self.position):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)
