"""The blocks of bytes that a text stream gives to its buffer, some thousand at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from otel_audit.interruptions import faults

_ABSENT: Final = object()


class Blocks:
    """Hands on the blocks that are written to a buffer.

    Args:
        buffer: its ``write`` is replaced until :meth:`close`.
        take: gets each block after it was written.
    """

    def __init__(self, buffer: Any, take: Callable[[Any], None]) -> None:
        self._attributes: dict[str, Any] = vars(buffer)
        self._before = self._attributes.get("write", _ABSENT)
        self._write = buffer.write
        self._take: Callable[[Any], None] | None = take
        self._set = self._written
        self._attributes["write"] = self._set

    def _written(self, data: Any, /) -> Any:
        done = self._write(data)
        take = self._take
        if take is not None:
            try:
                take(data)
            except faults():  # it is written; the record has less
                pass
        return done

    def close(self) -> None:
        """Leave the buffer as it was; where somebody has wrapped our function, it stays and keeps nothing."""
        self._take = None
        if self._attributes.get("write") is self._set:
            if self._before is _ABSENT:
                del self._attributes["write"]
            else:
                self._attributes["write"] = self._before
