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

from otel_audit.audit_record import UNKNOWN, Actor
from otel_audit.http.actor import ANONYMOUS_ACTOR, UNKNOWN_ACTOR
from otel_audit.instrumentation.django.identity.impersonation import acting_for, session_impersonator
from otel_audit.interruptions import faults
from otel_audit.values import text

_logger = logging.getLogger(__name__)

_SESSION_USER_ID: Final = "_auth_user_id"
_SIGNED_COOKIES: Final = "django.contrib.sessions.backends.signed_cookies"


def request_actor(
    request: HttpRequest, user: Any, session_key: str = "", *, roles: bool = False, real: Actor | None = None
) -> Actor:
    """Say who makes ``request``, as far as that is known by now; never raises.

    Where somebody has taken over another's account, the actor is who really acts, on behalf of that user.

    Args:
        user: what :func:`evaluated_user` gives.
        session_key: where an application of its own keeps the id of who really acts.
        roles: whether to say whether it is staff, and the like.
        real: who really acts, where that is known already.
    """
    try:
        if user is not None:
            actor = user_actor(user, roles=roles)
            if actor is None:
                return _session_actor(request, session_key) or UNKNOWN_ACTOR
            if actor.type != "user":
                return actor
            return _real_actor(request, actor, session_key, roles=roles, real=real)
        if request.__dict__.get("session") is None:
            return UNKNOWN_ACTOR if _session_cookie(request) else ANONYMOUS_ACTOR
        actor = _session_actor(request, session_key)
        return actor or (UNKNOWN_ACTOR if _unread_session(request) else ANONYMOUS_ACTOR)
    except faults():  # user models, proxies and session backends of others may do anything
        _logger.debug("the actor of a request cannot be determined", exc_info=True)
        return UNKNOWN_ACTOR


def _real_actor(
    request: HttpRequest, actor: Actor, session_key: str, *, roles: bool, real: Actor | None
) -> Actor:
    try:  # anything of the application's may have that name
        impersonator = unwrapped(request.__dict__.get("impersonator"))  # as django-impersonate has it
        found = user_actor(impersonator, roles=roles) if hasattr(impersonator, "pk") else None
        if found is not None and found.type == "user":
            return acting_for(found, actor)
    except faults() as error:
        _logger.debug("request.impersonator cannot be read: %r", error)
    try:
        session = getattr(request.__dict__.get("session"), "__dict__", {}).get("_session_cache")
        # Whoever is authenticated in another way, by a token, is not whom the session tells of.
        if real is None and session and session.get(_SESSION_USER_ID) == actor.id:
            real = session_impersonator(session, session_key)
    except faults() as error:
        _logger.debug("the session's impersonator cannot be read: %r", error)
    return actor if real is None else acting_for(real, actor)


def actor_before_login(request: HttpRequest) -> Actor:
    """Say who made ``request`` up to the login that has just replaced its user."""
    for name in ("_cached_user", "_acached_user"):  # what request.user was, if anybody asked
        user = unwrapped(request.__dict__.get(name))
        if user is not None:
            return user_actor(user) or UNKNOWN_ACTOR
    return UNKNOWN_ACTOR if request.COOKIES.get(settings.SESSION_COOKIE_NAME) else ANONYMOUS_ACTOR


def evaluated_user(request: HttpRequest) -> Any:
    """Return the user object the application has put on ``request``, None while it is lazy."""
    values = request.__dict__
    for name in ("user", "_cached_user", "_acached_user"):  # the last two: auth.get_user(), request.auser()
        user = values.get(name)
        if user is not None and (user := unwrapped(user)) is not None:
            return user
    return None


def unwrapped(user: Any) -> Any:
    """Return the object behind a lazy one, None if it was not evaluated yet."""
    # type(), not isinstance(): that would ask the proxy for its class, and so evaluate it.
    while issubclass(type(user), LazyObject):
        user = object.__getattribute__(user, "__dict__").get("_wrapped", empty)
        if user is empty:
            return None
    return user


def user_actor(user: Any, *, roles: bool = False) -> Actor | None:
    """Turn a user object into an actor: id by primary key, name by its user name field, ``roles`` if asked.

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
    name = user_name(user)
    if not roles:
        return Actor(id=identifier or UNKNOWN, type="user", name=name)
    return Actor(id=identifier or UNKNOWN, type="user", name=name, roles=user_roles(user))


def user_roles(user: Any) -> str:
    """Return ``staff``, ``superuser``, ``group:<name>`` separated by commas, as far as they are loaded."""
    values = getattr(user, "__dict__", {})
    roles = [name for name in ("staff", "superuser") if values.get(f"is_{name}") is True]
    prefetched = values.get("_prefetched_objects_cache", {}).get("groups", ())
    groups = getattr(prefetched, "_result_cache", prefetched) or ()  # not by iteration: it might query
    roles += sorted(f"group:{text(group.__dict__.get('name', ''))}" for group in groups)
    return ",".join(roles)


def user_name(user: Any) -> str:
    """Return a user's name, ``""`` where it was not loaded."""
    field = getattr(type(user), "USERNAME_FIELD", "username")
    values = getattr(user, "__dict__", {})
    if field in values:  # not getattr(): a deferred field would be fetched
        name = values[field]
    else:
        name = None if hasattr(type(user), "_meta") else getattr(user, field, None)
    return text(name)


def session_key(request: HttpRequest) -> str:
    """Return the key of the session ``request`` belongs to, ``""`` if none."""
    session = request.__dict__.get("session")
    if session is None:
        return _session_cookie(request)
    return getattr(session, "session_key", None) or ""


def _session_cookie(request: HttpRequest) -> str:
    # Without any, nothing is parsed and no name asked for: a look at a setting of Django's takes long.
    cookies = request.__dict__.get("COOKIES")
    if cookies is None:
        cookies = request.COOKIES if request.META.get("HTTP_COOKIE") else None
    return (cookies.get(settings.SESSION_COOKIE_NAME) or "") if cookies else ""


def _unread_session(request: HttpRequest) -> bool:
    session = request.__dict__.get("session")
    loaded = "_session_cache" in getattr(session, "__dict__", ())
    return not loaded and bool(session_key(request))


def _session_actor(request: HttpRequest, session_key: str) -> Actor | None:
    session = _loaded_session(request)
    user_id = None if session is None else session.get(_SESSION_USER_ID)
    if session is None or user_id is None:
        return None
    actor = Actor(id=str(user_id), type="user")
    real = session_impersonator(session, session_key)
    return actor if real is None else acting_for(real, actor)


def _loaded_session(request: HttpRequest) -> dict[str, Any] | None:
    """Return what is known of the session without a query."""
    session = request.__dict__.get("session")
    if session is None:
        return None
    loaded: dict[str, Any] | None = getattr(session, "__dict__", {}).get("_session_cache")
    if loaded is None and type(session).__module__ == _SIGNED_COOKIES and session.session_key:
        return type(session)(session.session_key).load()  # type: ignore[no-any-return]
    return loaded
