"""Who is logged in, as an application says it that authenticates by itself: one call each.

Django's own logins, logouts and failed logins are recorded without any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_audit.audit_context import current_context
from otel_audit.audit_record import UNKNOWN, Actor, AuditRecord, Target
from otel_audit.http.actor import ANONYMOUS_ACTOR, UNKNOWN_ACTOR, authenticated
from otel_audit.http.request_scope import RequestScope
from otel_audit.pipeline import provider
from otel_audit.values import text

_logger = logging.getLogger(__name__)

_MAX_NAME: Final = 254
_PLAIN: Final = (str, int, Mapping)
_said: Final[set[str]] = set()

listeners: Final[list[Callable[[str, str], None]]] = []
"""Whoever counts logins: called with ``login`` and the id of the user, or ``login_failed`` and the name that
was given. They do not raise."""


def set_actor(user: Any) -> None:
    """Say who makes the current request, where the application finds out by itself: in a dependency, say.

    Records made from now on name this actor, those made before keep theirs. Outside a request use
    ``with otel_audit.context(actor=...)``. Never raises.

    Args:
        user: an :class:`Actor`, an id, a user object, or a mapping of claims (``sub``); None takes back what
            was said before.
    """
    scope = _request()
    if scope is not None:
        scope.set_actor(authenticated(user))
    elif provider.current() is not None and "set_actor" not in _said:
        _said.add("set_actor")
        _logger.warning(
            "otel_audit.set_actor() was called outside a request and has no effect there: write "
            "`with otel_audit.context(actor=...)`. In Django the actor is request.user"
        )


def login(
    user: Any, *, target: Target | None = None, attributes: Mapping[str, Any] | None = None
) -> AuditRecord | None:
    """Record that ``user`` has logged in; from now on they make the current request.

    Args:
        user: see :func:`set_actor`.
        target: the account. Default: made of the class and the id of ``user``.
        attributes: additional values, by name: how they logged in.

    Returns:
        The record, or None if it was not kept.
    """
    actor = authenticated(user) or UNKNOWN_ACTOR
    scope = _request()
    if scope is not None:
        scope.logged_in(actor)
    for listener in listeners:
        listener("login", actor.id)
    return _succeeded("user.login.success", "LOGIN", user, actor, target, attributes)


def logout(
    user: Any = None, *, target: Target | None = None, attributes: Mapping[str, Any] | None = None
) -> AuditRecord | None:
    """Record that a user has logged out; the rest of the current request is nobody's.

    Args:
        user: who it was. Default: who makes the current request.
        target: the account. Default: as for :func:`login`.
        attributes: additional values, by name.

    Returns:
        The record; None if nobody was logged in, or if it was not kept.
    """
    scope = _request()
    before = None if scope is None else scope.logged_out()
    actor = before if user is None else authenticated(user)
    if actor is None or actor.type == "unknown":
        return None
    return _succeeded("user.logout", "LOGOUT", user, actor, target, attributes)


def login_failed(
    name: Any,
    *,
    known: bool = False,
    error: str = "authentication_failed",
    attributes: Mapping[str, Any] | None = None,
) -> AuditRecord | None:
    """Record that somebody has tried to log in and could not.

    Args:
        name: the user name that was given, never the password.
        known: whether an account has this name. One that belongs to no account may be a password, typed into
            the wrong field: ``redaction.unknown_user_names`` says what becomes of it.
        error: why, in a word.
        attributes: additional values, by name.

    Returns:
        The record, or None if it was not kept.
    """
    for listener in listeners:
        listener("login_failed", text(name)[:_MAX_NAME])
    logger = provider.current_logger()
    if logger is None:
        return None
    strategy = logger.config.redaction.unknown_user_names
    return logger.log(
        "user.login.failure",
        "LOGIN",
        outcome="failure",
        actor=ANONYMOUS_ACTOR,  # the name is a claim
        target=Target("user.name", text(name)[:_MAX_NAME] or UNKNOWN),
        error=error,
        attributes=attributes,
        key_strategies=None if known or strategy == "keep" else (strategy,),
    )


def _succeeded(
    event_name: str,
    action: str,
    user: Any,
    actor: Actor,
    target: Target | None,
    attributes: Mapping[str, Any] | None,
) -> AuditRecord | None:
    logger = provider.current_logger()
    if logger is None:
        return None
    account = target or Target(_kind(user), actor.id)
    return logger.log(
        event_name, action, outcome="success", actor=actor, target=account, attributes=attributes
    )


def _request() -> RequestScope | None:
    context = current_context()
    scope = None if context is None else context.scope
    return scope if isinstance(scope, RequestScope) else None


def _kind(user: Any) -> str:
    """Name the class of an account as changes to it are named, ``user`` where it is not an object."""
    if user is None or isinstance(user, (Actor, *_PLAIN)) or type(user).__module__ == "uuid":
        return "user"
    kind = type(user)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
