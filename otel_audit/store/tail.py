"""Follow the trail: what arrived since the last look, also when it happened earlier."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

import msgspec

from otel_audit.store.entries import AuditEntry
from otel_audit.store.filters import MAX_LIMIT, Filters
from otel_audit.store.query import AuditStore

_SECOND: Final = 1_000_000_000
_SHORT: Final = 15 * _SECOND
_LONG: Final = 10 * 60 * _SECOND
_EVERY: Final = 20


class Tail:
    """Look again and again, giving each record once.

    Records wait in a spool before they arrive, so each look goes back 15 seconds behind the last, each
    twentieth ten minutes, and what was given already is left out. A record that arrives later than that is
    not given.

    Args:
        filters: what to follow; ``since`` and ``until`` are the tail's own.
        parts: the parts of entries to read, as for :meth:`AuditStore.query`.
    """

    def __init__(self, store: AuditStore, filters: Filters, *, parts: Collection[str] | None = None) -> None:
        self._store = store
        self._filters = filters
        self._parts = parts
        self._seen: dict[str, int] = {}
        self._looked = time.time_ns()
        self._looks = 0

    def last(self, count: int) -> list[AuditEntry]:
        """Return the newest ``count`` records, oldest first; what is there now will not be given again."""
        self._looked = time.time_ns()
        self._note(self._since(self._looked - _LONG, ()))
        if not count:
            return []
        page = self._store.find(self._filters, limit=count, parts=self._parts)
        self._note(page.entries)
        return page.entries[::-1]

    def arrived(self) -> list[AuditEntry]:
        """Return what arrived since the last look, oldest first."""
        self._looks += 1
        now = time.time_ns()
        found = self._since(self._looked - (_LONG if self._looks % _EVERY == 0 else _SHORT), self._parts)
        self._looked = now
        new = [each for each in found if each.id not in self._seen]
        self._seen = {number: at for number, at in self._seen.items() if at > now - 2 * _LONG}
        self._note(new)
        return new[::-1]

    def _note(self, entries: list[AuditEntry]) -> None:
        self._seen.update((each.id, each.timestamp) for each in entries)

    def _since(self, moment: int, parts: Collection[str] | None) -> list[AuditEntry]:
        filters = msgspec.structs.replace(self._filters, since=moment, until=None)
        found: list[AuditEntry] = []
        cursor: str | None = None
        while True:
            page = self._store.find(filters, limit=MAX_LIMIT, cursor=cursor, parts=parts)
            found += page.entries
            cursor = page.cursor
            if cursor is None:
                return found
