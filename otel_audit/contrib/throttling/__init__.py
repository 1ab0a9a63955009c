"""Throttling: how often somebody may ask, and try to log in. See ``docs/throttling.md``.

Names are imported at first access: a view that is only decorated needs no more than the decorators.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_audit.contrib.throttling.asgi import ThrottlingMiddleware
    from otel_audit.contrib.throttling.decorators import throttling, throttling_exempt
    from otel_audit.contrib.throttling.logins import acheck_login, check_login
    from otel_audit.contrib.throttling.rules import (
        Rule,
        ThrottlingException,
        per_failed_login,
        per_login,
        per_request,
    )

__all__ = [
    "Rule",
    "ThrottlingException",
    "ThrottlingMiddleware",
    "acheck_login",
    "check_login",
    "per_failed_login",
    "per_login",
    "per_request",
    "throttling",
    "throttling_exempt",
]

_HOMES = {
    "ThrottlingMiddleware": "asgi",
    "acheck_login": "logins",
    "check_login": "logins",
    "throttling": "decorators",
    "throttling_exempt": "decorators",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'rules')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
