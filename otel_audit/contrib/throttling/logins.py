"""Logins where the application authenticates by itself: refused before, counted by otel-audit's own calls."""

from __future__ import annotations

from otel_audit import authentication
from otel_audit.contrib.throttling.asking import Asking
from otel_audit.contrib.throttling.rules import ThrottlingException
from otel_audit.contrib.throttling.work import Work, current_work
from otel_audit.interruptions import faults


def check_login(name: str) -> None:
    """Say that somebody is about to log in as ``name``; call it before the password is checked.

    Afterwards call :func:`otel_audit.login` or :func:`otel_audit.login_failed`. Django's ``authenticate()``
    does all this by itself.

    Raises:
        ThrottlingException: too many logins of that user from that address have failed.
    """
    work = current_work.get()
    if work is not None:
        work.run(work.begin_login(name))


async def acheck_login(name: str) -> None:
    """Do the same without holding up the event loop."""
    work = current_work.get()
    if work is not None:
        await work.run_async(work.begin_login(name))


def count_login(event: str, who: str) -> None:
    """Count what :func:`otel_audit.login` or :func:`otel_audit.login_failed` has recorded."""
    work = current_work.get()
    if work is not None:
        count(work, work.logged_in(who) if event == "login" else work.login_failed(who))


def count(work: Work, asking: Asking) -> None:
    """Count a login that has been decided, now or when no event loop is held up by it; refuses nothing."""
    if work.later is not None:
        work.later.append(asking)
        return
    try:
        work.run(asking)
    except ThrottlingException:  # nothing can be counted, as whoever comes next will hear
        return
    except faults() as fault:
        work.throttle.failed(fault, "counting a login", "it is not counted")


def listen() -> None:
    """Begin to count logins; a second time changes nothing."""
    if count_login not in authentication.listeners:
        authentication.listeners.append(count_login)


def forget() -> None:
    """Undo :func:`listen`."""
    if count_login in authentication.listeners:
        authentication.listeners.remove(count_login)
