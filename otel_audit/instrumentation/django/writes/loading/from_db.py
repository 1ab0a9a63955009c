"""The ``from_db`` of a hooked model, which keeps the row an instance is made of."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any, Final

import msgspec

from otel_audit.capture.freshness import Epoch
from otel_audit.instrumentation.django.loaded import Loaded
from otel_audit.instrumentation.django.plan import NOT_AUDITED, ModelPlan
from otel_audit.instrumentation.django.plan.unrepeatable import held
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.interruptions import faults
from otel_audit.values import ATOMS

_LONGEST_DOCUMENTS: Final = 16 * 1024
"""Bytes of JSON held for each instance there is: of larger ones no more is held than a record needs."""
_json: Final = msgspec.json.Encoder().encode
_ALWAYS_GIVEN: Final = 4
"""Arguments of ``from_db``: the class, its database, the names and the values."""
KEEPING: Final = "_otel_audit_keeping"
"""Where what keeps the rows of a model stands in ``model._meta``."""
OVERRIDDEN: Final = "_otel_audit_from_db"
"""Where the overrides of ``from_db`` under our hooks stand on a class, one for each time it was hooked."""


def options_of(from_db: Any) -> tuple[str, ...] | None:
    """Return what ``from_db`` takes beside what Django has always given it; None if that may be anything."""
    code = getattr(getattr(from_db, "__func__", None), "__code__", None)
    if code is None or code.co_argcount > _ALWAYS_GIVEN:
        return None
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        return None
    names: tuple[str, ...] = code.co_varnames[code.co_argcount :]
    return names[: code.co_kwonlyargcount]


def remembering(capture: Capture, model: Any, overridden: int) -> Callable[..., Any]:
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
            override = vars(owner)[OVERRIDDEN][overridden].__get__(None, cls)
            instance = override(db, field_names, values, **options)
        try:
            _remember(capture, capture.plan(cls), instance, field_names, values)
        except faults() as error:
            capture.failures.note("from_db", error)
        return instance

    # A model that takes no options says so.
    return _without_options(from_db) if options_of(model.from_db) == () else from_db


def _without_options(from_db: Callable[..., Any]) -> Callable[..., Any]:
    def plain(cls: Any, /, db: Any, field_names: Any, values: Any) -> Any:
        return from_db(cls, db, field_names, values)

    return plain


def remembering_inherited(capture: Capture, model: Any) -> Callable[..., Any]:
    """Return a ``from_db`` that calls an inherited one which takes no options; lists load thousands."""
    above: Any = super(model, model)  # what it is asked for, it looks up each time
    keep = _keeping(capture, model)

    def from_db(cls: Any, /, db: Any, field_names: Any, values: Any) -> Any:
        inherited: Any = above if cls is model else super(model, cls)
        instance = inherited.from_db(db, field_names, values)
        keep(cls, instance, field_names, values)
        return instance

    return from_db


def remembering_with_mode(capture: Capture, model: Any) -> Callable[..., Any]:
    """Do :func:`remembering_inherited` where the inherited one takes Django 6.1's ``fetch_mode`` alone.

    As with :func:`remembering`, what it holds is never freed, so what holds the model stands on the model.
    """
    keeping = model._meta.__dict__[KEEPING] = _keeping(capture, model)
    hooked, kept = weakref.ref(model), weakref.ref(keeping)

    def from_db(cls: Any, /, db: Any, field_names: Any, values: Any, *, fetch_mode: Any = None) -> Any:
        owner: Any = hooked()
        inherited: Any = super(owner, cls)
        instance = inherited.from_db(db, field_names, values, fetch_mode=fetch_mode)
        keep = kept()
        if keep is not None:  # else hooked anew since, and somebody still has this one
            keep(cls, instance, field_names, values)
        return instance

    return from_db


def _keeping(capture: Capture, model: Any) -> Callable[[Any, Any, Any, Any], None]:
    """Return what keeps the rows of a model: calls nothing of ours for what most are, and holds the plan."""
    thread, freshness = capture.thread, capture.freshness
    generation: object = None
    plan: ModelPlan = NOT_AUDITED
    immutable, width = False, -1
    documents_of: Callable[[Any], Any] = _no_documents

    def look_again() -> None:
        nonlocal generation, plan, immutable, width, documents_of
        asked = capture.generation
        plan = capture.plan(model)
        immutable, width = not plan.mutable, -1
        if plan.documents is not None:
            width, documents_of = len(plan.row), plan.documents
        generation = asked

    def keep(cls: Any, instance: Any, field_names: Any, values: Any) -> None:
        try:
            if capture.generation is not generation:
                look_again()
            here = thread.__dict__
            if cls is model and here["loaded"] is None:
                # What is set is STATE_KEY, without making a dict of the state.
                if immutable:
                    instance._state._otel_audit = Loaded(field_names, values, here["epoch"], freshness.now)
                    return
                if len(values) == width:
                    documents = _json(documents_of(values))
                    if len(documents) <= _LONGEST_DOCUMENTS:
                        instance._state._otel_audit = Loaded(
                            plan, values, here["epoch"], freshness.now, documents
                        )
                        return
        except faults():  # values may be anything; what follows looks at each
            pass
        try:
            _remember(capture, capture.plan(cls), instance, field_names, values)
        except faults() as error:
            capture.failures.note("from_db", error)

    return keep


def _no_documents(_: Any) -> Any:
    raise AssertionError("the plan has none")


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
