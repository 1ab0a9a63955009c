"""All that is wrapped in Django, in one table: what, by which wrapper, and why.

A wrapper takes the original and returns its replacement. The attribute is set on the class or module named in
the table and nowhere else; where it was inherited, taking the patch back deletes it again, so that ``vars()``
is what it was before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.inventory import Announcement
    from otel_audit.instrumentation.django.middleware import RequestCapture
    from otel_audit.instrumentation.django.reads import ReadCapture
    from otel_audit.instrumentation.django.writes import WriteCapture

_ABSENT: Final = object()


class Patch(NamedTuple):
    """One wrapped attribute.

    ``target`` is ``package.module:Class.attribute`` or ``package.module:attribute``. ``wrap`` gets the
    attribute as it resolves today (a plain function, also where it is inherited). ``optional``: not every
    supported version of Django has it.
    """

    target: str
    wrap: Callable[[Any], Any]
    why: str
    optional: bool = False


def table(
    writes: WriteCapture,
    reads: ReadCapture | None = None,
    requests: RequestCapture | None = None,
    announcement: Announcement | None = None,
) -> list[Patch]:
    """List every patch of the Django instrumentor; ``reads`` is None where none are configured."""
    return [
        *_writes(writes),
        *(_reads(reads) if reads is not None else ()),
        *(_requests(requests) if requests is not None else ()),
        *(_start(announcement) if announcement is not None else ()),
    ]


def _writes(writes: WriteCapture) -> list[Patch]:
    compiler = "django.db.models.sql.compiler"
    wrapper = "django.db.backends.base.base:BaseDatabaseWrapper"
    transactions = writes.transactions
    return [
        Patch(f"{compiler}:SQLInsertCompiler.execute_sql", writes.inserts, "every INSERT of the ORM"),
        Patch(f"{compiler}:SQLUpdateCompiler.execute_sql", writes.updates, "every UPDATE of the ORM"),
        Patch(
            f"{compiler}:SQLUpdateCompiler.execute_returning_sql",
            writes.updates_returning,
            "from Django 6.0 save() reads generated columns and expressions back through it",
            optional=True,
        ),
        Patch(f"{compiler}:SQLDeleteCompiler.execute_sql", writes.deletes, "every DELETE of the ORM"),
        Patch(
            "django.db.models.base:Model._do_update",
            writes.saves,
            "tells the UPDATE which instance is being saved, and so what it had loaded",
        ),
        Patch(
            "django.db.models.base:Model.refresh_from_db",
            writes.refreshes,
            "what it loads is what the instance knows from then on",
        ),
        Patch(f"{wrapper}.commit", transactions.commit, "success is known here"),
        Patch(f"{wrapper}.rollback", transactions.rollback, "everything pending failed"),
        Patch(f"{wrapper}.close", transactions.close, "a connection closed in a transaction rolls it back"),
        Patch(f"{wrapper}.savepoint", transactions.savepoint, "marks what a rollback to it undoes"),
        Patch(f"{wrapper}.savepoint_rollback", transactions.savepoint_rollback, "undoes what came after it"),
        Patch(f"{wrapper}.savepoint_commit", transactions.savepoint_commit, "forgets the mark"),
        Patch(f"{wrapper}.set_autocommit", transactions.set_autocommit, "may commit an open transaction"),
        Patch(
            "django.db.backends.utils:CursorWrapper._execute",
            transactions.execute,
            "COMMIT, ROLLBACK and SAVEPOINT written as text end or mark a transaction as well",
        ),
        Patch(
            "django.db.transaction:Atomic.__exit__",
            transactions.leave_atomic,
            "knows the exception that rolls back, and TestCase blocks, which never commit",
        ),
        Patch(
            "django.core.management.commands.migrate:Command.handle",
            writes.suppressed,
            "migrations write content types, permissions and moved data, not what somebody did",
        ),
    ]


def _reads(reads: ReadCapture) -> list[Patch]:
    compiler = "django.db.models.sql.compiler"
    return [
        Patch(f"{compiler}:SQLCompiler.execute_sql", reads.selects, "every SELECT of the ORM"),
        Patch(
            "django.db.models.query:RawModelIterable.__iter__",
            reads.raw,
            "raw() runs its SQL by itself",
        ),
        Patch(
            f"{compiler}:SQLUpdateCompiler.pre_sql_setup",
            reads.internal,
            "an UPDATE over joins first selects the keys it will touch: not a read",
        ),
        Patch(
            "django.db.models.base:Model._save_table",
            reads.internal,
            "looks whether the row exists (select_on_save) and for the next _order: not a read",
        ),
        Patch(
            "django.db.models.deletion:Collector.collect",
            reads.collects,
            "loads what a delete is about to remove: not a read",
        ),
    ]


def _requests(requests: RequestCapture) -> list[Patch]:
    from otel_audit.instrumentation.django.commands import in_command_scope

    return [
        Patch(
            "django.core.handlers.base:BaseHandler.load_middleware",
            requests.load_middleware,
            "places our middleware, without a change to settings.MIDDLEWARE",
        ),
        Patch(
            "django.core.management.base:BaseCommand.execute",
            in_command_scope,
            "outside a request, the management command is who acts",
        ),
    ]


def _start(announcement: Announcement) -> list[Patch]:
    return [
        Patch(
            "django.apps.registry:Apps.populate",
            announcement.after,
            "all models are known: patterns that match none of them are named",
        ),
        Patch(
            "django.core.handlers.base:BaseHandler.load_middleware",
            announcement.after,
            "the same, where audit was started while the apps were loaded",
        ),
    ]


class AppliedPatches:
    """The patches in force, and how each attribute was before."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def apply(self, patches: Iterable[Patch]) -> None:
        """Apply ``patches`` in order; if one fails, take all back and raise."""
        try:
            for patch in patches:
                owner, name = _resolve(patch.target)
                original = inspect.getattr_static(owner, name, _ABSENT)
                if original is _ABSENT and patch.optional:
                    continue
                if original is _ABSENT:
                    raise AttributeError(f"{patch.target} does not exist in this version of Django")
                self._undo.append((owner, name, vars(owner).get(name, _ABSENT)))
                # Not what lies in vars(): another agent's wrapper there has to be bound to the class first.
                setattr(owner, name, patch.wrap(getattr(owner, name)))
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Restore every attribute, last first."""
        while self._undo:
            owner, name, previous = self._undo.pop()
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
