"""Django system checks: `manage.py check` says whether the application is audited, and what is not.

Registered by the instrumentor, without an entry in INSTALLED_APPS, before anything that can fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Info
from django.core.checks.registry import registry
from django.db import connections

from otel_audit import startup
from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.django.inspection.inventory import take
from otel_audit.pipeline import provider

_TAG: Final = "otel_audit"
_COMPILERS: Final = ("SQLInsertCompiler", "SQLUpdateCompiler", "SQLDeleteCompiler")
_CONNECTION_METHODS: Final = ("commit", "rollback", "savepoint", "savepoint_rollback", "savepoint_commit")


def register() -> None:
    """Let Django run the checks; a second time changes nothing."""
    registry.register(audit_checks, _TAG)


def unregister() -> None:
    """Undo :func:`register`."""
    registry.registered_checks.discard(audit_checks)


def audit_checks(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Run all checks; ``app_configs`` makes no difference."""
    found = list(_settings())
    pipeline = provider.configured()
    if pipeline is None:
        return [*found, *_not_running()]
    if not pipeline.config.django.enabled:
        return [*found, _off("django.enabled = false")]
    if pipeline.health.spool_error:
        found.append(
            Error(
                f"Audit records cannot be written: {pipeline.health.spool_error}",
                hint="Make the spool directory writable, or set spool.directory to another one.",
                id="otel_audit.E004",
            )
        )
    return [*found, *_models(pipeline.config), *_backends()]


def _not_running() -> Iterator[CheckMessage]:
    if startup.startup_error() is not None:
        yield Error(
            f"Audit could not be started; nothing is recorded: {startup.startup_error()}",
            hint="`otel-audit doctor` shows what is wrong and where the setting comes from.",
            id="otel_audit.E001",
        )
        return
    reason = startup.why_off() or ""
    if "enabled = false" in reason:
        yield _off("enabled = false")
    else:
        yield checks.Warning(
            f"Nothing is audited: {reason}.",
            hint="Start the application under `opentelemetry-instrument`, or call otel_audit.setup().",
            id="otel_audit.W002",
        )


def _off(why: str) -> CheckMessage:
    return Info(f"Nothing is audited: switched off by {why}.", id="otel_audit.I005")


def _settings() -> Iterator[CheckMessage]:
    """Tell of the empty settings that OpenTelemetry's instrumentor makes where it finds none."""
    if (
        settings.configured
        and getattr(settings, "SETTINGS_MODULE", None) is None
        and not settings.INSTALLED_APPS
        and not hasattr(settings, "ROOT_URLCONF")
    ):
        module = os.environ.get("DJANGO_SETTINGS_MODULE", "yourproject.settings")
        yield Error(
            "Django runs with empty settings: DJANGO_SETTINGS_MODULE was not set when Python started, "
            "so opentelemetry-instrumentation-django configured empty settings.",
            hint=f"Run export DJANGO_SETTINGS_MODULE={module} before opentelemetry-instrument; "
            "manage.py sets it too late.",
            id="otel_audit.E003",
        )


def _models(config: AuditConfig) -> Iterator[CheckMessage]:
    inventory = take(config)
    if not inventory.models:
        yield checks.Warning(
            "No model is audited: django.models names none, nor do classes or code.",
            hint='Write for example models = ["shop.*"] under [django] in otel-audit.toml, or '
            "`__audit__ = True` in the class of a model.",
            id="otel_audit.W006",
        )
    for each in inventory.mistakes:
        yield checks.Warning(each.sentence, hint=each.hint, id="otel_audit.W007")


def _backends() -> Iterator[CheckMessage]:
    """Tell of database backends whose writes do not pass what is wrapped."""
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql import compiler

    for alias in connections:
        connection = connections[alias]
        try:
            missed = [
                f"{name}.execute_sql"
                for name in _COMPILERS
                if not reaches(connection.ops.compiler(name), "execute_sql", getattr(compiler, name))
            ]
        except Exception as error:  # a backend may be anything; a check must not be what fails
            missed = [f"its compilers ({error!r})"]
        missed += [
            name for name in _CONNECTION_METHODS if not reaches(type(connection), name, BaseDatabaseWrapper)
        ]
        if missed:
            yield checks.Warning(
                f"Writes through the database {alias!r} are not fully audited: its backend "
                f"({settings.DATABASES[alias].get('ENGINE')}) replaces {', '.join(missed)} of Django's.",
                hint="Changes made through this database may be missing from the trail.",
                id="otel_audit.W008",
            )


def reaches(cls: type, name: str, base: type) -> bool:
    """Say whether calling ``name`` on ``cls`` comes to what ``base`` defines, or to a wrapper of ours."""
    for owner in cls.__mro__:
        if owner is base:
            return True
        method: Callable[..., Any] | None = vars(owner).get(name)
        if method is None:
            continue
        if getattr(method, "__globals__", {}).get("__name__", "").startswith("otel_audit."):
            return True
        names = getattr(getattr(method, "__code__", None), "co_names", ())
        if "super" not in names or name not in names:
            return False
    return False
