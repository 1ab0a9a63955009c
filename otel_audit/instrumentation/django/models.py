"""Which models are audited, and how: the configured patterns, decided once per model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_audit.config.model import DjangoConfig
from otel_audit.instrumentation.django.secret_keys import KeyStrategies, key_strategies
from otel_audit.redaction.names import NameRules

if TYPE_CHECKING:
    from django.db.models import Model

_MAX_MODELS: Final = 4096


class ModelSettings(NamedTuple):
    """What the configuration says about one model.

    ``strategies`` maps field names to redaction strategies.
    """

    audited: bool
    reads: bool
    old_values: Literal["as_loaded", "exact", "off"]
    strategies: Mapping[str, str]


class _Patterns:
    """Model patterns; the last one that matches decides, a leading ``!`` says no."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [
            (re.compile(translate(pattern.removeprefix("!").lower())).match, not pattern.startswith("!"))
            for pattern in patterns
        ]

    def decide(self, label: str) -> bool | None:
        """Say yes or no for ``app_label.Model``, ``None`` where no pattern matches."""
        label = label.lower()
        for match, verdict in reversed(self._rules):
            if match(label):
                return verdict
        return None


class ModelPolicy:
    """The settings of every model, by label; a proxy has those of its concrete model.

    ``names`` are the rules by which a key is known for a secret.
    """

    def __init__(self, config: DjangoConfig, names: NameRules | None = None) -> None:
        self.config = config
        self._names = names or NameRules(enabled=True)
        self._models = _Patterns(config.models)
        self._reads = _Patterns(config.reads)
        self._single = [(_Patterns([pattern]), settings) for pattern, settings in config.model.items()]
        self._decided: dict[str, ModelSettings] = {}
        self._keys: dict[type[Model], KeyStrategies] = {}

    def settings(self, model: type[Model]) -> ModelSettings:
        """Give the settings of ``model``.

        The table behind a many-to-many field follows the model that declares the field unless a pattern
        names it.
        """
        meta: Any = model._meta.concrete_model._meta  # type: ignore[union-attr]
        label: str = meta.label
        decided = self._decided.get(label)
        if decided is None:
            owner = meta.auto_created._meta.label if meta.auto_created else None
            decided = self._decided[label] = self._decide(label, owner)
        return decided

    def keys(self, model: type[Model]) -> KeyStrategies:
        """Return how the key of ``model`` is redacted, and its columns that hold one. Apps must be ready."""
        concrete: Any = model._meta.concrete_model
        found = self._keys.get(concrete)
        if found is None:
            # Models of migrations and tests are classes made anew each time.
            if len(self._keys) >= _MAX_MODELS:
                self._keys.clear()
            try:
                found = key_strategies(concrete, self._names, lambda other: self.settings(other).strategies)
            except Exception:  # an unusual model: not known to be harmless, and its records must be made
                found = KeyStrategies(("mask",) * len(concrete._meta.pk_fields))
            self._keys[concrete] = found
        return found

    def _decide(self, label: str, owner: str | None) -> ModelSettings:
        def verdict(patterns: _Patterns) -> bool | None:
            found = patterns.decide(label)
            return patterns.decide(owner) if found is None and owner else found

        reads = verdict(self._reads)
        old_values = self.config.old_values
        strategies: dict[str, str] = {}
        for patterns, single in self._single:
            if not verdict(patterns):
                continue
            reads = single.reads if single.reads is not None else reads
            old_values = single.old_values or old_values
            strategies.update(single.fields)
        return ModelSettings(bool(verdict(self._models)), bool(reads), old_values, strategies)
