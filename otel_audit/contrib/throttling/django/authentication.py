"""Logins by Django's authentication: refused before a password is checked, counted by its signals.

``authenticate()`` is imported by name wherever it is used; what it goes through is the list of backends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from django.contrib.auth.signals import user_logged_in, user_login_failed

from otel_audit.contrib.throttling.django.request import key_of
from otel_audit.contrib.throttling.logins import count
from otel_audit.contrib.throttling.work import Work, current_work
from otel_audit.instrumentation.django.auth import attempted_name

_DISPATCH_UID: Final = "otel_audit.throttling"


class Logins:
    """Counts logins while started."""

    def start(self) -> None:
        """Connect the receivers."""
        user_logged_in.connect(self._logged_in, weak=False, dispatch_uid=_DISPATCH_UID)
        user_login_failed.connect(self._login_failed, weak=False, dispatch_uid=_DISPATCH_UID)

    def stop(self) -> None:
        """Disconnect the receivers."""
        user_logged_in.disconnect(dispatch_uid=_DISPATCH_UID)
        user_login_failed.disconnect(dispatch_uid=_DISPATCH_UID)

    def _logged_in(self, sender: Any, user: Any = None, **kwargs: Any) -> None:
        work = current_work.get()
        if work is not None:
            count(work, work.logged_in(key_of(user)))

    def _login_failed(self, sender: Any, credentials: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        work = current_work.get()
        if work is not None:
            count(work, work.login_failed(attempted_name(credentials or {})))

    def backends(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the list of backends that ``authenticate()`` tries."""

        def compatible_backends(request: Any, **credentials: Any) -> Any:
            found = original(request, **credentials)
            work = current_work.get()
            if work is None or work.exempt:
                return found
            return _watched(found, _Attempt(work, attempted_name(credentials)))

        return compatible_backends


class _Attempt:
    """One call of ``authenticate()``: takes its place before the first backend is asked."""

    def __init__(self, work: Work, name: str) -> None:
        self.work = work
        self.name = name
        self.begun = False


def _watched(backends: Iterator[tuple[Any, str]], attempt: _Attempt) -> Iterator[tuple[Any, str]]:
    for backend, path in backends:
        yield _Watched(backend, attempt), path


class _Watched:
    """A backend, and the attempt that it answers."""

    __slots__ = ("_attempt", "_backend")

    def __init__(self, backend: Any, attempt: _Attempt) -> None:
        self._backend = backend
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def authenticate(self, *args: Any, **credentials: Any) -> Any:
        attempt = self._attempt
        work = attempt.work
        if not attempt.begun:
            attempt.begun = True
            work.run(work.begin_login(attempt.name))
        user = self._backend.authenticate(*args, **credentials)
        if user is not None:
            work.run(work.authenticated(key_of(user)))
        return user

    async def aauthenticate(self, *args: Any, **credentials: Any) -> Any:
        attempt = self._attempt
        work = attempt.work
        if not attempt.begun:
            attempt.begun = True
            await work.run_async(work.begin_login(attempt.name))
        user = await self._backend.aauthenticate(*args, **credentials)
        if user is not None:
            await work.run_async(work.authenticated(key_of(user)))
        return user
