"""Wrapping a library: one table for each instrumentor, and how it is taken back.

A wrapper takes the original and returns its replacement. The attribute is set on the class or module named in
the table and nowhere else; where it was inherited, taking the patch back deletes it again, so that ``vars()``
is what it was before.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any, Final

import wrapt

from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

_logger: Final = logging.getLogger(__name__)
_ABSENT: Final = object()


class Patch(NamedTuple):
    """One wrapped attribute.

    ``target`` is ``package.module:Class.attribute`` or ``package.module:attribute``. ``wrap`` gets the
    attribute as it resolves today (a plain function, also where it is inherited). ``optional``: not every
    supported version of the library has it. ``added``: its class has none, and finds it by ``__getattr__``;
    ``wrap`` gets None. ``late``: its module is not imported for this; it is wrapped when it is.
    """

    target: str
    wrap: Callable[[Any], Any]
    why: str
    optional: bool = False
    added: bool = False
    late: bool = False


class Listener(NamedTuple):
    """Something a library calls us for, instead of being wrapped.

    ``target`` is ``package.module:event``; ``listen`` begins, ``forget`` ends; ``late`` as for a patch.
    """

    target: str
    listen: Callable[[], Any]
    forget: Callable[[], Any]
    why: str
    late: bool = False


class AppliedPatches:
    """The patches in force, and how each attribute was before."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []
        self._listening: list[Listener] = []
        self._waiting: list[Patch | Listener] = []

    def apply(self, patches: Iterable[Patch | Listener]) -> None:
        """Apply ``patches`` in order; if one fails, take all back and raise."""
        try:
            for patch in patches:
                module = patch.target.partition(":")[0]
                if patch.late and module not in sys.modules:
                    self._waiting.append(patch)
                    wrapt.register_post_import_hook(partial(self._imported, patch), module)
                else:
                    self._apply(patch)
        except BaseException:
            self.undo()
            raise

    def _imported(self, patch: Patch | Listener, _: Any) -> None:
        if patch not in self._waiting:  # taken back meanwhile: the hook cannot be
            return
        self._waiting.remove(patch)
        try:
            self._apply(patch)
        except faults() as error:  # the application's import must not fail with us
            _logger.error("%s cannot be wrapped (%s): %r", patch.target, patch.why, error)

    def _apply(self, patch: Patch | Listener) -> None:
        if isinstance(patch, Listener):
            self._listening.append(patch)
            patch.listen()
            return
        owner, name = _resolve(patch.target)
        original = inspect.getattr_static(owner, name, _ABSENT)
        if original is _ABSENT and patch.optional:
            return
        if original is _ABSENT and not patch.added:
            raise AttributeError(f"{patch.target} does not exist in the installed version of the library")
        # Not what lies in vars(): another agent's wrapper there has to be bound to the class first.
        wrapped = patch.wrap(None if patch.added else getattr(owner, name))
        self._undo.append((owner, name, vars(owner).get(name, _ABSENT), wrapped))
        setattr(owner, name, wrapped)

    def undo(self, *, only_ours: bool = False) -> None:
        """Restore every attribute, last first; with ``only_ours`` none that was wrapped by others since."""
        self._waiting.clear()
        while self._listening:
            listener = self._listening.pop()
            try:
                listener.forget()
            except faults() as error:  # the rest must be taken back all the same
                _logger.error("%s is still listened to (%s): %r", listener.target, listener.why, error)
        while self._undo:
            owner, name, previous, wrapped = self._undo.pop()
            if only_ours and vars(owner).get(name) is not wrapped:
                continue
            if previous is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, previous)


def _resolve(target: str) -> tuple[Any, str]:
    """Find the class or module that owns ``target`` and the attribute's name."""
    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *classes, name = path.split(".")
    for class_name in classes:
        owner = getattr(owner, class_name)
    return owner, name
