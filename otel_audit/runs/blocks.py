"""The last bytes that a text stream gives to its buffer, some thousand at a time."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

from otel_audit.interruptions import faults

_ABSENT: Final = object()
_MANY: Final = 256
_LARGE: Final = 64 * 1024


class Blocks:
    """Keeps the last blocks that are written to a buffer, at next to no cost for each.

    Args:
        buffer: its ``write`` is replaced until :meth:`close`.
        keep: how many bytes are kept at least.
    """

    def __init__(self, buffer: Any, keep: int) -> None:
        self._attributes: dict[str, Any] = vars(buffer)
        self._before = self._attributes.get("write", _ABSENT)
        self._keep = keep
        self._blocks: deque[bytes] = deque()
        self._dropped = 0
        self._mutex = threading.RLock()
        self._set = self._writing(buffer.write)
        self._attributes["write"] = self._set

    def _writing(self, original: Any) -> Any:
        blocks, put, append, binary = self._blocks, self._put, self._blocks.append, bytes

        def write(data: Any, /) -> Any:
            done = original(data)
            if type(data) is binary and len(data) < _LARGE and len(blocks) < _MANY:
                append(data)
            else:
                put(data)
            return done

        return write

    def _put(self, data: Any) -> None:
        try:
            if self._keep:
                self._blocks.append(data if type(data) is bytes else bytes(data))
                with self._mutex:
                    self._blocks.appendleft(self._join())
        except faults():  # it is written; the record has less
            pass

    def _join(self) -> bytes:
        """Take all blocks out, and return what is kept of them. Others may go on to append."""
        blocks = self._blocks
        taken = [blocks.popleft() for _ in range(len(blocks))]
        size = first = 0
        for first in range(len(taken) - 1, -1, -1):
            size += len(taken[first])
            if size >= self._keep:
                break
        joined = b"".join(taken[first:])
        kept = joined[-self._keep :]
        self._dropped += sum(map(len, taken[:first])) + len(joined) - len(kept)
        return kept

    def take(self) -> tuple[bytes, int]:
        """Return the last bytes, and how many before them are not there any more."""
        with self._mutex:
            kept = self._join()
            dropped, self._dropped = self._dropped, 0
        return kept, dropped

    def close(self) -> None:
        """Leave the buffer as it was; where somebody has wrapped our function, it stays and keeps nothing."""
        self._keep = 0
        self._blocks.extend([b""] * _MANY)  # so that nothing is appended
        if self._attributes.get("write") is self._set:
            if self._before is _ABSENT:
                del self._attributes["write"]
            else:
                self._attributes["write"] = self._before
