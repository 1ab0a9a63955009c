"""The policy of a process: which rule decides about an event, and how much of it is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from otel_audit.config.model import AuditConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.policy.credentials import credential_word
from otel_audit.policy.decision import Decision, Facts, Kind, Level
from otel_audit.policy.rules import Rule, compiled

_DEFAULT: Final = Decision()


class Policy:
    """An ordered list of rules; the first that matches decides, ``METADATA`` where none does."""

    def __init__(self, rules: Iterable[PolicyRule] = ()) -> None:
        """Compile rules, which the configuration has checked."""
        self._rules = compiled(rules)

    @classmethod
    def of(cls, config: AuditConfig) -> Policy:
        """Return the policy of a configuration."""
        return cls(config.policy)

    def decide(self, kind: Kind, facts: Facts) -> Decision:
        """Return the decision about an event of which everything is known: None means that there is none."""
        known = self._rules.get(kind)
        if known is None:
            return _DEFAULT
        found = known.every
        for name, allowed, absent, _ in known.questions:
            value = getattr(facts, name)
            found &= absent if value is None else allowed(value)
        if not found:
            return _DEFAULT
        return capped(known.rules[(found & -found).bit_length() - 1], facts)

    def highest(self, kind: Kind, facts: Facts) -> Level:
        """Return the highest level still possible; None means that something is not known yet."""
        return max(decision.level for decision in self.possible(kind, facts))

    def possible(self, kind: Kind, facts: Facts) -> list[Decision]:
        """Return the decisions still possible, at least one; None means that something is not known yet."""
        known = self._rules.get(kind)
        if known is None:
            return [_DEFAULT]
        possible = certain = known.every
        for name, allowed, _, indifferent in known.questions:
            value = getattr(facts, name)
            if value is None:
                certain &= indifferent
            else:
                found = allowed(value)
                possible &= found
                certain &= found
        decisions = []
        while possible:
            bit = possible & -possible
            rule = known.rules[bit.bit_length() - 1]
            decisions.append(capped(rule, facts, complete=kind == "outgoing"))
            if bit & certain:
                return decisions
            possible ^= bit
        decisions.append(_DEFAULT)
        return decisions


def capped(rule: Rule, facts: Facts, *, complete: bool = True) -> Decision:
    """Return the decision of a rule: headers and bodies of a login only if it names that literally.

    With ``complete`` false, what is absent may still come.
    """
    if not rule.shows_bodies:
        return rule.decision
    word = credential_word(facts, complete=complete)
    if not word or rule.names(facts, complete=complete):
        return rule.decision
    return _lowered(rule.decision, word)


@lru_cache(maxsize=1024)
def _lowered(decision: Decision, word: str) -> Decision:
    return decision._replace(level=Level.METADATA, capped=word)
