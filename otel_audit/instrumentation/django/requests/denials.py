"""Which responses deny a request: Django's names for it."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url

from otel_audit.http import denials
from otel_audit.interruptions import faults


def denial(request: HttpRequest, response: HttpResponseBase, login_url: object) -> str | None:
    """Say why ``response`` denies ``request``: ``401``, ``403``, ``login_required``; None if it does not.

    ``login_required``, Django's mixins and middleware and the admin all add the address asked for to their
    redirects to the login.
    """

    def is_asked_for(value: str) -> bool:
        path = request.get_full_path()
        return value == path or (value.endswith(path) and value == request.build_absolute_uri())

    return denials.denial(
        response.status_code,
        response.headers.get("Location", ""),
        is_asked_for,
        REDIRECT_FIELD_NAME,
        lambda path: path == _path(login_url),
    )


def _path(login_url: object) -> str:
    try:
        return urlsplit(resolve_url(login_url)).path  # type: ignore[arg-type]
    except faults():  # a LOGIN_URL that names no view: the application's own mistake, told elsewhere
        return ""
