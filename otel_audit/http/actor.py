"""Who acts, of what a web application keeps for who is authenticated: a user object, claims, an id.

Nothing is loaded or queried: of an object that SQLAlchemy maps only what it has loaded is read.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_audit.audit_record import UNKNOWN, Actor
from otel_audit.interruptions import faults
from otel_audit.pipeline.application_function import NOT_KNOWN, ApplicationFunction
from otel_audit.values import Conversion, key_text, text

_logger = logging.getLogger(__name__)

ANONYMOUS_ACTOR: Final = Actor()
UNKNOWN_ACTOR: Final = Actor(id=UNKNOWN)

_IDS: Final = ("id", "pk", "identity", "user_id", "uid", "uuid", "sub", "username", "email")
"""Attributes that name a user, best first; ``identity`` is Starlette's."""
_CLAIMS: Final = ("sub", "id", "user_id", "uid", "uuid", "username", "email")
"""The same of a mapping: claims of a token, what a session keeps."""
_NAMES: Final = ("username", "preferred_username", "display_name", "email", "name")
_NO_USER: Final = (bool, float, complex, bytes, bytearray, list, tuple, set, frozenset, type)


def user_actor(user: Any) -> Actor | None:
    """Turn what stands for a user into an actor; None if it says that nobody is authenticated.

    An :class:`Actor`, an id (text, number, UUID), a mapping (claims of a token: ``sub``) or a user object.

    Raises:
        TypeError: it is none of these, or has no id. The message says its type, and nothing of its content.
    """
    if user is None or user == "":
        return None
    if isinstance(user, Actor):
        return Conversion().texts(user)
    if isinstance(user, Mapping):
        return _from(user.get, _CLAIMS, _NAMES, user)
    if isinstance(user, _NO_USER) or inspect.isawaitable(user) or inspect.isroutine(user):
        raise TypeError(_no_user(user))
    if isinstance(user, str | int) or type(user).__module__ == "uuid":
        return Actor(id=text(user), type="user")
    if not _attribute(user, "is_authenticated", True):
        return None
    state = _attribute(user, "_sa_instance_state")
    if state is None:
        return _from(lambda name: _attribute(user, name), _IDS, _NAMES, user)
    loaded = state.dict
    key = state.key[1] if state.key else None
    if key is None:
        return _from(loaded.get, _IDS, _NAMES, user)
    return Actor(key_text(key[0] if len(key) == 1 else key), "user", _first(loaded.get, _NAMES))


def _from(get: Callable[[str], Any], ids: tuple[str, ...], names: tuple[str, ...], user: Any) -> Actor:
    identifier = _first(get, ids)
    if not identifier:
        raise TypeError(_no_user(user))
    return Actor(identifier, "user", _first(get, names))


def _no_user(user: Any) -> str:
    return (
        f"{type(user).__qualname__} is no user: neither an id, an otel_audit.Actor, a mapping with 'sub' or "
        "'id', nor an object with an id"
    )


def _first(get: Callable[[str], Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = get(name)
        if value is None or isinstance(value, _NO_USER) or callable(value):
            continue
        found = text(value)
        if found:
            return found
    return ""


def _attribute(user: Any, name: str, default: Any = None) -> Any:
    try:
        return getattr(user, name, default)
    except faults():  # Starlette's BaseUser raises NotImplementedError; the next may be there
        return default


class ActorSource:
    """Asks the function of the application that ``context.actor_from`` names who makes a request.

    Args:
        is_dependency: whether the function is one that the framework calls by itself, and whose result is
            given to :meth:`take`.
    """

    def __init__(self, path: str, is_dependency: Callable[[Any], bool] = lambda function: False) -> None:
        self.path = path
        self._is_dependency = is_dependency
        self._dependency: tuple[Any, bool] = (None, False)
        self._function = ApplicationFunction(
            "context.actor_from",
            path,
            "the actor it would name",
            "an id, a user object with one, claims with 'sub', an otel_audit.Actor or None",
            is_dependency,
        )

    def __call__(self, request: Any) -> Actor | None:
        """Return who makes ``request``; None if nobody is known, or the function cannot say. Never raises."""
        if self.dependency() is not None:
            return None
        actor = self._function.ask(request, self._read, None)
        return None if actor is NOT_KNOWN else actor

    def dependency(self) -> Any:
        """Return the function if the framework calls it by itself, otherwise None."""
        known, is_one = self._dependency
        if known is None:
            known = self._function.load()
            is_one = known is not None and self._is_dependency(known)
            self._dependency = known, is_one
        return known if is_one else None

    def take(self, value: Any) -> Actor | None:
        """Return whom the result of the dependency stands for; None if nobody. Never raises."""
        try:
            actor = self._read(value)
        except faults() as error:
            self._function.failed("failed", error)
            return None
        return None if actor is NOT_KNOWN else actor

    def resolve(self) -> Callable[[Any], Any]:
        """Import the function; raises whatever importing it does."""
        return self._function.resolve()

    def place(self) -> str:
        """Return file and line of the function in brackets, as far as it is known and has one."""
        return self._function.place()

    def _read(self, value: Any) -> Any:
        try:
            return user_actor(value)
        except TypeError:
            return self._function.returned_nonsense(value)


def authenticated(user: Any) -> Actor | None:
    """Say whom the user object of a request stands for, None if nobody; never raises.

    ``unknown`` if somebody is authenticated and it cannot be said who.
    """
    try:
        return user_actor(user)
    except faults() as error:  # user objects of others may do anything
        kind = type(user).__qualname__
        if kind not in _unreadable and len(_unreadable) < _MAX_KINDS:
            _unreadable.add(kind)
            _logger.warning("The user of a request cannot be read as an actor: %r", error)
        return UNKNOWN_ACTOR


_unreadable: Final[set[str]] = set()
_MAX_KINDS: Final = 100
