"""The beginning of a body that passes by, kept while an application or its client reads or sends it.

Nothing is read for us: what the application does not read is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any


class Copy:
    """The first ``limit`` bytes of a body, and how many there were in all."""

    __slots__ = ("_kept", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept = bytearray()

    def take(self, piece: Any) -> None:
        """Note a piece of the body: bytes, or anything like them."""
        room = self.limit - len(self._kept)
        if room > 0:
            self._kept += piece[:room]
        self.size += len(piece)

    def clear(self) -> None:
        """Forget everything: the application begins anew."""
        self.size = 0
        self._kept.clear()

    @property
    def content(self) -> bytes:
        """The bytes kept."""
        return bytes(self._kept)


class CopyingInput:
    """A stream that the application reads a body from, as it was, and a copy of what it reads."""

    def __init__(self, stream: Any, copy: Copy) -> None:
        self._stream = stream
        self._copy = copy

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """Read as the stream does."""
        return self._taken(self._stream.read(*args, **kwargs))

    def readline(self, *args: Any, **kwargs: Any) -> Any:
        """Read a line as the stream does."""
        return self._taken(self._stream.readline(*args, **kwargs))

    def readlines(self, *args: Any, **kwargs: Any) -> Any:
        """Read lines as the stream does."""
        lines = self._stream.readlines(*args, **kwargs)
        for line in lines:
            self._taken(line)
        return lines

    def seek(self, *args: Any, **kwargs: Any) -> Any:
        """Go elsewhere, where the stream can: what is read from there is what is kept."""
        position = self._stream.seek(*args, **kwargs)
        self._copy.clear()
        return position

    def __iter__(self) -> Iterator[Any]:
        for line in self._stream:
            yield self._taken(line)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name in ("readinto", "readinto1"):
            return partial(self._read_into, found)
        return partial(self._read, found) if name == "read1" else found

    def _read(self, read: Callable[..., Any], *args: Any) -> Any:
        return self._taken(read(*args))

    def _read_into(self, read: Callable[[Any], int | None], buffer: Any) -> int | None:
        count = read(buffer)
        if count:
            self._copy.take(memoryview(buffer).cast("B")[:count])
        return count

    def _taken(self, piece: Any) -> Any:
        if isinstance(piece, bytes | bytearray | memoryview):
            self._copy.take(piece)
        return piece
