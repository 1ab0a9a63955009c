"""What COMMIT, ROLLBACK, SAVEPOINT and the like do when an application writes them as text. Pure."""

from __future__ import annotations

from typing import Final, Literal

from otel_audit.named_tuples import NamedTuple

# The first two letters decide for nearly every statement that there is nothing to look at.
_CANDIDATES: Final = frozenset(
    a + b
    for first, second in ("co", "ro", "sa", "be", "re", "en", "ab", "st", "cr", "al", "dr", "tr", "lo")
    for a in (first, first.upper())
    for b in (second, second.upper())
)
ORDINARY: Final = frozenset({"SE", "IN", "UP", "DE"})
"""How the statements of an ORM begin: with these two letters none ends or marks a transaction."""


class Effect(NamedTuple):
    """What a statement does to transactions, and the name of a savepoint.

    ``chained``: the next one begins with it (``AND CHAIN``). One that begins by a savepoint has its name.
    """

    kind: Literal["commit", "rollback", "rollback_to", "savepoint", "release", "begin"]
    name: str = ""
    chained: bool = False


def is_ordinary(sql: str) -> bool:
    """Say at next to no cost that a statement cannot end or mark a transaction; False: look closer."""
    start = sql[:2]
    if start in ORDINARY:
        return True
    if start in _CANDIDATES:
        return False
    return start[:1].isalpha() or sql.lstrip()[:2] not in _CANDIDATES


def effect_of(sql: str, implicit: frozenset[str] = frozenset()) -> Effect | None:
    """Say what a statement does to transactions, None if nothing.

    Args:
        sql: the statement.
        implicit: first words, upper-case, that commit by themselves on this database.
    """
    words = sql.upper().replace(";", " ").split(None, 4)
    if not words:
        return None
    first, *rest = words
    chained = "CHAIN" in rest and "NO" not in rest
    if first in ("COMMIT", "END") or first in implicit:
        if "PREPARED" in rest or rest[:1] == ["TEMPORARY"]:
            return None
        return Effect("commit", chained=chained)
    name = sql.replace(";", " ").split()[-1]
    if first in ("ROLLBACK", "ABORT"):
        if "TO" in rest:
            return Effect("rollback_to", name)
        return None if "PREPARED" in rest else Effect("rollback", chained=chained)
    if first == "SAVEPOINT" and rest:
        return Effect("savepoint", name)
    if first == "RELEASE":
        return Effect("release", name)
    if first == "BEGIN" or (first == "START" and rest[:1] == ["TRANSACTION"]):
        return Effect("begin")
    return None
