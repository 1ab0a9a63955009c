"""Which of the installed models are audited: said once all are known, and asked for by `otel-audit doctor`.

``python -m otel_audit.instrumentation.django.inventory ANSWER [CONFIG]`` loads the application's apps, writes
an :class:`Inventory` to the file ANSWER as JSON, and ends at once, whatever threads the application started.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from otel_audit import startup
from otel_audit.config.model import AuditConfig, DjangoConfig
from otel_audit.config.sources import DJANGO_SETTING
from otel_audit.instrumentation.django.plan import ModelPolicy
from otel_audit.interruptions import faults

_logger = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])


class Unmatched(msgspec.Struct, frozen=True):
    """A pattern of the configuration that no installed model matches."""

    place: str
    pattern: str
    hint: str

    @property
    def sentence(self) -> str:
        return f"{self.place} has the pattern {self.pattern!r}, and no installed model matches it."


class Inventory(msgspec.Struct, frozen=True):
    """The labels of the models whose changes and whose reads are recorded, and the patterns without any."""

    models: list[str]
    reads: list[str]
    unmatched: list[Unmatched]
    from_setting: bool = False


def unmatched(config: DjangoConfig) -> Iterator[Unmatched]:
    """Find the patterns that match no installed model; the apps must be ready."""
    from django.apps import apps

    labels = [model._meta.label for model in apps.get_models(include_auto_created=True)]
    places: tuple[tuple[str, Iterable[str]], ...] = (
        ("django.models", config.models),
        ("django.reads", config.reads),
        ("django.model", config.model),
    )
    for place, patterns in places:
        for pattern in patterns:
            if pattern.startswith("!") or _matches(pattern, labels):
                continue
            near = get_close_matches(pattern, labels, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else "Patterns are app_label.Model, with * and ?."
            yield Unmatched(place, pattern, hint)


def _matches(pattern: str, labels: Iterable[str]) -> bool:
    return any(fnmatchcase(label.lower(), pattern.lower()) for label in labels)


def take(config: DjangoConfig) -> Inventory:
    """Look at every installed model; the apps must be ready."""
    from django.apps import apps

    policy = ModelPolicy(config)
    own = [model for model in apps.get_models() if not model._meta.proxy]
    return Inventory(
        models=sorted(model._meta.label for model in own if policy.of(model).audited),
        reads=sorted(model._meta.label for model in own if policy.of(model).reads),
        unmatched=list(unmatched(config)),
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
            _logger.warning("The patterns of django.models could not be compared with the models: %r", error)

    def _say(self) -> None:
        from django.apps import apps
        from django.conf import settings

        if self._said or not apps.ready:
            return
        self._said = True
        for each in unmatched(self._config.django):
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
        take(loaded.config.django),
        from_setting=loaded.path is None and bool(getattr(settings, DJANGO_SETTING, None)),
    )
    Path(answer).write_bytes(msgspec.json.encode(inventory))
    os._exit(0)


if __name__ == "__main__":
    main()
