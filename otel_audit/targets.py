"""Objects of the application as the targets of records: by class and key, without a query.

A Django object is known by its ``_meta``. What objects of another library are called says its instrumentor,
which registers a function for it: nothing is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from otel_audit.audit_record import Target
from otel_audit.interruptions import faults
from otel_audit.values import MAX_PARTS, Conversion, key_text

Recognizer = Callable[[Any], Target | None]
"""Returns the target of an object of its library, None for any other. Must not query a database."""

_recognizers: Final[list[Recognizer]] = []


def recognize(recognizer: Recognizer) -> None:
    """Ask ``recognizer`` about objects from now on."""
    _recognizers.append(recognizer)


def recognize_no_longer(recognizer: Recognizer) -> None:
    """Undo :func:`recognize`."""
    if recognizer in _recognizers:
        _recognizers.remove(recognizer)


def target_of(value: Any) -> Target | None:
    """Return the target that ``value`` names; None if it names none. Never raises.

    Args:
        value: a :class:`Target`, a text such as ``shop.Order/7``, or an object of Django or SQLAlchemy that
            has been saved.
    """
    try:
        return _target(value)
    except faults():  # the application's object may do anything
        return None


def targets_of(values: Any) -> tuple[tuple[Target, ...], bool]:
    """Return the targets that ``values`` name, each once, and whether that are all.

    ``values`` is anything that :func:`target_of` takes, or an iterable of such.
    """
    found: dict[Target, None] = {}
    complete = True
    try:
        single = isinstance(values, Target | str) or not isinstance(values, Iterable)
        for value in (values,) if single else values:
            if len(found) >= MAX_PARTS:
                return tuple(found), False
            target = target_of(value)
            if target is None:
                complete = False
            else:
                found[target] = None
    except faults():  # an iterable of the application's
        complete = False
    return tuple(found), complete


def _target(value: Any) -> Target | None:
    if isinstance(value, Target):
        convert = Conversion()
        target = convert.texts(value)
        return target if target.type else None
    if isinstance(value, str):
        kind, _, key = Conversion().text(value).partition("/")
        return Target(kind, key) if kind else None
    for recognizer in _recognizers:
        found = recognizer(value)
        if found is not None:
            return found
    meta = getattr(type(value), "_meta", None)
    label = getattr(getattr(meta, "concrete_model", None), "_meta", meta)
    if label is None or not hasattr(label, "label"):
        return None
    key = key_text(value.pk)
    return Target(str(label.label), key) if key else None
