"""Who really acts where somebody has taken over a user's account, as support staff do.

django-hijack logs the other user in and keeps the ids of those who did in the session. django-impersonate
puts the other user on the request, beside ``request.impersonator``. Both tell by signals when it begins and
ends. Neither is imported here; they are waited for until the application does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from otel_audit.audit_record import Actor
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import text

_HIJACKED: Final = "hijack_history"
_HIJACK_VIEWS: Final = "hijack.views"
_DISPATCH_UID: Final = "otel_audit"
_MAX_NAMES: Final = 1000


class _Told(NamedTuple):
    """The signals of one package, and its names for the two users."""

    module: str
    begin: str
    end: str
    who: str
    whom: str


_SIGNALS: Final = (
    _Told("hijack.signals", "hijack_started", "hijack_ended", "hijacker", "hijacked"),
    _Told("impersonate.signals", "session_begin", "session_end", "impersonator", "impersonating"),
)

_names: Final[dict[str, str]] = {}
"""Of those who took over an account in this process, by id: a session has the id only."""


def acting_for(real: Actor, user: Actor) -> Actor:
    """Return ``real`` as acting on behalf of ``user``."""
    if real.id == user.id:
        return user
    return Actor(real.id, "user", real.name, user.id, user.name, real.roles)


def session_impersonator(session: Mapping[str, Any], own_key: str = "") -> Actor | None:
    """Return who took over the account that ``session`` is logged in with, None if nobody did."""
    for key in (_HIJACKED, own_key):
        found = session.get(key) if key else None
        if isinstance(found, list | tuple):
            found = found[0] if found else None  # one who took over may take over another: the first one acts
        if found is not None and found != "" and not isinstance(found, dict):
            identifier = text(found)
            return Actor(identifier, "user", _names.get(identifier, "")) if identifier else None
    return None


def remember_name(actor: Actor) -> None:
    """Remember the name of who takes over an account."""
    if actor.name:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        _names[actor.id] = actor.name


def taking_over(request: Any) -> str:
    """Return what the view of django-hijack does that logs a user in: ``begin`` or ``end``, else ``""``."""
    view = getattr(getattr(request, "resolver_match", None), "func", None)
    for base in getattr(getattr(view, "view_class", None), "__mro__", ()):
        if base.__module__ == _HIJACK_VIEWS:
            return {"AcquireUserView": "begin", "ReleaseUserView": "end"}.get(base.__name__, "")
    return ""


class Impersonations:
    """Receives the signals of both packages while started; ``record`` gets (what, request, who, whom)."""

    def __init__(self, record: Callable[[str, Any, Any, Any], None]) -> None:
        self._record = record
        self._started = False
        self._awaited = False

    def start(self) -> None:
        """Connect the receivers, now or when the package is imported."""
        self._started = True
        for told in _SIGNALS:
            if told.module in sys.modules:
                self._connect(told, sys.modules[told.module])
            elif not self._awaited:
                from wrapt import register_post_import_hook

                register_post_import_hook(partial(self._connect, told), told.module)
        self._awaited = True

    def stop(self) -> None:
        """Disconnect the receivers."""
        self._started = False
        for told in _SIGNALS:
            module = sys.modules.get(told.module)
            for name in (told.begin, told.end):
                if module is not None:
                    getattr(module, name).disconnect(dispatch_uid=_DISPATCH_UID)

    def _connect(self, told: _Told, module: Any) -> None:
        if not self._started:
            return

        def receiver(what: str) -> Callable[..., None]:
            def receive(sender: Any = None, request: Any = None, **users: Any) -> None:
                self._record(what, request, users.get(told.who), users.get(told.whom))

            return receive

        getattr(module, told.begin).connect(receiver("begin"), weak=False, dispatch_uid=_DISPATCH_UID)
        getattr(module, told.end).connect(receiver("end"), weak=False, dispatch_uid=_DISPATCH_UID)
