"""What makes no sense in a policy: rules that could never decide, or that ask for what is not recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from otel_audit.config.globs import matcher, normal_patterns
from otel_audit.config.sections.policy import CONDITIONS, NAMES_WORK, OPTIONS, PolicyRule

Found: TypeAlias = tuple[tuple[str, ...], str]

_SECTION: Final = "policy"
_TOKEN: Final = re.compile(r"[A-Za-z*?-]+").fullmatch
_LONGEST: Final = 200


def policy_problems(rules: Sequence[PolicyRule]) -> Iterator[Found]:
    """Return the key (with the position of the rule) and the message of everything wrong."""
    for position, rule in enumerate(rules):
        for key, problem in _of_rule(rule):
            yield (_SECTION, str(position), *key), problem


def policy_notes(rules: Sequence[PolicyRule]) -> Iterator[Found]:
    """Return the key and a note for each rule that never decides because of one before it."""
    for position, rule in enumerate(rules):
        for earlier, before in enumerate(rules[:position]):
            if _covers(before, rule):
                yield (
                    (_SECTION, str(position)),
                    (
                        f"rule {position + 1} never decides: rule {earlier + 1} before it matches all that "
                        "it matches. Put it before that rule, or remove it"
                    ),
                )
                break


def _of_rule(rule: PolicyRule) -> Iterator[Found]:
    kinds = rule.kinds
    given = rule.conditions
    if rule.kind is not None:
        if not kinds:
            yield ("kind",), "names no kind: write one, or leave it out"
        for name in given:
            for kind in kinds:
                if kind not in CONDITIONS[name]:
                    owners = _listed(CONDITIONS[name])
                    yield (
                        (name,),
                        f"kind {kind!r} has no {name}, only {owners}: change kind, or remove {name}",
                    )
    elif not kinds:
        yield (
            (given[0],),
            f"no event has {' and '.join(given)} at once: the rule can never match. Make a rule for each",
        )
        return
    for name in given:
        patterns = rule.patterns(name)
        if not patterns:
            yield (
                (name,),
                'is an empty list, which matches nothing: write a pattern such as "*", or remove it',
            )
            continue
        yield from (((name,), problem) for pattern in patterns for problem in _of_pattern(name, pattern))
        if normal_patterns(name, patterns).is_empty:
            yield (
                (name,),
                (
                    f"can never match: what {', '.join(map(repr, patterns))} means is excluded again; "
                    "remove the pattern that begins with '!'"
                ),
            )
    yield from _of_level(rule)
    yield from _of_options(rule)


def _of_level(rule: PolicyRule) -> Iterator[Found]:
    if rule.level not in ("request", "request_response"):
        return
    if "change" in rule.kinds:
        yield (
            ("level",),
            (
                f"{rule.level!r} cannot be the level of changes: [django] models and [sqlalchemy] models "
                "say which are recorded, and a rule can only lower that. Write 'none' or 'metadata' (which "
                "fields, without values), or exclude the model from the rule with '!'"
            ),
        )
    names_work = rule.names(*NAMES_WORK)
    if "request" in rule.kinds and not names_work:
        yield (
            ("level",),
            (
                f"{rule.level!r} records headers and bodies, and this rule does not say of which requests: "
                "add a path, view or route, such as path = '/api/*'"
                + ("" if rule.kind else ", or a kind, if it is not for requests")
            ),
        )
    elif "outgoing" in rule.kinds and not (names_work or rule.names("host")):
        yield (
            ("level",),
            (
                f"{rule.level!r} records headers and bodies, and this rule does not say of which calls: add "
                "a host or path, such as host = 'fulfilment.internal'"
                + ("" if rule.kind else ", or a kind, if it is not for outgoing calls")
            ),
        )


def _of_options(rule: PolicyRule) -> Iterator[Found]:
    for name, kinds in OPTIONS.items():
        value = getattr(rule, name)
        if value is None or (name == "bodies" and value) or (name == "output" and not value):
            continue
        if not any(kind in kinds for kind in rule.kinds):
            yield (
                (name,),
                f"{name} has no effect on {_listed(rule.kinds)}, only on {_listed(kinds)}; remove it",
            )
        elif isinstance(value, str) and not value.strip():
            yield (name,), "is empty: write a name, or remove it"
        elif isinstance(value, str) and len(value) > _LONGEST:
            yield (name,), f"has {len(value)} characters; at most {_LONGEST} are possible"
    if rule.stages is not None and "end" not in rule.stages:
        yield (
            ("stages",),
            'has no "end", without which no outcome is known: write ["end"] or ["start", "end"]',
        )
    for entry in rule.content_types or ():
        if "/" not in entry and entry != "*":
            yield ("content_types",), f"{entry!r} is not a content type: write 'application/json' or 'text/*'"


def _of_pattern(condition: str, pattern: str) -> Iterator[str]:
    """Say what keeps a pattern from ever matching."""
    bare = pattern.removeprefix("!")
    if not bare or bare != bare.strip():
        yield f"{pattern!r} can never match: it is empty, or has a blank at its begin or end"
    elif condition == "path" and bare[0] not in "/*?":
        if "://" in bare:
            yield f"{pattern!r} can never match a path: write scheme and host apart, as host = …, path = '/…'"
        else:
            better = f"{'/' + bare!r} or {'*' + bare!r}"
            yield f"{pattern!r} can never match: a path begins with '/', so write {better}"
    elif condition == "path" and "#" in bare:
        yield f"{pattern!r} can never match: a server never sees what stands behind '#'"
    elif condition == "method" and not _TOKEN(bare):
        yield f"{pattern!r} is not a method: write one such as 'POST'; several are a list"
    elif condition == "status":
        matches = matcher(normal_patterns("status", [bare]))
        if not any(matches(str(status)) for status in range(100, 600)):
            yield f"{pattern!r} matches no status: write a number from 100 to 599, or '4xx'"
    elif condition == "host" and ("/" in bare or "@" in bare):
        yield f"{pattern!r} can never match a host: write name or name:port, without scheme and path"
    elif condition in ("view", "task", "command", "model") and re.search(r"\s", bare):
        yield f"{pattern!r} can never match: the name of a {condition} has no blanks; several are a list"
    elif condition == "view" and "/" in bare:
        yield f"{pattern!r} can never match a view, which is a dotted name; write it as path or route"


def _covers(before: PolicyRule, rule: PolicyRule) -> bool:
    """Say whether an earlier rule matches all that a rule matches."""
    if not set(rule.kinds) <= set(before.kinds):
        return False
    for name in CONDITIONS:
        patterns = before.patterns(name)
        if patterns:
            mine = rule.patterns(name)
            if not mine or not normal_patterns(name, patterns).covers(normal_patterns(name, mine)):
                return False
    return True


def _listed(kinds: Sequence[str]) -> str:
    return " and ".join(kinds)
