"""Which of the installed models are audited: said once all are known, and asked for by `otel-audit doctor`.

``python -m otel_audit.instrumentation.django.inspection.inventory ANSWER [CONFIG]`` loads the application's
apps, writes an :class:`Inventory` to the file ANSWER as JSON, and ends at once, whatever threads the
application started.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from otel_audit import startup
from otel_audit.capture.opt_in import problems
from otel_audit.config.model import AuditConfig
from otel_audit.config.sources import DJANGO_SETTING
from otel_audit.instrumentation.django.inspection.mistakes import Mistake, Where, mistakes
from otel_audit.instrumentation.django.plan import ModelPolicy
from otel_audit.interruptions import faults

_logger = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])


class Inventory(msgspec.Struct, frozen=True):
    """The labels of the models whose changes and whose reads are recorded, and what names nothing.

    ``places`` says of those that the configuration does not name where they are.
    """

    models: list[str]
    reads: list[str]
    places: dict[str, str]
    mistakes: list[Mistake]
    from_setting: bool = False


def take(config: AuditConfig, where: Where = lambda *key: "") -> Inventory:
    """Look at every installed model; the apps must be ready."""
    from django.apps import apps

    policy = ModelPolicy(config.django, rules=config.policy)
    own = (model for model in apps.get_models() if not model._meta.proxy)
    decisions = {model._meta.label: policy.decide_model(model) for model in own}
    audited = sorted(label for label, decision in decisions.items() if decision.settings.audited)
    places = {}
    for label in audited:
        rule = decisions[label].rules.get("changes")
        if rule is not None and rule.source != "configuration":
            places[label] = rule.place
    return Inventory(
        models=audited,
        reads=sorted(label for label, decision in decisions.items() if decision.settings.reads),
        places=places,
        mistakes=[*mistakes(config, where), *misread(), *_tenants(config, where)],
    )


def misread() -> Iterator[Mistake]:
    """Say what of classes and code could not be understood."""
    return (Mistake(each, "See otel_audit.audit_models.") for each in problems())


def _tenants(config: AuditConfig, where: Where) -> Iterator[Mistake]:
    if not config.tenant_from:
        return
    from otel_audit.pipeline.tenants import TenantSource

    try:
        TenantSource(config.tenant_from).resolve()
    except faults() as error:  # importing it runs code of the application
        place = where("tenant_from")
        yield Mistake(
            f"{place + ': ' if place else ''}tenant_from: {config.tenant_from} cannot be used: {error!r}.",
            "Records are made without a tenant: name a plain function as package.module:function.",
        )


class Announcement:
    """Says once, when all apps are ready, which patterns match nothing: no server runs Django's checks."""

    def __init__(self, config: AuditConfig) -> None:
        self._config = config
        self._said = False

    def start(self) -> None:
        """Look now if the apps are ready already."""
        self._look()

    def stop(self) -> None:
        """Say nothing more."""
        self._said = True

    def after(self, original: _F) -> _F:
        """Wrap ``Apps.populate``, and what servers call later: the apps may have begun to load before us."""

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._look()
            return result

        return wrapped  # type: ignore[return-value]

    def _look(self) -> None:
        try:
            self._say()
        except faults() as error:
            self._said = True
            _logger.warning("What is said of models could not be compared with the models: %r", error)

    def _say(self) -> None:
        from django.apps import apps
        from django.conf import settings

        if self._said or not apps.ready:
            return
        self._said = True
        for each in mistakes(self._config):
            _logger.warning("%s %s", each.sentence, each.hint)
        reason = startup.why_setting_ignored()
        if reason and getattr(settings, DJANGO_SETTING, None):
            _logger.warning("Django's %s setting is ignored: %s", DJANGO_SETTING, reason)


def main() -> None:
    """Answer `otel-audit doctor`."""
    answer, *config_file = sys.argv[1:]
    import django
    from django.conf import settings

    django.setup()
    loaded = startup.load_config(config_file[0] if config_file else None)
    inventory = msgspec.structs.replace(
        take(loaded.config, loaded.where),
        from_setting=loaded.path is None and bool(getattr(settings, DJANGO_SETTING, None)),
    )
    Path(answer).write_bytes(msgspec.json.encode(inventory))
    os._exit(0)


if __name__ == "__main__":
    main()
