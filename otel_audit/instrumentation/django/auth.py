"""Logins, logouts and failed logins, from Django's own signals, with or without a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

import msgspec
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from otel_audit.audit_context import AuditContext, current_context, enter_context, leave_scope
from otel_audit.audit_record import UNKNOWN, Actor, Outcome, Target
from otel_audit.errors import AuditError
from otel_audit.http.actor import ANONYMOUS_ACTOR, UNKNOWN_ACTOR
from otel_audit.instrumentation.django.identity.actor import (
    unwrapped,
    user_actor,
)
from otel_audit.instrumentation.django.identity.impersonation import (
    Impersonations,
    remember_name,
    taking_over,
)
from otel_audit.instrumentation.django.requests.middleware import RequestCapture, request_scope
from otel_audit.interruptions import faults
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.values import text

_DISPATCH_UID: Final = "otel_audit"
_MAX_NAME: Final = 254


class AuthCapture:
    """Receives Django's authentication signals while started."""

    def __init__(
        self,
        logger: Callable[[], AuditLogger | None],
        failures: Failures,
        requests: RequestCapture,
        internal: Callable[[Callable[[str], bool]], Callable[[str], bool]] = lambda function: function,
    ) -> None:
        """Receive signals.

        Args:
            logger: the current one, if any.
            failures: takes what fails in recording them.
            requests: knows the scope of a request.
            internal: wraps a function whose queries are not to be recorded.
        """
        self._logger = logger
        self._failures = failures
        self._requests = requests
        self._names_account = internal(names_account)
        self._roles = requests.settings.roles
        self._impersonations = Impersonations(self._guarded("impersonation", self._impersonated))
        self._receivers = (
            (user_logged_in, self._guarded("login", self._logged_in)),
            (user_logged_out, self._guarded("logout", self._logged_out)),
            (user_login_failed, self._guarded("failed login", self._login_failed)),
        )

    def start(self) -> None:
        """Connect the receivers."""
        for signal, receiver in self._receivers:
            signal.connect(receiver, weak=False, dispatch_uid=_DISPATCH_UID)
        self._impersonations.start()

    def stop(self) -> None:
        """Disconnect the receivers."""
        for signal, _ in self._receivers:
            signal.disconnect(dispatch_uid=_DISPATCH_UID)
        self._impersonations.stop()

    def _guarded(self, place: str, receive: Callable[..., None]) -> Callable[..., None]:
        """Keep a failure of ours from the view that sends the signal."""

        def receiver(*args: Any, **kwargs: Any) -> None:
            try:
                receive(*args, **kwargs)
            except AuditError:
                raise
            except faults() as error:
                self._failures.report(place, error, lost=1)

        return receiver

    def _logged_in(self, sender: Any, request: Any = None, user: Any = None, **kwargs: Any) -> None:
        scope = request_scope(request)
        login = partial(self._record, "user.login.success", "LOGIN", request, user, self._actor(user))
        taken = "" if scope is None else taking_over(request)
        if scope is not None:
            scope.logged_in(taken_over=taken == "begin")
            if taken:
                # An account is taken over or given back, as django-hijack's signal will say in a moment. A
                # view derived from its own may not send it: then it was a login.
                scope.unsaid = login
                return
        login()

    def _actor(self, user: Any) -> Actor | None:
        return user_actor(unwrapped(user), roles=self._roles)

    def _impersonated(self, what: str, request: Any, who: Any, whom: Any) -> None:
        actor = self._actor(who) or UNKNOWN_ACTOR
        remember_name(actor)
        scope = request_scope(request)
        if scope is not None:
            scope.unsaid = None
            scope.look_again()
            if scope.actor.on_behalf_of:
                # Who has taken over one account may take over another from there: the first one acts.
                actor = msgspec.structs.replace(scope.actor, on_behalf_of="", on_behalf_of_name="")
        self._record(f"user.impersonate.{what}", "IMPERSONATE", request, whom, actor)

    def _logged_out(self, sender: Any, request: Any = None, user: Any = None, **kwargs: Any) -> None:
        if not getattr(user, "is_authenticated", False):  # a visitor who asked for the logout page
            return
        scope = request_scope(request)
        actor = self._actor(user)
        if scope is not None:
            if actor is not None and scope.actor.on_behalf_of == actor.id:
                actor = scope.actor
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
            key_strategies=self._name_strategies(name),
        )

    def _name_strategies(self, name: str) -> tuple[str] | None:
        """Return the strategy of the name: one that belongs to no account may be a password."""
        logger = self._logger()
        strategy = "keep" if logger is None else logger.config.redaction.unknown_user_names
        if strategy == "keep" or name == UNKNOWN or self._names_account(name):
            return None
        return (strategy,)

    def _record(self, event_name: str, action: str, request: Any, user: Any, actor: Actor | None) -> None:
        user = unwrapped(user)
        actor = actor or UNKNOWN_ACTOR
        meta = getattr(user, "_meta", None)
        account = user_actor(user)
        key = actor.id if account is None or account.type != "user" else account.id
        target = Target(type(user).__name__ if meta is None else meta.concrete_model._meta.label, key)
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
        key_strategies: tuple[str] | None = None,
    ) -> None:
        logger = self._logger()
        if logger is None:
            return
        with self._request_of(request):
            logger.log(
                event_name,
                action,
                outcome=outcome,
                actor=actor,
                target=target,
                error=error,
                key_strategies=key_strategies,
            )

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


def names_account(name: str) -> bool:
    """Say whether an account has this user name or e-mail address; False also if that cannot be found out."""
    try:
        from django.contrib.auth import get_user_model
        from django.db import router, transaction
        from django.db.models import Q

        model: Any = get_user_model()
        fields = {model.USERNAME_FIELD, getattr(model, "EMAIL_FIELD", None) or model.USERNAME_FIELD}
        condition = Q()
        for field in fields:
            condition |= Q(**{f"{field}__iexact": name})
        database = router.db_for_read(model)
        with _savepoint(transaction, database):
            return bool(model._base_manager.using(database).filter(condition).exists())
    except faults():  # no such table, an event loop, a broken transaction: rather hide the name
        return False


def _savepoint(transaction: Any, database: str) -> AbstractContextManager[Any]:
    """Keep a failing query of ours from breaking the application's transaction."""
    if transaction.get_connection(database).in_atomic_block:
        return transaction.atomic(using=database)  # type: ignore[no-any-return]
    return nullcontext()
