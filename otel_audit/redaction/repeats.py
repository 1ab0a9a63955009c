"""Which repeats of a regular expression may take longer than their text: found by looking at the expression.

Python's matcher goes back. Where two repeats can share the same characters it tries each way to divide them:
one inside the other, that is exponential; one after the other, quadratic. Possessive repeats (``++``) and
atomic groups never go back. The rules look at sets of characters, and err towards a complaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, Literal, TypeAlias

from otel_audit.named_tuples import NamedTuple

try:
    from re import _constants as sre  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
except ImportError:  # a Python that parses elsewhere: nothing is found
    sre = parser = None

Set: TypeAlias = frozenset[str]
Node: TypeAlias = tuple[Any, Any]

_ALPHABET: Final[Set] = frozenset(map(chr, range(256))) | {"：", "١", "Ａ"}
_MANY: Final = 100  # a repeat of at most fewer is a constant


class Problem(NamedTuple):
    """What is wrong with an expression."""

    kind: Literal["exponential", "quadratic"]
    reason: str


def problems(source: str, flags: int = 0) -> list[Problem]:
    """Return the repeats of an expression that may take more time than in proportion to the text.

    Raises:
        re.error: this is no regular expression.
    """
    if parser is None:
        return []
    parsed = parser.parse(source, flags)
    return list(_Expression(parsed.state.flags).problems(list(parsed)))


class _Expression:
    def __init__(self, flags: int) -> None:
        self._flags = flags

    def problems(self, nodes: Sequence[Node]) -> Iterator[Problem]:
        yield from self._inside(nodes, frozenset(), frozenset())
        for branch in _branches(nodes):
            yield from self._restarts(branch)

    def _inside(self, nodes: Sequence[Node], repeated: Set, follow: Set) -> Iterator[Problem]:
        """Look at a sequence: ``repeated`` begins the repeat around it anew, ``follow`` what comes after."""
        for index, (op, value) in enumerate(nodes):
            rest = nodes[index + 1 :]
            after = self._first(rest) | (follow if self._empty(rest) else frozenset())
            for part in _parts(op, value):
                own = self._all(part)
                passes = all(self._empty([node]) or self._set(node, first=False) & own for node in rest)
                again = repeated if passes and op is not sre.ATOMIC_GROUP else frozenset()
                if not (_is_repeat(op) and (value[1] is sre.MAXREPEAT or value[1] >= _MANY)):
                    yield from self._inside(part, again, after)
                    continue
                goes_back = op is not sre.POSSESSIVE_REPEAT
                if goes_back:
                    if shared := own & again:
                        yield Problem("exponential", f"a repeat inside a repeat shares {_shown(shared)}")
                    if (shared := self._last_shared(part, rest)) and value[0] != value[1]:
                        yield Problem("quadratic", f"two repeats one after the other share {_shown(shared)}")
                    if shared := self._ambiguous(part):
                        yield Problem("exponential", f"two ways to repeat begin with {_shown(shared)}")
                yield from self._inside(part, self._first(part) if goes_back else frozenset(), after)

    def _last_shared(self, part: Sequence[Node], rest: Sequence[Node]) -> Set:
        own = self._all(part)
        for index, (op, value) in enumerate(rest):
            if _is_repeat(op) and (value[1] is sre.MAXREPEAT or value[1] >= _MANY):
                shared = own & self._all(list(value[2]))
                if shared:
                    return shared
            if not self._empty(rest[index : index + 1]):
                return frozenset()
        return frozenset()

    def _ambiguous(self, part: Sequence[Node]) -> Set:
        for op, value in part:
            if op is sre.SUBPATTERN:
                return self._ambiguous(list(value[3]))
            if op is sre.BRANCH:
                seen: Set = frozenset()
                for branch in value[1]:
                    first = self._first(list(branch))
                    if seen & first:
                        return seen & first
                    seen |= first
        return frozenset()

    def _restarts(self, nodes: Sequence[Node]) -> Iterator[Problem]:
        """Find a repeat that is followed to its end from many beginnings, each inside what it repeats."""
        if nodes and nodes[0][0] is sre.AT and nodes[0][1] in (sre.AT_BEGINNING_STRING, sre.AT_BEGINNING):
            return
        prefix: list[Set] = []
        guard: Set = frozenset()
        for index, (op, value) in enumerate(nodes):
            if op is sre.ASSERT_NOT and value[0] == -1 and not prefix:
                guard |= self._all(list(value[1]))
            elif _is_repeat(op) and value[1] is sre.MAXREPEAT:
                own = self._all(list(value[2]))
                rest = nodes[index + 1 :]
                unguarded = own - guard
                stops = self._stops(list(value[2])) - self._first(rest)
                consumed = self._always(rest) and (not stops or _skippable(rest))
                if unguarded and all(part & own for part in prefix) and not consumed:
                    yield Problem("quadratic", f"it can begin again inside a run of {_shown(unguarded)}")
                if value[0]:
                    prefix.append(own)
            elif not self._empty([(op, value)]):
                prefix.append(self._all([(op, value)]))

    def _stops(self, part: Sequence[Node]) -> Set:
        """Return where a repeat may stop: at what begins no way of it, or a way of several steps."""
        steps = [list(part)] if len(part) != 1 else _flat(part[0])
        single = frozenset().union(*(self._first(step) for step in steps if len(step) == 1))
        several = frozenset().union(*(self._first(step) for step in steps if len(step) > 1))
        return (_ALPHABET - single - several) | (several - single)

    def _always(self, nodes: Sequence[Node]) -> bool:
        """Say whether what follows a repeat can always match: then what was followed is also consumed."""
        return all(
            (_is_repeat(op) and value[0] == 0)
            or (op in (sre.SUBPATTERN, sre.BRANCH) and any(self._always(part) for part in _parts(op, value)))
            or (op is sre.AT and value in (sre.AT_END, sre.AT_END_STRING))
            for op, value in nodes
        )

    def _empty(self, nodes: Sequence[Node]) -> bool:
        """Say whether a sequence can match nothing."""
        return all(
            op in (sre.AT, sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF_EXISTS)
            or (_is_repeat(op) and (value[0] == 0 or self._empty(list(value[2]))))
            or (
                (op in (sre.SUBPATTERN, sre.BRANCH, sre.ATOMIC_GROUP))
                and any(self._empty(part) for part in _parts(op, value))
            )
            for op, value in nodes
        )

    def _first(self, nodes: Sequence[Node]) -> Set:
        found: Set = frozenset()
        for node in nodes:
            found |= self._set(node, first=True)
            if not self._empty([node]):
                break
        return found

    def _all(self, nodes: Sequence[Node]) -> Set:
        return frozenset().union(*(self._set(node, first=False) for node in nodes))

    def _set(self, node: Node, *, first: bool) -> Set:
        op, value = node
        if op in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY, sre.CATEGORY):
            return _characters(op, tuple(value) if op is sre.IN else value, self._flags & re.IGNORECASE)
        if op in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return frozenset()
        if op is sre.GROUPREF:
            return _ALPHABET
        inner = [self._first(part) if first else self._all(part) for part in _parts(op, value)]
        return frozenset().union(*inner)


def _flat(node: Node) -> list[list[Node]]:
    """Return the alternatives a repeat repeats."""
    if node[0] in (sre.BRANCH, sre.SUBPATTERN):
        return [step for part in _parts(*node) for step in (_flat(part[0]) if len(part) == 1 else [part])]
    return [[node]]


def _skippable(nodes: Sequence[Node]) -> bool:
    """Say whether nothing of a sequence has to be there, wherever it is."""
    return all(
        (_is_repeat(op) and value[0] == 0)
        or (op in (sre.SUBPATTERN, sre.BRANCH) and any(_skippable(part) for part in _parts(op, value)))
        for op, value in nodes
    )


def _is_repeat(op: Any) -> bool:
    return op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


def _parts(op: Any, value: Any) -> list[list[Node]]:
    if _is_repeat(op):
        return [list(value[2])]
    if op is sre.SUBPATTERN:
        return [list(value[3])]
    if op is sre.ATOMIC_GROUP:
        return [list(value)]
    if op is sre.BRANCH:
        return [list(branch) for branch in value[1]]
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        return [list(value[1])]
    return []


def _branches(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Return the alternatives of a whole expression, each as a sequence."""
    if len(nodes) == 1 and nodes[0][0] in (sre.BRANCH, sre.SUBPATTERN):
        for part in _parts(*nodes[0]):
            yield from _branches(part)
    else:
        yield list(nodes)


@cache
def _characters(op: Any, value: Any, ignore_case: int) -> Set:
    if op is sre.ANY:
        return _ALPHABET - {"\n"}
    if op is sre.NOT_LITERAL:
        return _ALPHABET - {chr(value)}
    if op is sre.LITERAL:
        found = {chr(value)}
    elif op is sre.CATEGORY:
        found = set(_category(value))
    else:
        found = set()
        for kind, item in value:
            if kind is sre.RANGE:
                found |= {character for character in _ALPHABET if item[0] <= ord(character) <= item[1]}
            elif kind is not sre.NEGATE:
                found |= _characters(kind, item, 0)
    if ignore_case:
        found |= {character.swapcase() for character in found}
    negated = op is sre.IN and value[0][0] is sre.NEGATE
    return frozenset(_ALPHABET - found if negated else found)


def _category(value: Any) -> Iterator[str]:
    name = {
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
        sre.CATEGORY_SPACE: r"\s",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
    }[value]
    return (character for character in _ALPHABET if re.fullmatch(name, character))


def _shown(characters: Set) -> str:
    return repr("".join(sorted(characters))[:12])
