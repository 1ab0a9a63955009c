"""Who makes a request, from what the application has already found out.

Nothing is evaluated, loaded or queried: no lazy user, no session, no deferred field. Reading must not change
what the application does, add a ``Vary: Cookie`` or fail in the middle of a transaction.

What that means where a view never asks who the user is:

* the session was loaded by anything (a message, a CSRF token): its user id is the actor;
* the session lives in a signed cookie: it is read from there, that costs no query;
* there is a session cookie that nobody has looked at: the application has authenticated nobody, and so do
  we not: ``unknown``. The record carries the hash of the session, and so does the login that began it;
* there is no session: ``anonymous``.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import LazyObject, empty

from otel_audit.interruptions import faults
from otel_audit.record import UNKNOWN, Actor
from otel_audit.values import text

_logger = logging.getLogger(__name__)

ANONYMOUS_ACTOR: Final = Actor()
UNKNOWN_ACTOR: Final = Actor(id=UNKNOWN)

_SESSION_USER_ID: Final = "_auth_user_id"
_SIGNED_COOKIES: Final = "django.contrib.sessions.backends.signed_cookies"


def request_actor(request: HttpRequest, user: Any) -> Actor:
    """Say who makes ``request``, as far as that is known by now; never raises.

    ``user`` is what :func:`evaluated_user` gives.
    """
    try:
        if user is not None:
            return user_actor(user) or _session_actor(request) or UNKNOWN_ACTOR
        return _session_actor(request) or (UNKNOWN_ACTOR if _unread_session(request) else ANONYMOUS_ACTOR)
    except faults():  # user models, proxies and session backends of others may do anything
        _logger.debug("cannot say who makes the request", exc_info=True)
        return UNKNOWN_ACTOR


def actor_before_login(request: HttpRequest) -> Actor:
    """Say who made ``request`` up to the login that has just replaced its user."""
    for name in ("_cached_user", "_acached_user"):  # what request.user was, if anybody asked
        user = unwrapped(request.__dict__.get(name))
        if user is not None:
            return user_actor(user) or UNKNOWN_ACTOR
    return UNKNOWN_ACTOR if request.COOKIES.get(settings.SESSION_COOKIE_NAME) else ANONYMOUS_ACTOR


def evaluated_user(request: HttpRequest) -> Any:
    """Give the user object the application has put on ``request``, None while it is lazy."""
    values = request.__dict__
    for name in ("user", "_cached_user", "_acached_user"):  # the last two: auth.get_user(), request.auser()
        user = unwrapped(values.get(name))
        if user is not None:
            return user
    return None


def unwrapped(user: Any) -> Any:
    """Give the object behind a lazy one, None if it was not evaluated yet."""
    # type(), not isinstance(): that would ask the proxy for its class, and so evaluate it.
    while issubclass(type(user), LazyObject):
        user = object.__getattribute__(user, "__dict__").get("_wrapped", empty)
        if user is empty:
            return None
    return user


def user_actor(user: Any) -> Actor | None:
    """Turn a user object into an actor: id by primary key, name by its user name field.

    None if the object has lost its key, as an account does that was just deleted.
    """
    if not getattr(user, "is_authenticated", True):
        return ANONYMOUS_ACTOR
    key = getattr(user, "pk", None)
    if key is None:
        key = getattr(user, "id", None)
    if key is None:
        return None
    identifier = str(key) if type(key) is int else text(key)
    return Actor(id=identifier or UNKNOWN, type="user", name=user_name(user))


def user_name(user: Any) -> str:
    """Give a user's name, ``""`` where it was not loaded."""
    field = getattr(type(user), "USERNAME_FIELD", "username")
    values = getattr(user, "__dict__", {})
    if field in values:  # not getattr(): a deferred field would be fetched
        name = values[field]
    else:
        name = None if hasattr(type(user), "_meta") else getattr(user, field, None)
    return text(name)


def session_key(request: HttpRequest) -> str:
    """Give the key of the session ``request`` belongs to, ``""`` if none."""
    session = request.__dict__.get("session")
    if session is None:
        return request.COOKIES.get(settings.SESSION_COOKIE_NAME) or ""
    return getattr(session, "session_key", None) or ""


def _unread_session(request: HttpRequest) -> bool:
    session = request.__dict__.get("session")
    loaded = "_session_cache" in getattr(session, "__dict__", ())
    return not loaded and bool(session_key(request))


def _session_actor(request: HttpRequest) -> Actor | None:
    session = request.__dict__.get("session")
    if session is None:
        return None
    loaded = getattr(session, "__dict__", {}).get("_session_cache")
    if loaded is None:
        if type(session).__module__ != _SIGNED_COOKIES or not session.session_key:
            return None
        loaded = type(session)(session.session_key).load()
    user_id = loaded.get(_SESSION_USER_ID)
    return None if user_id is None else Actor(id=str(user_id), type="user")
