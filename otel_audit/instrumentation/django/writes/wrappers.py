"""The wrappers of Django's write path: what is called, and whom it tells."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.django.loaded import Saving, ThreadState
from otel_audit.instrumentation.django.plan import NOT_AUDITED
from otel_audit.instrumentation.django.writes import delete, insert, update
from otel_audit.instrumentation.django.writes.cursor import CursorCapture
from otel_audit.instrumentation.django.writes.delete_fast_path import delete_quickly
from otel_audit.instrumentation.django.writes.insert_fast_path import insert_quickly
from otel_audit.instrumentation.django.writes.loading.hooks import ModelHooks
from otel_audit.instrumentation.django.writes.migrations import migrating
from otel_audit.instrumentation.django.writes.save_fast_path import save_quickly
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.patching import AppliedPatches, Patch
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.pipeline.provider import AuditPipeline

_F = TypeVar("_F", bound=Callable[..., Any])


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
        self.hooks = ModelHooks(self.capture)
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
                if (
                    plan is NOT_AUDITED
                    or thread.suppressed
                    or not delete.leads_on(capture, plan, compiler.connection.vendor)
                ):
                    return _uncaptured(thread, plan, plain)
                from otel_audit.instrumentation.django.writes.unrecorded_delete import delete_unrecorded

                return thread.during("compiling", delete_unrecorded, capture, plan, compiler, plain)
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

    # --- start and stop ------------------------------------------------------------------------

    def start(self) -> None:
        """Hook the models, and wrap what backends have of their own as they are loaded."""
        from django.db.backends.signals import connection_created

        connection_created.connect(self._connected, weak=False)
        self._connected()
        self.hooks.start()

    def stop(self) -> None:
        """Take the hooks back."""
        from django.db.backends.signals import connection_created

        connection_created.disconnect(self._connected)
        self._later.undo()
        self._seen.clear()
        self.hooks.stop()

    def _connected(self, **kwargs: Any) -> None:
        """Wrap what a backend has of its own, once it is loaded: importing it here would need its driver."""
        for name, patches in self._listed(self).items():
            if name in sys.modules and name not in self._seen:
                self._seen.add(name)
                try:
                    self._later.apply(patches)
                except faults() as error:
                    self.capture.failures.note(name, error)


def _uncaptured(thread: ThreadState, plan: Any, run: Callable[[], Any]) -> Any:
    """Run a compiler whose statement is not recorded: at the cursor nobody need read what it says."""
    if thread.suppressed or plan is NOT_AUDITED:  # a migration's is counted there, and what has no plan told
        return run()
    return thread.during("compiling", run)
