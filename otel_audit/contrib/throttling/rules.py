"""What is counted, whose is counted together, and how many may be: rules, and the exception of a refusal."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias

from otel_audit.config.globs import Globs, matcher

On = Literal["request", "login", "login_failed"]
Who: TypeAlias = Literal["address", "user"] | Callable[[Any], object]
_KINDS: Final = {
    "request": "Slow down",
    "login": "You have logged in too many times",
    "login_failed": "Too many login attempts",
}


class ThrottlingException(Exception):
    """Somebody has asked too often; the answer is 429, or what the failure view makes of it.

    Args:
        message: what the answer says; may be lazily translated.
        retry_after: seconds after which it is worth to ask again, 0 if that is not known.
        rule: what refused.
        status: of the answer; 503 where nothing can be counted.
    """

    recorded: bool = False
    """Whether its record was made."""
    validator: Validator | None = None
    """What raised it, if that was no rule."""

    def __init__(
        self, message: Any = "", *, retry_after: float = 0, rule: Rule | None = None, status: int = 429
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = math.ceil(retry_after)
        self.rule = rule
        self.status = status

    def __str__(self) -> str:
        return str(self.message)


class Validator(Protocol):
    """An application's own: one method, which may be async where the request is."""

    def validate(self, request: Any) -> Awaitable[None] | None:
        """Raise :class:`ThrottlingException` if ``request`` is to be refused."""
        ...


class Rule:
    """At most ``number`` in ``timeframe``.

    Args:
        number: how many are let through.
        timeframe: seconds, or a timedelta.
        on: what is counted: ``request``, ``login`` (successful), ``login_failed``.
        by: whose are counted together: ``address``, ``user``, a function that is called with the request and
            returns a text or None (then the rule is not for this request); or several, in combination.
            Default ``address``, for ``login_failed`` ``user`` and ``address``. The user of a failed login is
            the name that was given, that of a visitor his address.
        message: what the answer says.
        name: rules of one name count together, in whatever view. Default: each view counts by itself.
        path: paths that it is for, with ``*`` and ``?``; a leading ``!`` excludes. Default all.
        method: methods that it is for; default all.

    Raises:
        ValueError: it makes no sense. Failed logins by ``user`` alone do not: anybody could keep the owner of
            an account out of it.
    """

    __slots__ = (
        "_identities",
        "_is_for_path",
        "by",
        "message",
        "method",
        "name",
        "number",
        "on",
        "path",
        "timeframe",
    )

    def __init__(
        self,
        number: int,
        timeframe: int | timedelta,
        *,
        on: On = "request",
        by: Who | Sequence[Who] = (),
        message: Any = "",
        name: str = "",
        path: str | Sequence[str] = (),
        method: str | Sequence[str] = (),
    ) -> None:
        seconds = int(timeframe.total_seconds()) if isinstance(timeframe, timedelta) else timeframe
        several = isinstance(by, Sequence) and not isinstance(by, str)
        if not by:
            by = ("user", "address") if on == "login_failed" else ("address",)
        self.by: tuple[Who, ...] = tuple(by) if several else (by,)  # type: ignore[arg-type, assignment]
        self.number = number
        self.timeframe = seconds
        self.on: On = on
        self.message = message or _KINDS.get(on, "")
        self.name = name
        self.path = (path,) if isinstance(path, str) else tuple(path)
        self._is_for_path = matcher(Globs.of(self.path))
        self.method = tuple(
            each.upper() for each in ((method,) if isinstance(method, str) else tuple(method))
        )
        self._identities: dict[str, str] = {}
        problem = self._problem()
        if problem:
            raise ValueError(f"{self}: {problem}")

    def _problem(self) -> str:
        if type(self.number) is not int or self.number < 1:
            return f"number is {self.number!r}; write how many are let through, at least 1"
        if type(self.timeframe) is not int or self.timeframe < 1:
            return f"timeframe is {self.timeframe!r}; write whole seconds, at least 1"
        if self.on not in _KINDS:
            return f"on is {self.on!r}; write one of {', '.join(_KINDS)}"
        for who in self.by:
            if who not in ("address", "user") and not callable(who):
                return f"by is {who!r}; write address, user or a function"
        if self.on == "login_failed" and self.by == ("user",):
            return (
                "counted by user alone, anybody's failures would keep the owner of an account out of it; "
                'write by = ["user", "address"]'
            )
        return ""

    def __repr__(self) -> str:
        """Say what it does, as records name it: ``20 requests in 60 s by address``."""
        what = {"request": "requests", "login": "logins", "login_failed": "failed logins"}.get(
            self.on, self.on
        )
        return f"{self.number} {what} in {self.timeframe} s by {' and '.join(map(_who_name, self.by))}"

    @property
    def needs_user(self) -> bool:
        """Whether it can only be looked at when the user is known."""
        return self.by != ("address",)

    def is_for(self, path: str, method: str) -> bool:
        """Say whether it is for requests like this one."""
        return not (self.method and method not in self.method) and bool(self._is_for_path(path))

    def identity(self, scope: str) -> str:
        """Return what tells its counts from those of other rules; ``scope`` is where it stands."""
        found = self._identities.get(scope)
        if found is None:
            who = ",".join(map(_who_name, self.by))
            found = f"{self.name or scope}|{self.on}|{self.number}|{self.timeframe}|{who}"
            self._identities[scope] = found
        return found


def _who_name(who: Who) -> str:
    if isinstance(who, str):
        return who
    return f"{getattr(who, '__module__', '')}.{getattr(who, '__qualname__', type(who).__qualname__)}"


DEFAULTS: Final = (Rule(1000, 3600, name="hour"), Rule(20, 60, name="minute"))


def per_request(number: int, timeframe: int | timedelta, message: Any = "", **options: Any) -> Rule:
    """Count requests; see :class:`Rule`."""
    return Rule(number, timeframe, message=message, on="request", **options)


def per_login(number: int, timeframe: int | timedelta, message: Any = "", **options: Any) -> Rule:
    """Count successful logins; see :class:`Rule`."""
    return Rule(number, timeframe, message=message, on="login", **options)


def per_failed_login(number: int, timeframe: int | timedelta, message: Any = "", **options: Any) -> Rule:
    """Count failed logins, those of a user from an address; see :class:`Rule`."""
    return Rule(number, timeframe, message=message, on="login_failed", **options)
