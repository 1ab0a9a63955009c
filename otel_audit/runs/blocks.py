"""The last bytes that a text stream gives to its buffer, some thousand at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from otel_audit.interruptions import faults

_ABSENT: Final = object()


class Blocks:
    """Keeps the last blocks that are written to a buffer, at next to no cost for each.

    Args:
        buffer: its ``write`` is replaced until :meth:`close`.
        keep: how many bytes are kept at least.
    """

    def __init__(self, buffer: Any, keep: int) -> None:
        self._attributes: dict[str, Any] = vars(buffer)
        self._before = self._attributes.get("write", _ABSENT)
        self.count = 0
        """How many blocks were written."""
        self.last = 0
        """The length of the last one."""
        self._set, self.take = self._keeping(buffer.write, keep)
        """``take`` returns the last bytes, and how many before them are not there any more."""
        self._attributes["write"] = self._set

    def close(self) -> None:
        """Leave the buffer as it was; where somebody has wrapped our function, it stays, and is nobody's."""
        if self._attributes.get("write") is self._set:
            if self._before is _ABSENT:
                del self._attributes["write"]
            else:
                self._attributes["write"] = self._before

    def _keeping(
        self, original: Callable[[Any], Any], keep: int
    ) -> tuple[Callable[[Any], Any], Callable[[], Any]]:
        """Return a function to write by, and one that takes what was written."""
        blocks: deque[bytes] = deque()
        append, drop, binary = blocks.append, blocks.popleft, bytes
        size = everything = 0

        def write(data: Any, /) -> Any:
            nonlocal size, everything
            done = original(data)
            try:
                block = data if type(data) is binary else binary(data)
                length = len(block)
                append(block)
                self.count += 1
                self.last = length
                everything += length
                size += length
                # As few as that: memory that is used again at once is at hand.
                while size - len(blocks[0]) >= keep:
                    size -= len(drop())
            except faults():  # it is written; the record has less
                pass
            return done

        def take() -> tuple[bytes, int]:
            nonlocal size, everything
            before = everything
            kept = b"".join([drop() for _ in range(len(blocks))])  # others may go on to append
            size = everything = 0
            return kept, max(0, before - len(kept))

        return write, take
