"""Which tables a statement of the application's own reads, by its text. Pure.

sqlglot says it (the extra ``sql``); where it is missing or cannot parse the text, the names behind FROM and
JOIN do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias

from otel_audit.capture.sql.sql_text import (
    MAX_ENTRIES,
    MAX_PARSED,
    folded_parts,
    parsed,
    schema_of,
    without_values,
    words_of,
)
from otel_audit.interruptions import faults

_FIRST: Final = re.compile(r"[\s(]*(SELECT|WITH|TABLE|VALUES)\b", re.IGNORECASE)
_NAME: Final = r"[\"`\[]?[^\W\d][\w$]*[\"`\]]?"
_SOURCE: Final = re.compile(
    rf"\b(?:FROM|JOIN|TABLE)\s+(?:ONLY\s+)?\(*\s*({_NAME}(?:\s?\.\s?{_NAME})*)", re.IGNORECASE
)
_LISTED: Final = re.compile(rf",\s*({_NAME}(?:\s?\.\s?{_NAME})*)")
_ENDS: Final = re.compile(r"\b(?:WHERE|GROUP|ORDER|LIMIT|UNION|HAVING|SELECT)\b", re.IGNORECASE)


Named: TypeAlias = tuple[str, str]
"""The folded name of a table, and the schema that a statement names before it, if any."""


class ReadTexts:
    """Says of statements which tables they read, and remembers what it has said of the last ones.

    Args:
        tables: the folded names of those that are asked for.
    """

    def __init__(self, tables: AbstractSet[str]) -> None:
        self._names = tables
        self._known: dict[tuple[str, int], tuple[Named, ...]] = {}
        self._read: dict[tuple[str, str], tuple[Named, ...]] = {}

    def tables(self, sql: str, system: str) -> tuple[Named, ...]:
        """Return those that a statement reads, in its order; none of one that writes."""
        key = (system, hash(sql))
        found = self._known.get(key)
        if found is None:
            found = self._look(sql, system)
            if len(self._known) >= MAX_ENTRIES:
                self._known.clear()
            self._known[key] = found
        return found

    def _look(self, sql: str, system: str) -> tuple[Named, ...]:
        if self._names.isdisjoint(words_of(sql)):
            return ()
        text, _, _ = without_values(sql[:MAX_PARSED], system)
        found = self._read.get((system, text))
        if found is None:
            found = self._tables_of(text, system) if _FIRST.match(text) else ()
            if len(self._read) >= MAX_ENTRIES:
                self._read.clear()
            self._read[system, text] = found
        return found

    def _tables_of(self, text: str, system: str) -> tuple[Named, ...]:
        named: list[Named] = []
        for piece in text.split(";"):
            if not _FIRST.match(piece):
                continue
            try:
                named += _by_sqlglot(piece, system)
            except faults():  # it is not installed, or cannot parse this
                named += _by_names(piece)
        return tuple([each for each in dict.fromkeys(named) if each[0] in self._names])


def _by_sqlglot(text: str, system: str) -> Iterator[Named]:
    from sqlglot import exp

    tree: Any = parsed(text, system)
    hidden = {each.alias_or_name.lower() for each in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        name = table.name.lower()
        if table.db or name not in hidden:
            yield name, schema_of(table)


def _by_names(text: str) -> Iterator[Named]:
    for match in _SOURCE.finditer(text):
        yield folded_parts(match[1])
        end = _ENDS.search(text, match.end())
        for listed in _LISTED.finditer(text, match.end(), end.start() if end else len(text)):
            yield folded_parts(listed[1])
