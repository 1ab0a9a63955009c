"""One request, and what is looked at in it; written once for sync and async.

Each method that decides is a generator: it yields what it must know (a count, a user, what a validator
awaits), and :meth:`Work.run` or :meth:`Work.run_async` finds it out.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, Final

from otel_audit.contrib.throttling.asking import Asked, Asking, Count, Placed, WhoAsks
from otel_audit.contrib.throttling.counters.windows import Change, Refusal, Window
from otel_audit.contrib.throttling.rules import On, Rule, ThrottlingException
from otel_audit.contrib.throttling.throttler import Throttler
from otel_audit.interruptions import faults

_LONGEST_NAME: Final = 254


class Work:
    """What is looked at in one request: each rule once, however often its view says so."""

    __slots__ = (
        "asked",
        "attempt",
        "decided",
        "deferred",
        "done",
        "exempt",
        "later",
        "login_rules",
        "network",
        "refusal",
        "throttle",
    )

    def __init__(self, throttle: Throttler, asked: Asked) -> None:
        self.throttle = throttle
        self.asked = asked
        self.decided = False
        self.exempt = False
        self.network = ""
        self.done: set[int] = set()
        self.login_rules: list[Placed] = []
        self.attempt: list[Window] = []
        self.deferred: list[Placed] = []
        self.later: list[Asking] | None = None
        self.refusal: ThrottlingException | None = None

    # --- driving --------------------------------------------------------------------------------

    def run(self, asking: Asking) -> None:
        """Let ``asking`` decide.

        Raises:
            ThrottlingException: the request is refused. It is recorded.
        """
        answer: Any = None
        try:
            while True:
                question = asking.send(answer)
                if isinstance(question, Count):
                    answer = self.throttle.step(question.windows, question.change)
                elif isinstance(question, WhoAsks):
                    answer = self.asked.user()
                else:
                    _close(question)
                    error = TypeError("a validator is async, and the request is not")
                    self.throttle.failed(error, "a validator", "the request is let through")
                    answer = None
        except StopIteration:
            return
        except ThrottlingException as refusal:
            self._refused(refusal)
            raise

    async def run_async(self, asking: Asking) -> None:
        """Do the same without holding up the event loop."""
        answer: Any = None
        try:
            while True:
                question = asking.send(answer)
                if isinstance(question, Count):
                    answer = await self.throttle.step_async(question.windows, question.change)
                elif isinstance(question, WhoAsks):
                    answer = await self.asked.user_async()
                else:
                    answer = await question
        except StopIteration:
            return
        except ThrottlingException as refusal:
            self._refused(refusal)
            raise

    def _refused(self, refusal: ThrottlingException) -> None:
        self.refusal = refusal
        self.throttle.record(refusal, self.asked.route)

    # --- requests -------------------------------------------------------------------------------

    def pass_by(self) -> None:
        """Look at nothing: the view is exempt."""
        self.decided = self.exempt = True

    def begin(
        self, marked: Sequence[tuple[Any, str]] = (), *, defaults: bool = True, users: bool = True
    ) -> Asking:
        """Look at what the configuration says, and at what the view says.

        Args:
            marked: rules and validators of the view, and where each stands.
            defaults: whether the view keeps what the configuration says.
            users: whether the user can be known by now; if not, the rest waits for :meth:`when_known`.
        """
        self.decided = True
        all_of_them: list[tuple[Any, str]] = []
        if defaults and not self.throttle.is_exempt(self.asked.path):
            configured = self.throttle.configured()
            all_of_them += [(rule, "") for rule in configured.rules]
            all_of_them += [(validator, "") for validator in configured.validators]
        yield from self.look_at([*all_of_them, *marked], users=users)

    def look_at(self, marked: Iterable[tuple[Any, str]], *, users: bool = True) -> Asking:
        """Look at rules and validators that were not looked at before."""
        if self.exempt:
            return
        path, method = self.asked.path, self.asked.method
        now: list[Placed] = []
        looks: list[Placed] = []
        own: list[Any] = []
        for each, place in marked:
            if id(each) in self.done:
                continue
            self.done.add(id(each))
            if not isinstance(each, Rule):
                own.append(each)
            elif not each.is_for(path, method):
                continue
            elif each.on != "request":
                if place:
                    self.login_rules.append((each, place))
                if not each.needs_user and (place or each.path):
                    looks.append((each, place))
            elif each.needs_user and not users:
                self.deferred.append((each, place))
            else:
                now.append((each, place))
        yield from self._count(now, 1)
        yield from self._count(looks, 0)
        for validator in own:
            yield from self._validate(validator)

    def when_known(self) -> Asking:
        """Look at what had to wait until the user is known."""
        deferred, self.deferred = self.deferred, []
        yield from self._count(deferred, 1)

    def what_is_left(self) -> Asking | None:
        """Return what nobody has looked at when the answer is there; None if all was."""
        if not self.decided:
            return self.begin()
        return self.when_known() if self.deferred and self.refusal is None else None

    def _validate(self, validator: Any) -> Asking:
        try:
            answer = validator.validate(self.asked.request)
            if inspect.isawaitable(answer):
                yield answer
        except ThrottlingException as refusal:
            refusal.validator = validator
            raise

    # --- logins ---------------------------------------------------------------------------------

    def begin_login(self, name: str) -> Asking:
        """Take a place among the failed logins of ``name``; it is given back if the login succeeds.

        So that no more attempts are made at a time than may fail.
        """
        yield from self._give_back()
        rules = self._login_rules("login_failed")
        if rules:
            windows = self._windows(rules, _folded(name))
            yield from self._conclude(rules, windows, 1)
            self.attempt = [window for window, _ in windows]

    def authenticated(self, user: str) -> Asking:
        """Give back the place of a login that has not failed; look if ``user`` has logged in too often."""
        yield from self._give_back()
        yield from self._count(self._login_rules("login"), 0, user)

    def logged_in(self, user: str) -> Asking:
        """Count a successful login."""
        yield from self._give_back()
        windows = self._windows(self._login_rules("login"), user)
        if windows:
            yield Count([window for window, _ in windows], 1)

    def login_failed(self, name: str) -> Asking:
        """Count a failed login, if :meth:`begin_login` did not."""
        if self.attempt:
            self.attempt = []
            return
        windows = self._windows(self._login_rules("login_failed"), _folded(name))
        if windows:
            yield Count([window for window, _ in windows], 1)

    def _give_back(self) -> Asking:
        windows, self.attempt = self.attempt, []
        if windows:
            yield Count(windows, -1)

    def _login_rules(self, on: On) -> list[Placed]:
        if self.exempt:
            return []
        path, method = self.asked.path, self.asked.method
        configured = () if self.throttle.is_exempt(path) else self.throttle.configured().rules
        return [
            (rule, place)
            for rule, place in (*((rule, "") for rule in configured), *self.login_rules)
            if rule.on == on and rule.is_for(path, method)
        ]

    # --- both -----------------------------------------------------------------------------------

    def _count(self, rules: list[Placed], change: Change, user: str | None = None) -> Asking:
        if not rules:
            return
        if user is None and any(rule.needs_user for rule, _ in rules):
            user = yield WhoAsks()
        windows = self._windows(rules, user or "")
        yield from self._conclude(rules, windows, change)

    def _conclude(self, rules: list[Placed], windows: list[tuple[Window, Rule]], change: Change) -> Asking:
        if not windows:
            return
        refusal: Refusal | None = yield Count([window for window, _ in windows], change)
        if refusal is not None:
            rule = windows[refusal.position][1]
            raise ThrottlingException(rule.message, retry_after=max(1.0, refusal.wait), rule=rule)

    def _windows(self, rules: list[Placed], user: str) -> list[tuple[Window, Rule]]:
        """Return the windows of ``rules`` for this request, each once; without those that are not for it."""
        found: dict[str, tuple[Window, Rule]] = {}
        for rule, place in rules:
            try:
                key = self._key(rule, place, user)
            except faults() as fault:
                self.throttle.failed(fault, f"whom {rule} counts together", "the request is not counted")
                continue
            if key is not None:
                found[key] = (Window(key, rule.number, rule.timeframe), rule)
        return list(found.values())

    def _key(self, rule: Rule, place: str, user: str) -> str | None:
        parts = [rule.identity(place)]
        for who in rule.by:
            if who == "address" or (who == "user" and not user):
                parts.append(self._address())
            elif who == "user":
                parts.append(f"user {user}")
            else:
                answer = who(self.asked.request)
                if answer is None:
                    return None
                if not isinstance(answer, str | int):
                    raise TypeError(f"it returned a {type(answer).__qualname__}, not a text or None")
                parts.append(f"that {answer}")
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=16).hexdigest()

    def _address(self) -> str:
        if not self.network:
            address = self.asked.address
            if not address:
                raise LookupError(
                    "the address of a request is not known: set context.trusted_proxies to the number of "
                    "proxies in front"
                )
            self.network = f"address {self.throttle.network(address)}"
        return self.network


current_work: Final[ContextVar[Work | None]] = ContextVar("otel_audit_throttling", default=None)
"""The request that is being answered, while throttling is on."""


def _folded(name: str) -> str:
    """Return what names an account whichever way it is typed."""
    return unicodedata.normalize("NFKC", name[:_LONGEST_NAME]).casefold().strip()


def _close(awaitable: Any) -> None:
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
