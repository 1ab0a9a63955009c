"""Logins, logouts and failed logins, from Django's own signals, with or without a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from otel_audit.context import AuditContext, current_context, enter_context, leave_scope
from otel_audit.instrumentation.django.actor import ANONYMOUS_ACTOR, UNKNOWN_ACTOR, unwrapped, user_actor
from otel_audit.instrumentation.django.middleware import RequestCapture, request_scope
from otel_audit.interruptions import faults
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.record import UNKNOWN, Actor, Outcome, Target
from otel_audit.values import text

_DISPATCH_UID: Final = "otel_audit"
_MAX_NAME: Final = 254


class AuthCapture:
    """Receives Django's authentication signals while started."""

    def __init__(self, logger: Callable[[], AuditLogger | None], requests: RequestCapture) -> None:
        self._logger = logger
        self._requests = requests
        self._receivers = (
            (user_logged_in, self._logged_in),
            (user_logged_out, self._logged_out),
            (user_login_failed, self._login_failed),
        )

    def start(self) -> None:
        """Connect the receivers."""
        for signal, receiver in self._receivers:
            signal.connect(receiver, weak=False, dispatch_uid=_DISPATCH_UID)

    def stop(self) -> None:
        """Disconnect the receivers."""
        for signal, _ in self._receivers:
            signal.disconnect(dispatch_uid=_DISPATCH_UID)

    def _logged_in(self, sender: Any, request: Any = None, user: Any = None, **kwargs: Any) -> None:
        scope = request_scope(request)
        if scope is not None:
            scope.logged_in()
        self._record("user.login.success", "LOGIN", request, user, user_actor(unwrapped(user)))

    def _logged_out(self, sender: Any, request: Any = None, user: Any = None, **kwargs: Any) -> None:
        if not getattr(user, "is_authenticated", False):  # a visitor who asked for the logout page
            return
        scope = request_scope(request)
        actor = user_actor(unwrapped(user))
        if scope is not None:
            actor = actor or scope.actor  # an account just deleted has lost its key, the scope has seen it
            scope.logged_out(actor)
        self._record("user.logout", "LOGOUT", request, user, actor)

    def _login_failed(
        self,
        sender: Any,
        credentials: Mapping[str, Any] | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> None:
        name = attempted_name(credentials or {})
        self._emit(
            request,
            "user.login.failure",
            "LOGIN",
            outcome="failure",
            # The name is a claim: neither the actor nor the key of an account.
            actor=ANONYMOUS_ACTOR,
            target=Target("user.name", name),
            error="authentication_failed",
        )

    def _record(self, event_name: str, action: str, request: Any, user: Any, actor: Actor | None) -> None:
        user = unwrapped(user)
        actor = actor or UNKNOWN_ACTOR
        meta = getattr(user, "_meta", None)
        target = Target(type(user).__name__ if meta is None else meta.concrete_model._meta.label, actor.id)
        self._emit(request, event_name, action, outcome="success", actor=actor, target=target)

    def _emit(
        self,
        request: Any,
        event_name: str,
        action: str,
        *,
        outcome: Outcome,
        actor: Actor,
        target: Target,
        error: str = "",
    ) -> None:
        logger = self._logger()
        if logger is None:
            return
        with self._request_of(request):
            logger.log(event_name, action, outcome=outcome, actor=actor, target=target, error=error)

    def _request_of(self, request: Any) -> AbstractContextManager[None]:
        """Lend the request's scope where the middleware did not see it, as in a thread of the application."""
        request = getattr(request, "_request", request)
        current = current_context()
        inside = current is not None and current.scope is not None
        if inside or not isinstance(request, HttpRequest) or "REMOTE_ADDR" not in request.META:
            return nullcontext()
        return _entered(AuditContext(self._requests.scope(request), current.overrides if current else ()))


@contextmanager
def _entered(context: AuditContext) -> Iterator[None]:
    token = enter_context(context)
    try:
        yield
    finally:
        leave_scope(token)


def attempted_name(credentials: Mapping[str, Any]) -> str:
    """Pick the name somebody tried to log in with, and nothing else, out of ``credentials``."""
    try:
        from django.contrib.auth import get_user_model

        fields = [str(get_user_model().USERNAME_FIELD)]
    except faults():  # authentication without a user model
        fields = []
    for field in (*fields, "username", "email"):
        name = credentials.get(field)
        if isinstance(name, str | int):
            return text(name)[:_MAX_NAME]
    return UNKNOWN
