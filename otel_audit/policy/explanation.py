"""Why a policy decides as it does: every rule that was asked, and what of it does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

from otel_audit.config.sections.policy import WITH_BODIES, PolicyRule
from otel_audit.named_tuples import NamedTuple
from otel_audit.policy.decision import Decision, Facts, Kind, Level
from otel_audit.policy.policy import Policy, capped
from otel_audit.policy.rules import compiled

Verdict: TypeAlias = Literal["decides", "may decide", "does not match"]


class Asked(NamedTuple):
    """A rule that was asked: its number, from 1; None for the default behind all rules.

    ``condition`` is the first that does not hold, as ``path /health``; of a rule that may decide, all those
    of which the fact is not known.
    """

    number: int | None
    verdict: Verdict
    condition: str
    decision: Decision


def explain(rules: Sequence[PolicyRule], kind: Kind, facts: Facts) -> list[Asked]:
    """Ask the rules in order, up to the one that certainly decides; None in ``facts`` means not known."""
    return list(_asked(rules, kind, facts))


def _asked(rules: Sequence[PolicyRule], kind: Kind, facts: Facts) -> Iterator[Asked]:
    for number, rule in enumerate(rules, 1):
        if kind not in rule.kinds:
            continue
        # Alone, and under its own number: what the policy says is what is said here.
        alone = Policy([rule])
        decision = alone.possible(kind, facts)[0]
        if decision.rule is None:
            yield Asked(number, "does not match", _first_wrong(rule, kind, facts), decision)
            continue
        decision = capped(compiled([rule])[kind].rules[0], facts)._replace(rule=number)
        unknown = [name for name in rule.conditions if getattr(facts, name) is None]
        if unknown:
            yield Asked(number, "may decide", " and ".join(_said(rule, name) for name in unknown), decision)
        else:
            yield Asked(number, "decides", "", decision)
            return
    yield Asked(None, "decides", "", Decision())


def _first_wrong(rule: PolicyRule, kind: Kind, facts: Facts) -> str:
    for name in rule.conditions:
        value = getattr(facts, name)
        if value is None:
            continue
        alone = Policy([PolicyRule(kind=kind, level="none", **{name: getattr(rule, name)})])
        if alone.decide(kind, facts).rule is None:
            return _said(rule, name)
    return ""


def _said(rule: PolicyRule, name: str) -> str:
    return f"{name} {', '.join(rule.patterns(name))}"


_HTTP: Final = {
    Level.METADATA: "method, address, status, duration, sizes",
    Level.REQUEST: "headers and body of the request",
    Level.REQUEST_RESPONSE: "headers and body of the response",
}
_PARTS: Final[dict[Kind, dict[Level, str]]] = {
    "request": {
        **_HTTP,
        Level.METADATA: "method, host, path, query, route, view, status, duration, sizes, user, address, "
        "user agent, exception",
    },
    "outgoing": {**_HTTP, Level.METADATA: "method, URL without secrets, host, status, duration, sizes"},
    "command": {
        Level.METADATA: "name, arguments, outcome, exit code, exception, duration",
        Level.REQUEST_RESPONSE: "output",
    },
    "task": {
        Level.METADATA: "name, ids, queue, state, times, exception",
        Level.REQUEST: "arguments",
        Level.REQUEST_RESPONSE: "result",
    },
    "change": {
        Level.METADATA: "row and fields",
        Level.REQUEST: "values",
    },
}


def recorded(kind: Kind, decision: Decision) -> tuple[list[str], list[str]]:
    """Return what is recorded of an event, and what is not."""
    yes: list[str] = []
    no: list[str] = []
    for level, part in _PARTS[kind].items():
        enough = decision.level >= level
        if kind in WITH_BODIES and level > Level.METADATA and enough and not decision.bodies:
            yes.append(part.replace(" and body", ""))
            no.append(part.replace("headers and ", ""))
        else:
            (yes if enough else no).append(part)
    if kind == "task":
        (yes if decision.output and decision.level is Level.REQUEST_RESPONSE else no).append("output")
    return yes, no
