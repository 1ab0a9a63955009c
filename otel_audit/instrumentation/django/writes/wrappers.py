"""The wrappers of Django's write path: what is called, and whom it tells."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from otel_audit.capture.freshness import Epoch
from otel_audit.capture.opt_in import CodeRule, listen, unlisten
from otel_audit.capture.plan import TablePlan
from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, Saving, ThreadState
from otel_audit.instrumentation.django.plan import (
    HISTORICAL,
    NOT_AUDITED,
    ModelPlan,
    concrete_of,
    may_name,
    speaks_for,
)
from otel_audit.instrumentation.django.plan.unrepeatable import held
from otel_audit.instrumentation.django.writes import delete, insert, update
from otel_audit.instrumentation.django.writes.cursor import CursorCapture
from otel_audit.instrumentation.django.writes.delete_fast_path import delete_quickly
from otel_audit.instrumentation.django.writes.insert_fast_path import insert_quickly
from otel_audit.instrumentation.django.writes.migrations import migrating
from otel_audit.instrumentation.django.writes.save_fast_path import save_quickly
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.patching import AppliedPatches, Patch
from otel_audit.interruptions import faults
from otel_audit.values import ATOMS

if TYPE_CHECKING:
    from otel_audit.pipeline.provider import AuditPipeline

_F = TypeVar("_F", bound=Callable[..., Any])
_LONGEST_DOCUMENTS: Final = 16 * 1024
"""Bytes of JSON held for each instance there is: of larger ones no more is held than a record needs."""
_json: Final = msgspec.json.Encoder().encode
_ABSENT: Final = object()
_ALWAYS_GIVEN: Final = 4
"""Arguments of ``from_db``: the class, its database, the names and the values."""
_OVERRIDDEN: Final = "_otel_audit_from_db"
"""Where the overrides of ``from_db`` under our hooks stand on a class, one for each time it was hooked."""


class WriteCapture:
    """Wrappers for the table of patches, and the hooks on the models they need."""

    def __init__(
        self,
        config: AuditConfig,
        pipeline: AuditPipeline | None = None,
        later: Callable[[WriteCapture], Mapping[str, Sequence[Patch]]] = lambda _: {},
    ) -> None:
        """Make the wrappers.

        Args:
            config: the whole configuration.
            pipeline: keeps the records; default the current one at the time.
            later: list what is wrapped once a module is loaded, by its name.
        """
        self._listed = later
        self.capture = Capture(config, pipeline)
        self.transactions = self.capture.transactions
        self.cursors = CursorCapture(self.capture, self.transactions, self.capture.raw)
        self.migrates = migrating(self.capture.thread, "forwards")
        self.migrates_back = migrating(self.capture.thread, "backwards")
        self._hooked: weakref.WeakSet[Any] = weakref.WeakSet()
        self._later = AppliedPatches()
        self._seen: set[str] = set()

    def suppressed(self, original: _F) -> _F:
        """Wrap a command under which nothing is captured."""
        thread = self.capture.thread

        @functools.wraps(original)
        def suppressed(*args: Any, **kwargs: Any) -> Any:
            return thread.during("suppressed", original, *args, **kwargs)

        return suppressed  # type: ignore[return-value]

    # --- compilers -----------------------------------------------------------------------------

    def inserts(self, original: _F) -> _F:
        """Wrap ``SQLInsertCompiler.execute_sql``."""
        capture, thread = self.capture, self.capture.thread

        @functools.wraps(original)
        def execute_sql(compiler: Any, /, returning_fields: Any = None, *args: Any, **kwargs: Any) -> Any:
            plan = capture.plan(compiler.query.model, compiler.connection.vendor)

            def plain(fields: Any = returning_fields) -> Any:
                return original(compiler, fields, *args, **kwargs)

            if not plan.audited or thread.suppressed:
                if thread.migrating is not None:
                    return thread.migrating.inserting(compiler.query, plain)
                return _uncaptured(thread, plan, plain)
            if compiler.connection.in_atomic_block:
                result = thread.during(
                    "compiling", insert_quickly, capture, plan, compiler, returning_fields, plain
                )
                if result is not NotImplemented:
                    return result
            return thread.during("compiling", insert.insert, capture, plan, compiler, plain, returning_fields)

        return execute_sql  # type: ignore[return-value]

    def updates(self, original: _F) -> _F:
        """Wrap ``SQLUpdateCompiler.execute_sql``."""
        capture, thread = self.capture, self.capture.thread

        @functools.wraps(original)
        def execute_sql(compiler: Any, /, result_type: Any, *args: Any, **kwargs: Any) -> Any:
            query = compiler.query
            plan = capture.plan(query.model, compiler.connection.vendor)

            # Without values of its own an update only leads to those of parent tables.
            def plain() -> Any:
                return original(compiler, result_type, *args, **kwargs)

            if not plan.audited or thread.suppressed or not query.values:
                return _uncaptured(thread, plan, plain)

            saving = thread.saving
            if saving is not None and saving.model is plan.model:
                result = thread.during("compiling", save_quickly, capture, plan, compiler, saving, plain)
                if result is not NotImplemented:
                    return result
            return thread.during("compiling", update.execute, capture, plan, compiler, plain, result_type)

        return execute_sql  # type: ignore[return-value]

    def updates_returning(self, original: _F) -> _F:
        """Wrap ``SQLUpdateCompiler.execute_returning_sql`` (Django 6)."""
        capture, thread = self.capture, self.capture.thread

        @functools.wraps(original)
        def execute_returning_sql(compiler: Any, /, returning_fields: Any, *args: Any, **kwargs: Any) -> Any:
            query = compiler.query
            plan = capture.plan(query.model, compiler.connection.vendor)
            passes = (
                not plan.audited
                or thread.suppressed
                or not returning_fields
                or not query.values
                or not compiler.connection.features.can_return_rows_from_update
                or query.related_updates
            )

            def plain() -> Any:
                return original(compiler, returning_fields, *args, **kwargs)

            if passes:
                return _uncaptured(thread, plan, plain)

            returning = tuple(returning_fields)
            return thread.during("compiling", update.execute, capture, plan, compiler, plain, None, returning)

        return execute_returning_sql  # type: ignore[return-value]

    def deletes(self, original: _F) -> Callable[..., Any]:
        """Wrap the ``execute_sql`` that ``SQLDeleteCompiler`` inherits."""
        from django.db.models.sql.compiler import SQLDeleteCompiler
        from django.db.models.sql.constants import MULTI, ROW_COUNT

        capture, thread = self.capture, self.capture.thread
        inherits = "execute_sql" not in vars(SQLDeleteCompiler)

        @functools.wraps(original)
        def execute_sql(compiler: Any, /, result_type: Any = MULTI, *args: Any, **kwargs: Any) -> Any:
            def plain() -> Any:
                if not inherits:  # another agent's wrapper
                    return original(compiler, result_type, *args, **kwargs)
                # Not `original`: a backend may have an execute_sql of its own further along the MRO.
                inherited: Any = super(SQLDeleteCompiler, compiler)
                return inherited.execute_sql(result_type, *args, **kwargs)

            plan = capture.plan(compiler.query.model, compiler.connection.vendor)
            if not plan.audited or thread.suppressed:
                return _uncaptured(thread, plan, plain)
            deleting = thread.deleting
            if deleting is not None and result_type == ROW_COUNT:
                result = thread.during("compiling", delete_quickly, capture, plan, compiler, deleting, plain)
                if result is not NotImplemented:
                    return result
            return thread.during("compiling", delete.delete, capture, plan, compiler, plain, result_type)

        return execute_sql

    # --- instances -----------------------------------------------------------------------------

    def saves(self, original: _F) -> _F:
        """Wrap ``Model._do_update``: announce the instance to the UPDATE that follows."""
        capture, thread = self.capture, self.capture.thread

        @functools.wraps(original)
        def _do_update(
            instance: Any, /, base_qs: Any, using: Any, pk_val: Any, *args: Any, **kwargs: Any
        ) -> Any:
            plan = capture.plan(base_qs.model)
            if not plan.audited:
                return original(instance, base_qs, using, pk_val, *args, **kwargs)
            here = thread.__dict__
            outer = here["saving"]
            try:
                try:
                    here["saving"] = Saving(instance, pk_val, plan.model)
                    return original(instance, base_qs, using, pk_val, *args, **kwargs)
                finally:
                    here["saving"] = outer
            finally:  # once more: an interruption may come between any two lines
                here["saving"] = outer

        return _do_update  # type: ignore[return-value]

    def collected(self, original: _F) -> _F:
        """Wrap ``Collector.delete``: announce the instance to the DELETEs that follow."""
        thread = self.capture.thread

        @functools.wraps(original)
        def delete(collector: Any, /, *args: Any, **kwargs: Any) -> Any:
            here = thread.__dict__
            outer = here["deleting"]
            origin = getattr(collector, "origin", None)  # a query set if it was one that was deleted
            try:
                try:
                    here["deleting"] = origin if hasattr(origin, "_state") else None
                    return original(collector, *args, **kwargs)
                finally:
                    here["deleting"] = outer
            finally:  # once more: an interruption may come between any two lines
                here["deleting"] = outer

        return delete  # type: ignore[return-value]

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

    # --- models --------------------------------------------------------------------------------

    def start(self) -> None:
        """Hook the models there are and those to come."""
        from django.apps import apps
        from django.db.backends.signals import connection_created
        from django.db.models.signals import class_prepared

        class_prepared.connect(self._prepared, weak=False)
        listen(self._opted_in)
        connection_created.connect(self._connected, weak=False)
        self._connected()
        for models in list(apps.all_models.values()):
            for model in list(models.values()):
                try:
                    self._hook(model)
                except faults() as error:
                    self.capture.failures.note("plan", error)

    def stop(self) -> None:
        """Take the hooks back."""
        from django.db.backends.signals import connection_created
        from django.db.models.signals import class_prepared

        unlisten(self._opted_in)
        class_prepared.disconnect(self._prepared)
        connection_created.disconnect(self._connected)
        self._later.undo()
        self._seen.clear()
        while self._hooked:
            model = self._hooked.pop()
            hook = getattr(vars(model).get("from_db"), "__func__", None)
            overridden = getattr(hook, "otel_audit_overridden", None)
            if overridden is None:  # somebody else has put something in its place since
                continue
            if overridden < 0:
                del model.from_db
            else:
                model.from_db = vars(model)[_OVERRIDDEN].pop(overridden)

    def _connected(self, **kwargs: Any) -> None:
        """Wrap what a backend has of its own, once it is loaded: importing it here would need its driver."""
        for name, patches in self._listed(self).items():
            if name in sys.modules and name not in self._seen:
                self._seen.add(name)
                try:
                    self._later.apply(patches)
                except faults() as error:
                    self.capture.failures.note(name, error)

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
            if _OVERRIDDEN not in vars(model):
                setattr(model, _OVERRIDDEN, [])
            overridden = len(vars(model)[_OVERRIDDEN])
            vars(model)[_OVERRIDDEN].append(previous)
        # Django 6.1 looks whether a model takes the fetch mode, and warns its author if it does not.
        if _takes_options(model.from_db) or overridden >= 0:
            hook = _remembering(self.capture, model, overridden)
        else:
            hook = _remembering_inherited(self.capture, model)
        hook.otel_audit = True  # type: ignore[attr-defined]
        hook.otel_audit_overridden = overridden  # type: ignore[attr-defined]
        model.from_db = classmethod(hook)
        self._hooked.add(model)


def _uncaptured(thread: ThreadState, plan: Any, run: Callable[[], Any]) -> Any:
    """Run a compiler whose statement is not recorded: at the cursor nobody need read what it says."""
    if thread.suppressed or plan is NOT_AUDITED:  # a migration's is counted there, and what has no plan told
        return run()
    return thread.during("compiling", run)


def _takes_options(from_db: Any) -> bool:
    """Say whether ``from_db`` takes more than Django has always given it."""
    code = getattr(getattr(from_db, "__func__", None), "__code__", None)
    if code is None:  # it may take anything
        return True
    more = code.co_argcount > _ALWAYS_GIVEN or code.co_kwonlyargcount > 0
    return more or bool(code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))


def _remembering(capture: Capture, model: Any, overridden: int) -> Callable[..., Any]:
    """Return a ``from_db`` that calls the inherited one, or the ``overridden`` one, with all it is given.

    What it holds is never freed: Django 6.1 keeps each ``from_db`` it has called in a cache. An override of
    the application's therefore stands on the class.
    """
    hooked = weakref.ref(model)

    def from_db(cls: Any, /, db: Any, field_names: Any, values: Any, **options: Any) -> Any:
        owner: Any = hooked()
        if overridden < 0:
            inherited: Any = super(owner, cls)
            instance = inherited.from_db(db, field_names, values, **options)
        else:
            override = vars(owner)[_OVERRIDDEN][overridden].__get__(None, cls)
            instance = override(db, field_names, values, **options)
        try:
            _remember(capture, capture.plan(cls), instance, field_names, values)
        except faults() as error:
            capture.failures.note("from_db", error)
        return instance

    # A model that takes no options says so.
    return from_db if _takes_options(model.from_db) else _without_options(from_db)


def _without_options(from_db: Callable[..., Any]) -> Callable[..., Any]:
    def plain(cls: Any, /, db: Any, field_names: Any, values: Any) -> Any:
        return from_db(cls, db, field_names, values)

    return plain


def _remembering_inherited(capture: Capture, model: Any) -> Callable[..., Any]:
    """Return a ``from_db`` that calls an inherited one which takes no options.

    Lists load thousands: what follows packs no arguments, calls nothing of ours for what most rows are, and
    holds the plan instead of asking for it.
    """
    thread, freshness = capture.thread, capture.freshness
    generation: object = None
    plan: ModelPlan = NOT_AUDITED

    def from_db(cls: Any, /, db: Any, field_names: Any, values: Any) -> Any:
        nonlocal generation, plan
        instance = super(model, cls).from_db(db, field_names, values)
        try:
            if capture.generation is not generation:
                asked = capture.generation
                plan = capture.plan(model)
                generation = asked
            table = plan if cls is model else capture.plan(cls)
            here = thread.__dict__
            if here["loaded"] is None:
                # What is set is STATE_KEY, without making a dict of the state.
                if not table.mutable:
                    instance._state._otel_audit = Loaded(field_names, values, here["epoch"], freshness.now)
                    return instance
                if table.documents is not None and len(values) == len(table.row):
                    documents = _json(table.documents(values))
                    if len(documents) <= _LONGEST_DOCUMENTS:
                        instance._state._otel_audit = Loaded(
                            table, values, here["epoch"], freshness.now, documents
                        )
                        return instance
        except faults():  # values may be anything; what follows looks at each
            pass
        try:
            _remember(capture, capture.plan(cls), instance, field_names, values)
        except faults() as error:
            capture.failures.note("from_db", error)
        return instance

    return from_db


def _remember(capture: Capture, plan: ModelPlan, instance: Any, names: Any, values: Any) -> None:
    """Keep what an instance was loaded with."""
    here = capture.thread.__dict__
    if plan.mutable:
        loaded = _keep(plan, instance, names, values, here["epoch"], capture.freshness.now)
    else:
        loaded = Loaded(names, values, here["epoch"], capture.freshness.now)
    instance._state._otel_audit = loaded
    if here["loaded"] is not None:
        here["loaded"].append((instance, loaded))


def _keep(table: ModelPlan, instance: Any, names: Any, values: Any, epoch: Epoch, seq: int) -> Loaded:
    """Keep a loaded row that has values which the application may change in place.

    These have to be written down now: once a list has been appended to, nobody knows what was loaded. Whether
    JSON is too large for a record, and what a record makes of it, can wait for a save.
    """
    if table.documents is not None and len(values) == len(table.row):
        try:
            documents = _json(table.documents(values))
            if len(documents) <= _LONGEST_DOCUMENTS:
                return Loaded(table, values, epoch, seq, documents)
        except faults():  # an override of from_db() may be given anything
            pass
    return Loaded(names, _frozen(table, instance, names, values), epoch, seq)


def _frozen(table: ModelPlan, instance: Any, names: Any, values: Any) -> Any:
    """Return a loaded row with its mutable values encoded; the row itself if it has none.

    Of fields whose preparation is not repeatable it has what the instance holds.
    """
    row: list[Any] | None = None
    mutable = table.mutable
    positions: Any = mutable.values()
    if len(values) != len(table.row):
        positions = [(names.index(name), plan) for name, (_, plan) in mutable.items() if name in names]
    for position, plan in positions:
        value = values[position]
        if plan.unrepeatable and (found := held(instance, plan.attname, value)) is not value:
            row = list(values) if row is None else row
            row[position] = value = found
        if type(value) not in ATOMS:
            row = list(values) if row is None else row
            row[position] = plan.frozen(value)
    return values if row is None else row


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
