"""The hooks on audited models, those there are and those to come, and what else loads instances of them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from otel_audit.capture.opt_in import CodeRule, listen, unlisten
from otel_audit.capture.plan import TablePlan
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded
from otel_audit.instrumentation.django.plan import (
    HISTORICAL,
    ModelPlan,
    concrete_of,
    may_name,
    speaks_for,
)
from otel_audit.instrumentation.django.plan.unrepeatable import held
from otel_audit.instrumentation.django.writes.loading.from_db import (
    KEEPING,
    OVERRIDDEN,
    options_of,
    remembering,
    remembering_inherited,
    remembering_with_mode,
)
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.interruptions import faults

_F = TypeVar("_F", bound=Callable[..., Any])
_ABSENT: Final = object()


class ModelHooks:
    """Hooks the ``from_db`` of audited models, and wraps what loads instances in other ways."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self._hooked: weakref.WeakSet[Any] = weakref.WeakSet()

    def refreshes(self, original: _F) -> _F:
        """Wrap ``Model.refresh_from_db``: what it loads is what the instance now has loaded."""
        capture, thread = self.capture, self.capture.thread

        @functools.wraps(original)
        def refresh_from_db(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
            outer = thread.loaded
            try:
                try:
                    thread.loaded = []
                    result = original(instance, *args, **kwargs)
                    loaded = thread.loaded
                finally:
                    thread.loaded = outer
            finally:  # once more: an interruption may come between any two lines
                thread.loaded = outer
            try:
                _refreshed(instance, loaded, capture.plan(type(instance)))
            except faults() as error:
                capture.failures.note("refresh_from_db", error)
            return result

        return refresh_from_db  # type: ignore[return-value]

    def raw(self, original: _F) -> _F:
        """Wrap ``RawModelIterable.__iter__``: its SQL may give a column another value than the row has."""

        @functools.wraps(original)
        def iterate(iterable: Any) -> Any:
            for instance in original(iterable):
                state = getattr(instance, "_state", None)
                if state is not None:
                    state.__dict__.pop(STATE_KEY, None)
                yield instance

        return iterate  # type: ignore[return-value]

    def start(self) -> None:
        """Hook the models there are and those to come."""
        from django.apps import apps
        from django.db.models.signals import class_prepared

        class_prepared.connect(self._prepared, weak=False)
        listen(self._opted_in)
        for models in list(apps.all_models.values()):
            for model in list(models.values()):
                try:
                    self._hook(model)
                except faults() as error:
                    self.capture.failures.note("plan", error)

    def stop(self) -> None:
        """Take the hooks back."""
        from django.db.models.signals import class_prepared

        unlisten(self._opted_in)
        class_prepared.disconnect(self._prepared)
        while self._hooked:
            model = self._hooked.pop()
            model._meta.__dict__.pop(KEEPING, None)
            hook = getattr(vars(model).get("from_db"), "__func__", None)
            overridden = getattr(hook, "otel_audit_overridden", None)
            if overridden is None:  # somebody else has put something in its place since
                continue
            if overridden < 0:
                del model.from_db
            else:
                model.from_db = vars(model)[OVERRIDDEN].pop(overridden)

    def _opted_in(self, rules: Sequence[CodeRule]) -> None:
        """Look again at the models that code has named."""
        from django.apps import apps

        try:
            self.capture.policy_changed()
            models = [model for models in list(apps.all_models.values()) for model in list(models.values())]
            # One of a registry of its own is found by itself only.
            given = [rule.model() for rule in rules if rule.model is not None]
            models += [model for model in given if model is not None and concrete_of(model) is model]
            for model in models:
                if not any(may_name(rule, model) for rule in rules):
                    continue
                if not self.capture.policy.of(model).audited:
                    self.capture.raw.remove(model._meta.label)
                self._hook(model)
        except faults() as error:
            self.capture.failures.note("audit_models", error)

    def _prepared(self, sender: Any, **kwargs: Any) -> None:
        try:
            self.capture.raw.models_changed()
            if sender._meta.proxy and speaks_for(sender):
                self.capture.policy_changed()
                self._hook(sender._meta.concrete_model)
            self._hook(sender)
        except faults() as error:
            self.capture.failures.note("class_prepared", error)

    def _hook(self, model: Any) -> None:
        """Keep what instances of an audited model are loaded with.

        Per class, outermost: other models pay nothing, and an override of ``from_db`` that does not call
        ``super()`` is still seen.
        """
        settings = self.capture.policy.of(model)
        concrete = model._meta.concrete_model._meta
        if not settings.audited:
            return
        historical = model.__module__ == HISTORICAL
        if model.__module__ != "django.db.migrations.recorder":  # which migrations have run
            table = TablePlan(concrete.label, concrete.db_table, (), (), settings)
            self.capture.raw.add(table, instead=not historical)
        if historical:
            return
        previous = vars(model).get("from_db", _ABSENT)
        if (previous is _ABSENT or model in self._hooked) and getattr(
            model.from_db.__func__, "otel_audit", False
        ):
            return
        overridden = -1  # there is none of the application's
        if previous is not _ABSENT:
            if OVERRIDDEN not in vars(model):
                setattr(model, OVERRIDDEN, [])
            overridden = len(vars(model)[OVERRIDDEN])
            vars(model)[OVERRIDDEN].append(previous)
        # Django 6.1 looks whether a model takes the fetch mode, and warns its author if it does not.
        options = options_of(model.from_db)
        if overridden < 0 and options == ():
            hook = remembering_inherited(self.capture, model)
        elif overridden < 0 and options == ("fetch_mode",):
            hook = remembering_with_mode(self.capture, model)
        else:
            hook = remembering(self.capture, model, overridden)
        hook.otel_audit = True  # type: ignore[attr-defined]
        hook.otel_audit_overridden = overridden  # type: ignore[attr-defined]
        model.from_db = classmethod(hook)
        self._hooked.add(model)


def _refreshed(instance: Any, loaded: list[tuple[Any, Loaded]] | None, plan: ModelPlan) -> None:
    # With select_related and prefetches other rows are loaded with it, of the same table perhaps.
    model, key = instance._meta.concrete_model, instance.pk
    own = [found for other, found in loaded or () if other._meta.concrete_model is model and other.pk == key]
    state = instance._state
    if not own:
        if loaded:
            state.__dict__.pop(STATE_KEY, None)
        return
    new = own[0]
    old: Loaded | None = state.__dict__.get(STATE_KEY) or None
    values = dict(new.by_name())
    for name, (_, field) in plan.mutable.items() if plan.audited else ():
        if field.unrepeatable and name in values:  # its descriptor may have made another of it
            values[name] = field.frozen(held(instance, name, values[name]))
    seq, epoch = new.seq, new.epoch
    if old is not None and old.epoch is new.epoch and not set(old.by_name()) <= set(values):
        # Only some fields were loaded again; the others are as old as they were.
        values = {**old.by_name(), **values}
        seq = min(old.seq, seq)
    state.__dict__[STATE_KEY] = Loaded(None, values, epoch, seq)
