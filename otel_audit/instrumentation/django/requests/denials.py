"""Which responses deny a request: a pure decision on request and response."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url

from otel_audit.interruptions import faults

LOGIN_REQUIRED = "login_required"
_DENIED: Final = frozenset({401, 403})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
DENYING: Final = _DENIED | _REDIRECTS
"""The only statuses a denial can have."""


def denial(request: HttpRequest, response: HttpResponseBase, login_url: object) -> str | None:
    """Say why ``response`` denies ``request``: ``401``, ``403``, ``login_required``; None if it does not.

    A redirect to the login is one that promises to come back: ``login_required``, Django's mixins and
    middleware and the admin all add the address asked for. So a logout that ends at the login page is none.
    """
    status = response.status_code
    if status in _DENIED:
        return str(status)
    if status not in _REDIRECTS:
        return None
    location = urlsplit(response.headers.get("Location", ""))
    if not location.query:
        return None
    path = request.get_full_path()
    returning = {
        name
        for name, value in parse_qsl(location.query)
        if value == path or (value.endswith(path) and value == request.build_absolute_uri())
    }
    if REDIRECT_FIELD_NAME in returning or (returning and location.path == _path(login_url)):
        return LOGIN_REQUIRED
    return None


def _path(login_url: object) -> str:
    try:
        return urlsplit(resolve_url(login_url)).path  # type: ignore[arg-type]
    except faults():  # a LOGIN_URL that names no view: the application's own mistake, told elsewhere
        return ""
