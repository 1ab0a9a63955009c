"""One of Django's requests, and what its view says of throttling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest

from otel_audit.contrib.throttling.decorators import Marks, marks
from otel_audit.instrumentation.django.scope import client_of, route_of


class DjangoAsked:
    """A request. ``known``: its user, where only the view has found out."""

    def __init__(self, request: HttpRequest, trusted_proxies: int) -> None:
        self.request = request
        self.path = request.path
        self.method = request.method or ""
        self.known: Any = None
        self._trusted_proxies = trusted_proxies

    @property
    def address(self) -> str:
        return client_of(self.request, self._trusted_proxies)[0]

    @property
    def route(self) -> str:
        return route_of(self.request.resolver_match) or self.path

    def user(self) -> str:
        return _id_of(self.known or getattr(self.request, "user", None))

    async def user_async(self) -> str:
        asking: Any = getattr(self.request, "auser", None)
        return self.user() if asking is None or self.known is not None else _id_of(await asking())


def _id_of(user: Any) -> str:
    """Return the key of an account; empty for a visitor, and for an account without one."""
    return key_of(user) if getattr(user, "is_authenticated", False) else ""


def key_of(user: Any) -> str:
    """Return the key of an account; empty if it has none."""
    key = getattr(user, "pk", None)
    return "" if key is None else str(key)


def view_marks(view: Any, method: str) -> Marks:
    """Put together what a view, its class and the method that will answer say."""
    found = marks(view)
    for each in _parts(view, method):
        more = marks(each)
        if more.rules or more.exempt or not more.keep_default:
            found = more.over(found)
    return found


def _parts(view: Any, method: str) -> Iterator[Any]:
    kind = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if kind is None:
        return
    yield kind
    name = method.lower()
    actions = getattr(view, "actions", None)  # a view set's
    yield getattr(kind, actions.get(name, name) if isinstance(actions, dict) else name, None)


def asks_late(view: Any) -> bool:
    """Say whether a view authenticates by itself: DRF's, which says when it has by ``check_throttles``."""
    return hasattr(getattr(view, "cls", None), "check_throttles")
