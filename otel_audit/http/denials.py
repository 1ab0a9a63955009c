"""Which answers deny a request, whatever framework gave them, and the record of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from otel_audit.audit_record import Target

if TYPE_CHECKING:
    from otel_audit.pipeline.logger import AuditLogger

LOGIN_REQUIRED: Final = "login_required"
_DENIED: Final = frozenset({401, 403})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
DENYING: Final = _DENIED | _REDIRECTS
"""The only statuses a denial can have."""


def denial(
    status: int,
    location: str,
    is_asked_for: Callable[[str], bool],
    next_name: str = "next",
    is_login: Callable[[str], bool] = lambda path: False,
) -> str | None:
    """Say why an answer denies its request: ``401``, ``403``, ``login_required``; None if it does not.

    A redirect to the login is one that promises to come back to the address asked for. So a logout that ends
    at the login page is none.

    Args:
        location: where a redirect leads to.
        is_asked_for: whether a text is the address that was asked for, with or without scheme and host.
        next_name: the parameter that a redirect to a login promises it in.
        is_login: whether a path is that of the login, which may name the parameter otherwise.
    """
    if status in _DENIED:
        return str(status)
    if status not in _REDIRECTS:
        return None
    target = urlsplit(location)
    if not target.query:
        return None
    returning = {name for name, value in parse_qsl(target.query) if is_asked_for(value)}
    if next_name in returning or (returning and is_login(target.path)):
        return LOGIN_REQUIRED
    return None


def record_denial(logger: AuditLogger, route: str, error: str, attributes: Mapping[str, Any]) -> None:
    """Record that a request was denied.

    Args:
        logger: the current one.
        route: the template of what was asked for, its path where there is none.
        error: the status, or where the client was sent to log in.
        attributes: what the answer said.
    """
    logger.log(
        "http.request.denied",
        "ACCESS",
        outcome="failure",
        target=Target("http.route", route),
        error=error,
        attributes=attributes,
    )
