"""Django system checks: whether what counts can count."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.checks.registry import registry

from otel_audit.config.model import AuditConfig

_TAG: Final = "otel_audit"
_BACKENDS: Final = "django.core.cache.backends."
_HINT: Final = "Use a cache that all processes share: django.core.cache.backends.redis.RedisCache."
_registered: Final[list[Callable[..., Any]]] = []


def register(config: AuditConfig) -> None:
    """Let Django run the checks for this configuration."""
    unregister()

    def throttling_checks(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
        return list(problems(config))

    _registered.append(throttling_checks)
    registry.register(throttling_checks, _TAG)


def unregister() -> None:
    """Undo :func:`register`."""
    while _registered:
        registry.registered_checks.discard(_registered.pop())


def problems(config: AuditConfig) -> Iterator[CheckMessage]:
    """Say what is wrong with what counts."""
    section = config.throttling
    if section.storage:
        if section.storage == "memory":
            yield from _per_process('throttling.storage = "memory"')
        return
    cache = settings.CACHES.get(section.cache)
    if cache is None:
        yield checks.Error(
            f"throttling.cache is {section.cache!r}, and CACHES has {', '.join(settings.CACHES) or 'none'}.",
            hint="Name one of CACHES.",
            id="otel_audit.E031",
        )
        return
    backend = str(cache.get("BACKEND", ""))
    package = "redis" if backend == f"{_BACKENDS}redis.RedisCache" else "limits"
    if find_spec(package) is None:
        yield checks.Error(
            f"Throttling counts in the cache {section.cache!r} with the package {package}, which is not "
            "installed.",
            hint=f"pip install 'otel-audit[throttling]' {package}",
            id="otel_audit.E034",
        )
    if backend == f"{_BACKENDS}locmem.LocMemCache":
        yield from _per_process(f"the cache {section.cache!r}")
    elif backend == f"{_BACKENDS}dummy.DummyCache":
        yield checks.Error(
            f"Throttling counts in the cache {section.cache!r}, which keeps nothing.",
            hint=_HINT,
            id="otel_audit.E032",
        )
    elif backend in (f"{_BACKENDS}db.DatabaseCache", f"{_BACKENDS}filebased.FileBasedCache"):
        yield checks.Warning(
            f"Throttling counts in the cache {section.cache!r}, which loses counts of requests that come at "
            "the same time.",
            hint=_HINT,
            id="otel_audit.W033",
        )


def _per_process(what: str) -> Iterator[CheckMessage]:
    """Warn of counts that processes do not share; how many there are is known only where it was said."""
    number = os.environ.get("WEB_CONCURRENCY", "")
    if number == "1" or (settings.DEBUG and not number):
        return
    times = f"{number} times" if number.isdecimal() else "as many times"
    yield checks.Warning(
        f"Throttling counts in {what}, which each process has by itself: with several workers, limits are "
        f"{times} as high.",
        hint=f"{_HINT} With one process, say so: WEB_CONCURRENCY=1.",
        id="otel_audit.W030",
    )
