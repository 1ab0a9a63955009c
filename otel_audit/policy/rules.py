"""The rules of a policy as functions over facts, made once when the configuration is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from otel_audit.config.globs import NORMAL, Globs, Matcher, is_literal, matcher, normal_patterns
from otel_audit.config.sections.policy import CONDITIONS, NAMES_WORK, WITH_BODIES, Kind, PolicyRule
from otel_audit.named_tuples import NamedTuple
from otel_audit.policy.decision import Decision, Facts, Level

_NOT_ASKED: Final = Globs((), ())
_LONGEST_REMEMBERED: Final = 512  # characters
_REMEMBERED: Final = 512
"""Values of one fact whose rules are remembered: most have few, and a path is often asked again."""


class Rule(NamedTuple):
    """One rule of one kind.

    ``shows_bodies``: its level has headers and bodies. ``literal``: the paths, views and routes that it names
    without a wildcard, by condition.
    """

    decision: Decision
    shows_bodies: bool
    literal: tuple[tuple[str, frozenset[str]], ...]

    def names(self, facts: Facts, *, complete: bool = True) -> bool:
        """Say whether the rule names the path, view or route of an event literally.

        With ``complete`` false, what is absent may still come: whether it might.
        """
        for name, literal in self.literal:
            value = getattr(facts, name)
            if not complete if value is None else NORMAL.get(name, str)(value) in literal:
                return True
        return False


class Question(NamedTuple):
    """What the rules of one kind ask of one fact. Sets of rules are integers, with a bit for each rule.

    ``allowed`` returns the rules that a value allows; ``absent`` are those that hold of an event without it,
    ``indifferent`` those that do not ask.
    """

    name: str
    allowed: Callable[[Any], int]
    absent: int
    indifferent: int


class KindRules(NamedTuple):
    """The rules of one kind, in order, and what they ask of each fact; ``every`` has the bits of them all."""

    rules: tuple[Rule, ...]
    questions: tuple[Question, ...]
    every: int

    @classmethod
    def of(cls, kind: Kind, rules: Sequence[tuple[int, PolicyRule]]) -> KindRules:
        """Compile the rules of one kind, each with its number."""
        return cls(
            tuple(_rule(kind, number, said) for number, said in rules),
            tuple(_questions([said for _, said in rules])),
            (1 << len(rules)) - 1,
        )


def compiled(rules: Iterable[PolicyRule]) -> dict[Kind, KindRules]:
    """Return the rules of each kind for which there are some."""
    found: dict[Kind, list[tuple[int, PolicyRule]]] = {}
    for number, said in enumerate(rules, 1):
        for kind in said.kinds:
            found.setdefault(kind, []).append((number, said))
    return {kind: KindRules.of(kind, each) for kind, each in found.items()}


def _rule(kind: Kind, number: int, said: PolicyRule) -> Rule:
    decision = _decision(number, said)
    shows_bodies = kind in WITH_BODIES and decision.level > Level.METADATA
    return Rule(decision, shows_bodies, tuple(_literal(said)))


def _decision(number: int, said: PolicyRule) -> Decision:
    return Decision(
        level=Level[said.level.upper()],
        rule=number,
        slug=said.slug or "",
        event_code=said.event_code or "",
        event_type=said.event_type or "",
        system=said.system or "",
        max_request_body=said.max_request_body,
        max_response_body=said.max_response_body,
        content_types=None if said.content_types is None else tuple(said.content_types),
        stages=tuple(said.stages or ()),
        output=said.output,
        bodies=said.bodies,
    )


def _questions(rules: Sequence[PolicyRule]) -> Iterator[Question]:
    for name in CONDITIONS:
        asking: list[tuple[int, Callable[[Any], object]]] = []
        indifferent = absent = 0
        for position, said in enumerate(rules):
            bit = 1 << position
            globs = normal_patterns(name, said.patterns(name))
            if globs == _NOT_ASKED:
                indifferent |= bit
                continue
            asking.append((bit, _matcher(name, globs)))
            if not globs.meant:
                absent |= bit
        if asking:
            allowed = _remembered(_allowed(asking, indifferent), bounded=name in ("path", "host"))
            yield Question(name, allowed, indifferent | absent, indifferent)


def _remembered(allowed: Callable[[Any], int], *, bounded: bool) -> Callable[[Any], int]:
    """Return a function that remembers its last results; ``bounded``: not a stranger's long texts."""
    remembering = lru_cache(maxsize=_REMEMBERED)(allowed)
    if not bounded:
        return remembering
    return lambda value: remembering(value) if len(value) <= _LONGEST_REMEMBERED else allowed(value)


def _allowed(asking: Sequence[tuple[int, Callable[[Any], object]]], indifferent: int) -> Callable[[Any], int]:
    def allowed(value: Any) -> int:
        found = indifferent
        for bit, matches in asking:
            if matches(value):
                found |= bit
        return found

    return allowed


def _literal(said: PolicyRule) -> Iterator[tuple[str, frozenset[str]]]:
    for name in NAMES_WORK:
        literal = [each for each in normal_patterns(name, said.patterns(name)).meant if is_literal(each)]
        if name == "route":  # the `?` of a route that is an expression is no wildcard
            literal = list(normal_patterns(name, said.patterns(name)).meant)
        if literal:
            yield name, frozenset(literal)


def _matcher(condition: str, globs: Globs) -> Callable[[Any], object]:
    matches = matcher(globs)
    if condition == "status":
        return frozenset(each for each in range(100, 600) if matches(str(each))).__contains__
    if condition == "host":
        return _of_host(matches)
    if condition == "route":
        return _of_route(matches, frozenset(globs.meant), frozenset(globs.excluded))
    if condition in NORMAL:
        normal = NORMAL[condition]
        return lambda value: matches(normal(value))
    return matches


def _of_host(matches: Matcher) -> Matcher:
    def both(value: str) -> object:
        value = value.lower()
        if matches(value):
            return True
        name, colon, port = value.rpartition(":")
        return bool(colon) and port.isdecimal() and matches(name)

    return both


def _of_route(matches: Matcher, meant: frozenset[str], excluded: frozenset[str]) -> Matcher:
    def as_written(value: str) -> object:  # a route that is an expression has `?` and `*` of its own
        value = value.lstrip("/")
        return value not in excluded and (value in meant or matches(value))

    return as_written
