"""Words that were searched before: texts repeat them, so that most of a text need not be searched again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from otel_audit.named_tuples import NamedTuple

_MOST: Final = 8192
_LONGEST: Final = 32
"""Bytes of a word that is remembered: longer ones are ids, which do not come again."""
_AT_ONCE: Final = 8
_SIGNS: Final = b"_ . -"
"""That a search looks for in a whole text, before it looks for what has one of them."""


class _Known(NamedTuple):
    """Words in which nothing was found, and others; both only grow."""

    clean: set[bytes]
    found: set[bytes]


class Vocabulary:
    """Remembers in which words a search finds nothing. Thread safe.

    Words are what stands between blanks, in UTF-8 and lower case, with zeros for all digits.

    Args:
        search: looks for something in words with a blank behind each, in any order. What is not within one
            word, it finds by a part of it that is, and it does not ask what else is in the text.
    """

    def __init__(self, search: Callable[[str], bool]) -> None:
        self._search = search
        self._known = _Known(set(), set())

    def may_hold(self, words: Collection[bytes]) -> bool:
        """Say whether the search may find something in a text of these words; False is certain."""
        known = self._known
        if known.clean.issuperset(words):
            return False
        others = set(words) - known.clean
        if not known.found.isdisjoint(others):
            return True
        if self._finds(others):
            self._learn(known, others)
            return True
        self._make_room(known, len(others))
        known.clean.update([word for word in others if len(word) <= _LONGEST])
        return False

    def _learn(self, known: _Known, words: set[bytes]) -> None:
        """Look at some words by themselves: else each text with one of them would be searched as a whole."""
        some = [word for word in words if len(word) <= _LONGEST and b"0" not in word][:_AT_ONCE]
        self._make_room(known, len(some))
        for word in some:
            (known.found if self._finds({word}) else known.clean).add(word)

    def _finds(self, words: set[bytes]) -> bool:
        return self._search(b" ".join((_SIGNS, *words, b"")).decode("utf-8", "surrogatepass"))

    def _make_room(self, known: _Known, count: int) -> None:
        # Others may be looking at the sets: they are never emptied.
        if len(known.clean) + len(known.found) + count > _MOST:
            self._known = _Known(set(), set())
