"""Counts, whatever happens to what counts; and makes a record of each refusal. Knows no framework."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

from otel_audit.audit_record import Target
from otel_audit.config.globs import Globs, matcher
from otel_audit.config.model import AuditConfig, ThrottlingRuleConfig
from otel_audit.contrib.throttling.counters.windows import Change, Counter, Refusal, Window
from otel_audit.contrib.throttling.rules import DEFAULTS, Rule, ThrottlingException
from otel_audit.interruptions import faults
from otel_audit.location import view_name
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline import provider
from otel_audit.pipeline.application_function import imported
from otel_audit.pipeline.failures import Failures
from otel_audit.semconv import (
    THROTTLING_LIMIT,
    THROTTLING_MESSAGE,
    THROTTLING_RETRY_AFTER,
    THROTTLING_RULE,
    THROTTLING_TIMEFRAME,
)

PAUSE: Final = 5.0
"""Seconds without counting after it has failed or was slow."""
_PLACE: Final = "throttling"
_LONGEST: Final = 500


class Configured(NamedTuple):
    """What the configuration asks for: rules and validators, and the part of an application they stand in."""

    rules: tuple[Rule, ...]
    validators: tuple[Any, ...]


def failures_of(config: AuditConfig) -> Failures:
    """Return what takes the failures of throttling."""
    return Failures("throttling", config, provider.current_health, doing="throttling")


class Throttler:
    """Counts for all requests of this process.

    Args:
        config: the whole configuration.
        counter: what counts.
        failures: takes what goes wrong in counting.
        clock: seconds, for how long counting takes.
    """

    def __init__(
        self,
        config: AuditConfig,
        counter: Counter,
        failures: Failures,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        section = config.throttling
        self.section = section
        self.trusted_proxies = config.context.trusted_proxies
        self.counter = counter
        self.failures = failures
        self.fail_closed = (section.on_error or config.on_error) == "fail_closed"
        self._is_exempt = matcher(Globs.of(section.exempt)) if section.exempt else None
        self._clock = clock
        self._broken_until = 0.0
        self._configured: Configured | None = None

    # --- counting -------------------------------------------------------------------------------

    def step(self, windows: list[Window], change: Change) -> Refusal | None:
        """Count, and say if it is refused.

        Raises:
            ThrottlingException: nothing can be counted, and ``on_error`` is ``fail_closed``.
        """
        if self._is_broken():
            self._without_counting()
            return None
        begun = self._clock()
        try:
            refusal = self.counter.step(windows, change)
        except faults() as fault:
            self._broke(fault)
            self._without_counting()
            return None
        self._took(self._clock() - begun)
        return refusal

    async def step_async(self, windows: list[Window], change: Change) -> Refusal | None:
        """Do the same without holding up the event loop."""
        if self.counter.instant:
            return self.step(windows, change)
        if self._is_broken():
            self._without_counting()
            return None
        begun = self._clock()
        try:
            async with asyncio.timeout(self.section.timeout or None):
                refusal = await self.counter.step_async(windows, change)
        except faults() as fault:
            self._broke(fault)
            self._without_counting()
            return None
        self._took(self._clock() - begun)
        return refusal

    def _is_broken(self) -> bool:
        """Say whether not to ask what counts; after a pause one request tries whether it works again."""
        if not self._broken_until:
            return False
        now = self._clock()
        if now < self._broken_until:
            return True
        self._broken_until = now + PAUSE
        return False

    def _broke(self, fault: Exception) -> None:
        self._broken_until = self._clock() + PAUSE
        become = "refused" if self.fail_closed else "let through"
        self.failed(fault, "counting", f"for {PAUSE:g} s nothing is counted, and requests are {become}")

    def failed(self, fault: BaseException, what: str, instead: str) -> None:
        """Log and count what went wrong in throttling, and say what happens instead."""
        self.failures.note(_PLACE, fault, what=what, instead=instead)

    def _took(self, seconds: float) -> None:
        timeout = self.section.timeout
        if timeout and seconds > timeout and not self.counter.instant:
            self._broke(TimeoutError(f"counting took {seconds:.3f} s, throttling.timeout is {timeout:g} s"))
        else:
            self._broken_until = 0.0

    def _without_counting(self) -> None:
        if self.fail_closed:
            raise ThrottlingException("Try again later", retry_after=PAUSE, status=503)

    # --- rules ----------------------------------------------------------------------------------

    def configured(self) -> Configured:
        """Return the rules and validators that the configuration names; made at the first request.

        A part of it that cannot be made is reported, and under ``fail_closed`` refuses every request.
        """
        if self._configured is None:
            self._configured = self._make()
        return self._configured

    def _make(self) -> Configured:
        section = self.section
        rules = {rule.name: rule for rule in DEFAULTS} if section.defaults else {}
        others: list[Any] = []
        try:
            for name, each in section.rules.items():
                rules[name] = rule_of(name, each)
            if section.validators:
                others = list(imported(section.validators))
        except faults() as fault:
            become = "requests are refused" if self.fail_closed else "the others hold"
            self.failed(fault, "making the rules of the configuration", become)
            if self.fail_closed:
                others = [_Closed()]
        more = [each for each in others if isinstance(each, Rule)]
        own = tuple(each for each in others if not isinstance(each, Rule))
        return Configured((*rules.values(), *more), own)

    def is_exempt(self, path: str) -> bool:
        """Say whether nothing that the configuration names is for a path."""
        return self._is_exempt is not None and bool(self._is_exempt(path))

    def network(self, address: str) -> str:
        """Return what counts as one address."""
        return _network(address, self.section.ipv6_prefix)

    # --- records --------------------------------------------------------------------------------

    def record(self, refusal: ThrottlingException, route: str) -> None:
        """Record that a request was refused, once."""
        if refusal.recorded:
            return
        refusal.recorded = True
        logger = provider.current_logger()
        if logger is None:
            return
        rule = refusal.rule
        attributes: dict[str, Any] = {
            "http.response.status_code": refusal.status,
            THROTTLING_RETRY_AFTER: refusal.retry_after,
        }
        if rule is not None:
            attributes |= {
                THROTTLING_RULE: f"{rule.name}: {rule}" if rule.name else str(rule),
                THROTTLING_LIMIT: rule.number,
                THROTTLING_TIMEFRAME: rule.timeframe,
            }
        elif type(refusal.message) is str:
            attributes[THROTTLING_MESSAGE] = refusal.message[:_LONGEST]
        if refusal.validator is not None:
            attributes[THROTTLING_RULE] = view_name(type(refusal.validator))
        logger.log(
            "http.request.throttled",
            "REFUSE",
            outcome="failure",
            target=Target("http.route", route or "/"),
            error=str(refusal.status),
            message=attributes.get(THROTTLING_RULE, ""),  # lists show it: what was too much
            attributes=attributes,
        )


class _Closed:
    """Stands for rules that could not be made: lets nobody through."""

    def validate(self, request: Any) -> None:
        raise ThrottlingException("Try again later", retry_after=PAUSE, status=503)


def rule_of(name: str, config: ThrottlingRuleConfig) -> Rule:
    """Make a rule of its table in the configuration.

    Raises:
        ValueError: it makes no sense, see :class:`Rule`.
        ImportError, AttributeError: a function is not there.
    """
    by: list[Any] = [who if who in ("address", "user") else imported(who) for who in config.by]
    return Rule(
        config.number,
        config.timeframe,
        on=config.on,
        by=by,
        message=config.message,
        name=name,
        path=config.path,
        method=config.method,
    )


@lru_cache(maxsize=4096)
def _network(address: str, prefix: int) -> str:
    try:
        if ip_address(address).version == 6:
            return str(ip_network((address.partition("%")[0], prefix), strict=False))
    except ValueError:  # "unknown"
        return address
    return address
