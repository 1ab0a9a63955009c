"""Patterns of a policy: ``*`` stands for any text, ``?`` for one character, a leading ``!`` excludes.

A value is meant if one pattern matches it and no ``!`` pattern does; where all patterns begin with ``!``,
every other value is meant. ``[`` has no meaning of its own, for routes are full of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from typing import Final, TypeAlias

from otel_audit.named_tuples import NamedTuple

Matcher: TypeAlias = Callable[[str], object]
_WILD: Final = re.compile(r"[*?]")


class Globs(NamedTuple):
    """The patterns of one condition; ``excluded`` are those that began with ``!``."""

    meant: tuple[str, ...]
    excluded: tuple[str, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Globs:
        """Divide patterns by their leading ``!``."""
        patterns = tuple(patterns)
        return cls(
            tuple(each for each in patterns if not each.startswith("!")),
            tuple(each[1:] for each in patterns if each.startswith("!")),
        )

    def matches(self, value: str) -> bool:
        """Say whether a value is meant."""
        return bool(matcher(self)(value))

    def covers(self, other: Globs) -> bool:
        """Say whether whatever ``other`` means, this means too; False where that is hard to know."""
        meant = self.meant or ("*",)
        return all(any(covers(mine, theirs) for mine in meant) for theirs in other.meant or ("*",)) and all(
            any(covers(theirs, mine) for theirs in other.excluded) for mine in self.excluded
        )

    @property
    def is_empty(self) -> bool:
        """Whether all that is meant is excluded again."""
        return bool(self.meant) and all(
            any(covers(excluded, meant) for excluded in self.excluded) for meant in self.meant
        )


def is_literal(pattern: str) -> bool:
    """Say whether a pattern means one value only."""
    return _WILD.search(pattern) is None


def covers(pattern: str, other: str) -> bool:
    """Say whether whatever matches ``other`` matches ``pattern``."""
    if pattern == other:
        return True
    # A wildcard of `other` stands for more than one character: only a `*` of ours covers it.
    parts = [".*" if part == "*" else "[^*?]" if part == "?" else re.escape(part) for part in pattern]
    return re.fullmatch("".join(parts), other, re.DOTALL) is not None


def matcher(globs: Globs) -> Matcher:
    """Return a function that says whether a value is meant: as fast as the patterns allow."""
    meant = _one_of(globs.meant) if globs.meant else None
    if not globs.excluded:
        return meant or _always
    excluded = _one_of(globs.excluded)
    if meant is None:
        return lambda value: not excluded(value)
    return lambda value: meant(value) and not excluded(value)


def _always(value: str) -> bool:
    return True


def _one_of(patterns: Sequence[str]) -> Matcher:
    literal = frozenset(each for each in patterns if is_literal(each))
    wild = [each for each in patterns if each not in literal]
    if not wild:
        return literal.__contains__
    if "*" in wild:
        return _always
    if not literal and all(each.endswith("*") and is_literal(each[:-1]) for each in wild):
        prefixes = tuple(each[:-1] for each in wild)
        return lambda value: value.startswith(prefixes)
    # Translated wildcards are atomic groups: no path, however long, makes the search quadratic.
    expression = "|".join(translate(each.replace("[", "[[]")) for each in wild)
    match = re.compile(expression).match
    if not literal:
        return match
    return lambda value: value in literal or match(value) is not None


def normal_patterns(condition: str, patterns: Iterable[str]) -> Globs:
    """Return the patterns of a condition as they are compared: without case where case does not count."""
    normal = NORMAL.get(condition, str)
    globs = Globs.of(patterns)
    return Globs(tuple(map(normal, globs.meant)), tuple(map(normal, globs.excluded)))


def _status(pattern: str) -> str:
    return pattern.lower().replace("x", "?")


def _route(pattern: str) -> str:
    return pattern.lstrip("/")  # Django's have none


NORMAL: Final[dict[str, Callable[[str], str]]] = {
    "host": str.lower,
    "method": str.upper,
    "model": str.lower,
    "route": _route,
    "status": _status,
}
"""What is done with the pattern and with the value of a condition before they are compared."""
