"""Moments that psycopg leaves as PostgreSQL wrote them, made Python's by the column.

Django's loader of ``timestamptz`` is Python for each value: it takes longer than all else of a row together.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Final

import msgspec

from otel_audit.interruptions import faults

_TIMESTAMPTZ: Final = 1184
_LOADED_WHOLE: Final = frozenset(
    {16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 700, 701, 869, 650, 1042, 1043, 1082, 1083, 1114, 1184, 1186}
    | {1266, 1700, 2950, 3802}
)
"""Types of one value. Arrays, ranges and composites load their parts by the loaders of the cursor as well."""
_LONGEST: Final = len("2026-11-29 12:30:00.123456+05:30")
_decode: Final = msgspec.json.Decoder(list[datetime.datetime | None]).decode


def left_as_texts(connection: Any, cursor: Any) -> dict[int, Moments]:
    """Have a cursor that has executed leave moments as texts: what makes them values, by position.

    Empty, with nothing changed, where another loader than Django's reads them, or other columns need it.
    """
    types = _types(cursor)
    if _TIMESTAMPTZ not in types or not _LOADED_WHOLE.issuperset(types):
        return {}
    from psycopg.types.string import TextLoader

    adapters = cursor.adapters
    loader = adapters.get_loader(_TIMESTAMPTZ, TextLoader.format)
    if not _is_djangos(loader):
        return {}
    moments = Moments(loader(_TIMESTAMPTZ, connection.connection), connection.connection.info.timezone)
    adapters.register_loader(_TIMESTAMPTZ, TextLoader)
    return {position: moments for position, kind in enumerate(types) if kind == _TIMESTAMPTZ}


def _types(cursor: Any) -> list[int]:
    """Return the types of the columns of a cursor of psycopg 3 that are texts; none of any other."""
    result = getattr(cursor, "pgresult", None)
    if result is None or any(result.fformat(position) for position in range(result.nfields)):
        return []
    return [result.ftype(position) for position in range(result.nfields)]


def _is_djangos(loader: Any) -> bool:
    from django.db.backends.postgresql import psycopg_any

    return loader.__module__ == psycopg_any.__name__ and loader.load is psycopg_any.BaseTzLoader.load


class Moments:
    """Makes moments of the texts of a session, as the loader does that would have read them.

    What that depends on is as it was when they were fetched: the session's time zone may change later.
    """

    __slots__ = ("_load", "_moved", "_timezone", "_zone")

    def __init__(self, loader: Any, zone: datetime.tzinfo) -> None:
        self._load: Callable[[bytes], Any] = loader.load
        self._zone = zone
        self._timezone: datetime.tzinfo | None = loader.timezone
        self._moved = zone is not datetime.UTC or self._timezone is not datetime.UTC

    def read(self, texts: list[Any]) -> list[Any]:
        """Read a column; what Python cannot hold, as infinity, stays a text."""
        quick = self.at_once(texts)
        return [self._read(text) for text in texts] if quick is None else quick

    def load(self, texts: list[Any]) -> list[Any]:
        """Read a column; raises what the loader raises."""
        quick = self.at_once(texts)
        return [self._loaded(text) for text in texts] if quick is None else quick

    def at_once(self, texts: list[Any]) -> list[Any] | None:
        """Read a column of usual texts; ``None`` where one is not."""
        try:
            whole = [text if text is None or text[-3] == ":" else f"{text}:00" for text in texts]
            if max(map(len, filter(None, whole)), default=0) > _LONGEST:
                return None
            document = msgspec.json.encode(whole)
            moments = _decode(document)
            if self._moved or document.count(b'+00:00"') + texts.count(None) < len(texts):
                zone, timezone = self._zone, self._timezone
                return [moment and moment.astimezone(zone).replace(tzinfo=timezone) for moment in moments]
        except faults():  # years before 1 or after 9999, infinity, dates in another style
            return None
        return moments

    def _read(self, text: Any) -> Any:
        try:
            return self._loaded(text)
        except faults():
            return text

    def _loaded(self, text: Any) -> Any:
        return self._load(text.encode()) if type(text) is str else text
