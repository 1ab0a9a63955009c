"""What a run has printed: the end of it, and what is new since somebody was told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otel_audit.http.contents import OutputTail

if TYPE_CHECKING:
    from otel_audit.http.contents import Contents

_BEFORE: Final = 8 * 1024
"""Characters before what is new that are looked at as well: a secret may have begun there."""
_MARGIN: Final = 16 * 1024
_NO_LIMIT: Final = 1024 * 1024


class Printed:
    """The end of what a run has printed. Any thread may call.

    Args:
        limit: how much is recorded at most.
        parent: what the run around this one has printed, if that is kept.
    """

    __slots__ = ("_mutex", "_tail", "_told", "_waits", "limit", "parent")

    def __init__(self, limit: int, parent: Printed | None = None) -> None:
        self.limit = limit
        self.parent = parent
        self._tail = OutputTail(limit)
        # Reentrant: a signal handler may print while this thread holds it.
        self._mutex = threading.RLock()
        self._told = 0
        self._waits = -1

    def begin_in_child(self) -> None:
        """Forget who held the lock when the process was forked."""
        self._mutex = threading.RLock()

    @property
    def keep(self) -> int:
        """How many characters or bytes are worth keeping for :meth:`add`."""
        return self.limit + _MARGIN

    def add(self, printed: str | bytes, dropped: int = 0) -> None:
        """Add what was printed, as text or in UTF-8; ``dropped``: how much before it was not kept."""
        with self._mutex:
            self._tail.size += dropped
            self._tail.write(printed)

    @property
    def size(self) -> int:
        """How much was printed altogether: characters, or bytes where they were not decoded."""
        return self._tail.size

    def text(self, contents: Contents) -> str:
        """Return the end of what was printed as a record shows it."""
        with self._mutex:
            kept, size = self._tail.text(), self._tail.size
        return contents.output(kept, self.limit, size=size)

    def news(self, contents: Contents) -> str:
        """Return what was printed since the last call as a record shows it.

        A line that has not ended waits for its end, until the next call.
        """
        with self._mutex:
            kept, end = self._tail.text(), self._tail.size
            new = end - self._told
            line = len(kept) - (kept.rfind("\n") + 1)
            if line and self._waits != end - line:
                self._waits = end - line
                kept, new, end = kept[: len(kept) - line], new - line, end - line
            if new <= 0:
                return ""
            self._told = end

        def clean(text: str) -> str:
            return contents.output(text, _NO_LIMIT)

        chunk = kept[-new:]
        if new > self.limit:  # more than a record has: its end, as at the end of the run
            return contents.output(chunk, self.limit, size=new)
        return _added(clean, kept[: len(kept) - len(chunk)][-_BEFORE:], chunk)


def _added(clean: Callable[[str], str], before: str, chunk: str) -> str:
    """Return the cleaned ``chunk``; what is to be removed may begin in what was printed before it."""
    if not before:
        return clean(chunk)
    known, whole = clean(before), clean(before + chunk)
    if whole.startswith(known):
        return whole[len(known) :]
    same = next((at for at, (a, b) in enumerate(zip(known, whole, strict=False)) if a != b), 0)
    return whole[same:]
