"""Regular expressions compiled when they are first used: all of ours at once cost every start 30 ms."""

from __future__ import annotations

import re
from typing import Any, cast


class _LazyPattern:
    def __init__(self, source: str, flags: int) -> None:
        self._source = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        # Found here once; from then on it is an attribute like any other, and this is not called.
        value = getattr(re.compile(self._source, self._flags), name)
        self.__dict__[name] = value
        return value


def pattern(source: str, flags: int = 0) -> re.Pattern[str]:
    """Return what behaves like ``re.compile(source, flags)``; a malformed one is noticed at its first use."""
    return cast("re.Pattern[str]", _LazyPattern(source, flags))
