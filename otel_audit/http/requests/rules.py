"""How much is recorded of which request: the configuration, made ready once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from otel_audit.config.model import AuditConfig
from otel_audit.config.sections.policy import NAMES_WORK
from otel_audit.http.contents import Contents
from otel_audit.http.contents.bodies.media_types import is_shown, media_type
from otel_audit.http.requests.marks import Marks
from otel_audit.notes import Notes
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.policy import Decision, Facts, Level, Policy

NO_RULE: Final = Decision()
"""What is decided where there is no rule: metadata."""


class RequestRules:
    """What is recorded of requests, as configured.

    Args:
        config: the whole configuration.
        logger: the current one, if any.
        failures: told of every fault of ours.
    """

    def __init__(
        self, config: AuditConfig, logger: Callable[[], AuditLogger | None], failures: Failures
    ) -> None:
        section = config.requests
        self.logger = logger
        self.failures = failures
        self.policy = Policy.of(config)
        self.contents = Contents.of(config)
        self.tenant = config.tenant
        self._request_limit = section.max_request_body
        self._response_limit = section.max_response_body
        self._types = tuple(section.content_types)
        rules = [rule for rule in config.policy if "request" in rule.kinds]
        self.has_rules = bool(rules)
        self.starts = any("start" in (rule.stages or ()) for rule in rules)
        """Whether any rule asks for a record before a request is answered."""
        self.copied = Contents.worth_keeping(
            max(
                section.max_request_body,
                section.max_response_body,
                *(rule.max_request_body or 0 for rule in rules),
                *(rule.max_response_body or 0 for rule in rules),
            )
        )
        """Bytes that are kept of a body until it is known what of it is recorded."""
        self._all_types = {
            self._types,
            *(tuple(rule.content_types) for rule in rules if rule.content_types is not None),
        }
        self.may_copy = lru_cache(maxsize=256)(self._may_copy)
        """Says whether a body of this Content-Type may be recorded by any rule."""
        self._naming = frozenset(
            number for number, rule in enumerate(config.policy, 1) if rule.names(*NAMES_WORK)
        )

    def is_certain(self, facts: Facts) -> bool:
        """Say whether rules that name the work have decided already."""
        return all(each.rule in self._naming for each in self.policy.possible("request", facts))

    def may_start(self, facts: Facts) -> bool:
        """Say whether a rule that may still decide asks for a record before the request is answered."""
        return any(
            each.level is not Level.NONE and "start" in each.stages
            for each in self.policy.possible("request", facts)
        )

    def level(self, decision: Decision, marks: Marks, notes: Notes | None) -> Level:
        """Return how much of a request is recorded.

        A rule that names the view, route or path decides, then what the view says in the request or of
        itself, then any other rule.
        """
        if decision.rule in self._naming:
            return decision.level
        if notes is not None and notes.level is not None:
            return Level(notes.level)
        if marks.exempt:
            return Level.NONE
        return decision.level if marks.level is None else marks.level

    def _may_copy(self, content_type: str) -> bool:
        name = media_type(content_type).name
        return bool(name) and any(is_shown(name, types) for types in self._all_types)

    def types(self, decision: Decision) -> Sequence[str]:
        """Return the content types whose bodies are recorded."""
        return self._types if decision.content_types is None else decision.content_types

    def request_limit(self, decision: Decision) -> int:
        """Return the most that is recorded of a request's body, in bytes."""
        return self._request_limit if decision.max_request_body is None else decision.max_request_body

    def response_limit(self, decision: Decision) -> int:
        """Return the most that is recorded of a response's body, in bytes."""
        return self._response_limit if decision.max_response_body is None else decision.max_response_body
