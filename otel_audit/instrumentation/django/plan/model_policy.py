"""Which models are audited and how: the rules of capture, and what a model is known by."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps

from otel_audit.capture.opt_in import CodeRule, OptIn, owner_of_attribute, said_by_class
from otel_audit.capture.table_policy import (
    KeyStrategies,
    Subject,
    TableDecision,
    TablePolicy,
    TableSettings,
    names_subject,
)
from otel_audit.config.model import CaptureSection, PolicyRule
from otel_audit.instrumentation.django.plan.secret_keys import key_strategies
from otel_audit.interruptions import faults
from otel_audit.redaction.names import NameRules

if TYPE_CHECKING:
    from django.db.models import Model

_logger = logging.getLogger(__name__)
HISTORICAL: Final = "__fake__"
"""The module of the model classes of a migration."""


class ModelPolicy(TablePolicy):
    """The settings of every model; a proxy has those of its concrete model.

    ``names`` are the rules by which a key is known for a secret.
    """

    def __init__(
        self, config: CaptureSection, names: NameRules | None = None, rules: Sequence[PolicyRule] = ()
    ) -> None:
        super().__init__(config, rules)
        self._names = names or NameRules(enabled=True)
        self._keys: weakref.WeakKeyDictionary[type[Model], KeyStrategies] = weakref.WeakKeyDictionary()
        self._decided: weakref.WeakKeyDictionary[type[Model], TableSettings] = weakref.WeakKeyDictionary()

    def keys(self, model: type[Model]) -> KeyStrategies:
        """Return how the key of ``model`` is redacted, and its columns that hold one. Apps must be ready."""
        concrete: Any = model._meta.concrete_model
        found = self._keys.get(concrete)
        if found is None:
            try:
                found = key_strategies(concrete, self._names, lambda other: self.of(other).strategies)
            except faults():  # an unusual model: not known to be harmless, and its records must be made
                found = KeyStrategies(("mask",) * len(concrete._meta.pk_fields))
            self._keys[concrete] = found
        return found

    def of(self, model: type[Model]) -> TableSettings:
        """Return the settings of ``model``."""
        concrete: Any = model._meta.concrete_model
        found = self._decided.get(concrete)
        if found is None:
            try:
                found = self.decide_model(concrete).settings
            except faults():  # an unusual model must not be left out, nor harm who asks
                found = self.decide(Subject(concrete._meta.label, classes=(concrete,))).settings
                _logger.exception("%s: only the patterns decide what is recorded of it", concrete._meta.label)
            self._decided[concrete] = found
        return found

    def decide_model(self, model: type[Model]) -> TableDecision:
        """Decide about ``model``.

        The table behind a many-to-many field follows the model that declares the field unless a rule names
        it.
        """
        concrete: Any = model._meta.concrete_model
        owner = concrete._meta.auto_created
        return self.decide(subject(concrete), subject(owner) if owner else None)

    def forget(self) -> None:
        super().forget()
        self._keys.clear()
        self._decided.clear()


def subject(model: type[Model]) -> Subject:
    """Return all that rules may know a concrete model by.

    One of a migration is known as the application's of the same name. Abstract bases and proxies stand for
    it.
    """
    meta: Any = model._meta
    label: str = meta.label
    if model.__module__ == HISTORICAL:
        model = apps.all_models.get(meta.app_label, {}).get(meta.model_name, model)
    proxies = list(_proxies(model))
    bases = [base for base in model.__mro__ if base is not model and _is_abstract(base)]
    said = next((found for found in map(_said, (model, *proxies)) if found is not None), None)
    return Subject(label, f"{model.__module__}.{model.__qualname__}", (model, *bases, *proxies), said)


def may_name(rule: CodeRule, model: type[Model]) -> bool:
    """Say whether a rule of code may name a model, or the one whose relation its table is."""
    owner: Any = model._meta.auto_created
    models = (model, owner) if owner else (model,)
    if rule.model is None:
        return any(names_subject(rule, subject(each)) for each in models)
    named = rule.model()
    return named is not None and any(issubclass(each, concrete_of(named) or named) for each in models)


def concrete_of(cls: type[Any]) -> Any:
    """Return the concrete model of a class; None if it has none, or is no model at all."""
    return getattr(vars(cls).get("_meta"), "concrete_model", None)


def speaks_for(model: type[Model]) -> bool:
    """Say whether a proxy has something of its own to say about the audit of its concrete model."""
    concrete: Any = model._meta.concrete_model
    owner = owner_of_attribute(model)
    return concrete is not model and owner is not None and owner not in concrete.__mro__


def _said(model: type[Model]) -> OptIn | None:
    if model._meta.proxy and not speaks_for(model):
        return None
    return said_by_class(model)


def _is_abstract(base: Any) -> bool:
    meta = vars(base).get("_meta")
    return bool(getattr(meta, "abstract", False))


def _proxies(model: type[Model]) -> Iterator[type[Model]]:
    concrete = model._meta.concrete_model
    for child in type.__subclasses__(model):
        meta: Any = vars(child).get("_meta")
        if meta is not None and meta.proxy and meta.concrete_model is concrete:
            yield child
            yield from _proxies(child)
