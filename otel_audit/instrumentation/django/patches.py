"""All that is wrapped in Django, in one table: what, by which wrapper, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.patching import Listener, Patch

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.inspection.inventory import Announcement
    from otel_audit.instrumentation.django.reads.wrappers import ReadCapture
    from otel_audit.instrumentation.django.requests.middleware import RequestCapture
    from otel_audit.instrumentation.django.testing.test_runs import TestRuns
    from otel_audit.instrumentation.django.writes.wrappers import WriteCapture
    from otel_audit.instrumentation.instrumentor import Part


def table(parts: Iterable[Part]) -> list[Patch | Listener]:
    """List every patch that the parts of the Django instrumentor need from the start."""
    from otel_audit.instrumentation.django.inspection.inventory import Announcement
    from otel_audit.instrumentation.django.requests.middleware import RequestCapture
    from otel_audit.instrumentation.django.testing.test_runs import TestRuns
    from otel_audit.instrumentation.django.writes.wrappers import WriteCapture

    patches: list[Patch | Listener] = []
    for part in parts:
        if isinstance(part, WriteCapture):
            patches += _writes(part)
        elif isinstance(part, RequestCapture):
            patches += _requests(part)
        elif isinstance(part, TestRuns):
            patches += _tests(part)
        elif isinstance(part, Announcement):
            patches += _start(part)
    return patches


def _writes(writes: WriteCapture) -> list[Patch]:
    compiler = "django.db.models.sql.compiler"
    wrapper = "django.db.backends.base.base:BaseDatabaseWrapper"
    cursor = "django.db.backends.utils:CursorWrapper"
    executor = "django.db.migrations.executor:MigrationExecutor"
    transactions, cursors = writes.transactions, writes.cursors
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
            "django.db.models.deletion:Collector.delete",
            writes.collected,
            "tells the DELETEs which instance is being deleted, and so what it had loaded",
        ),
        Patch(
            "django.db.models.base:Model.refresh_from_db",
            writes.hooks.refreshes,
            "what it loads is what the instance knows from then on",
        ),
        Patch(
            "django.db.models.query:RawModelIterable.__iter__",
            writes.hooks.raw,
            "what raw() loads is not what the row holds",
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
            cursors.execute,
            "the application's own SQL: what it writes, and COMMIT, ROLLBACK and SAVEPOINT as text",
        ),
        Patch(
            "django.db.backends.utils:CursorWrapper._executemany",
            cursors.execute,
            "the same, with many sets of parameters",
        ),
        *[
            Patch(f"{cursor}.{name}", wrap, "the driver's own, past execute()", added=True)
            for name, wrap in cursors.drivers_own().items()
        ],
        Patch(
            "django.db.transaction:Atomic.__exit__",
            transactions.leave_atomic,
            "knows the exception that rolls back, and TestCase blocks, which never commit",
        ),
        Patch(
            "django.core.management.commands.migrate:Command.handle",
            writes.suppressed,
            "migrations write content types, permissions and moved data, not what somebody did",
            late=True,
        ),
        Patch(
            f"{executor}.apply_migration",
            writes.migrates,
            "what a migration does to rows is told in sum",
            late=True,
        ),
        Patch(f"{executor}.unapply_migration", writes.migrates_back, "the same, taking it back", late=True),
    ]


def later(writes: WriteCapture) -> dict[str, list[Patch]]:
    """List what is wrapped when a connection of its backend is made, by the module it is in."""
    postgresql = "django.db.backends.postgresql.base"
    module = sys.modules.get(postgresql)
    # Which of them it has depends on the driver; the other would be ours, inherited.
    names = [name for name in ("copy", "copy_expert") if module and name in vars(module.CursorDebugWrapper)]
    return {
        postgresql: [
            Patch(
                f"{postgresql}:CursorDebugWrapper.{name}",
                writes.cursors.debug_copy,
                "with DEBUG the cursor has one of its own",
            )
            for name in names
        ]
    }


def reads_table(reads: ReadCapture) -> list[Patch]:
    """List what is wrapped from the first model on whose reads are to be recorded."""
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


def _requests(requests: RequestCapture) -> list[Patch | Listener]:
    from otel_audit.instrumentation.django.requests.lifespan import with_lifespan

    return [
        *_exceptions(requests),
        Patch(
            "django.core.handlers.base:BaseHandler.load_middleware",
            requests.load_middleware,
            "places our middleware, without a change to settings.MIDDLEWARE",
        ),
        Patch(
            "django.core.handlers.asgi:ASGIHandler.__call__",
            with_lifespan,
            "an ASGI server says here that it ends; many end by a signal after that",
        ),
    ]


def _exceptions(requests: RequestCapture) -> list[Listener]:
    records = requests.records
    if records is None:
        return []

    def signal() -> Any:
        from django.core.signals import got_request_exception

        return got_request_exception

    return [
        Listener(
            "django.core.signals:got_request_exception",
            lambda: signal().connect(records.failed, weak=False, dispatch_uid=records),
            lambda: signal().disconnect(dispatch_uid=records),
            "what no view and no middleware has handled, before it becomes a response",
        )
    ]


def _tests(tests: TestRuns) -> list[Patch]:
    """List what tells of test databases; test environments are wrapped when they are imported."""
    creation = "django.db.backends.base.creation:BaseDatabaseCreation"
    return [
        Patch(f"{creation}.create_test_db", tests.create_test_db, "what is written there is no trail"),
        Patch(f"{creation}.destroy_test_db", tests.destroy_test_db, "the trail goes on"),
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
