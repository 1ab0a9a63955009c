"""Records reads of sensitive models: one record a query and model, with the objects and fields it showed.

Everything the ORM selects comes through ``SQLCompiler.execute_sql``, ``raw()`` through its iterable. The
record is kept before the rows reach the application; of a query read piece by piece an intent is kept before
the first piece, and the record when the last was fetched. A read has happened whatever becomes of the
transaction it was made in, so it does not wait for a commit.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from django.apps import apps
from django.db import connections
from django.db.models.deletion import Collector
from django.db.models.signals import class_prepared
from django.db.models.sql import AggregateQuery
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE, MULTI, SINGLE

from otel_audit.audit_record import Database
from otel_audit.capture.opt_in import CodeRule, listen, unlisten
from otel_audit.capture.reads import Reading, ReadRecords, Tally
from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelPolicy
from otel_audit.instrumentation.django.reads.plan import (
    ModelReading,
    aggregate_readings,
    key_readers,
    kind_of,
    missing_keys,
    row_readings,
    shows_a_query,
)
from otel_audit.instrumentation.patching import AppliedPatches, Patch
from otel_audit.interruptions import faults, interrupts
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.values import key_text

_WRITES: Final = (SQLInsertCompiler, SQLUpdateCompiler, SQLDeleteCompiler)
_DISPATCH_UID: Final = "otel_audit"


class ReadCapture:
    """Wraps what the ORM reads through, from the first model on whose reads are to be recorded."""

    def __init__(
        self,
        policy: ModelPolicy,
        config: CaptureSection,
        logger: Callable[[], AuditLogger | None],
        failures: Failures,
        database: Callable[[Any], Database],
        patches: Callable[[ReadCapture], Sequence[Patch]],
    ) -> None:
        """Take what it works with.

        Args:
            policy: which models' reads are recorded.
            config: how many objects a record lists.
            logger: keeps the records.
            failures: takes faults of ours.
            database: says in a record where a query went.
            patches: list what is wrapped once the reads of a model are to be recorded.
        """
        self._policy = policy
        self._max_keys = config.max_read_ids
        self._logger = logger
        self._failures = failures
        self._database = database
        self._tables: frozenset[str] | None = None
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()  # replaced, never changed
        self._internal = _Internal()
        self._listed = patches
        self._patches = AppliedPatches()
        self._switch = threading.Lock()
        self._on = False

    def start(self) -> None:
        """Look at the models there are, and notice those that are defined or named from now on."""
        class_prepared.connect(self._prepared, weak=False, dispatch_uid=_DISPATCH_UID)
        listen(self._opted_in)
        models = [model for models in list(apps.all_models.values()) for model in list(models.values())]
        if any(map(self._is_sensitive, models)):
            self._switch_on()

    def stop(self) -> None:
        """Undo :meth:`start`."""
        unlisten(self._opted_in)
        class_prepared.disconnect(dispatch_uid=_DISPATCH_UID)
        with self._switch:
            self._on = False
            self._patches.undo()

    def _switch_on(self) -> None:
        with self._switch:
            if not self._on:
                self._on = True
                self._patches.apply(self._listed(self))

    def _prepared(self, sender: Any, **kwargs: Any) -> None:
        self._tables = None
        try:
            if self._is_sensitive(sender):
                with self._switch:  # it may be in a registry of its own; others may be going over the set
                    self._made = self._made | {sender}
                self._switch_on()
        except faults() as error:
            self._failures.note("class_prepared", error)

    def _opted_in(self, rules: Sequence[CodeRule]) -> None:
        self._tables = None
        try:
            if any(rule.said.reads for rule in rules):
                self._switch_on()
        except faults() as error:
            self._failures.note("audit_models", error)

    # --- wrappers ----------------------------------------------------------------------------

    def selects(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``SQLCompiler.execute_sql``."""
        internal, concerned = self._internal, self._concerned

        # Every query of every model comes through here: what shows nothing sensitive is left alone at once,
        # and no arguments are packed for it.
        @functools.wraps(original)
        def execute_sql(
            compiler: Any,
            /,
            result_type: Any = MULTI,
            chunked_fetch: bool = False,
            chunk_size: int = GET_ITERATOR_CHUNK_SIZE,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            query = compiler.query
            appended: Sequence[Any] = ()
            if not query.default_cols and result_type == MULTI:
                appended = self._append_keys(compiler)
            try:
                if args or kwargs:
                    result = original(compiler, result_type, chunked_fetch, chunk_size, *args, **kwargs)
                else:
                    result = original(compiler, result_type, chunked_fetch, chunk_size)
            finally:
                if appended:
                    del compiler.pre_sql_setup
            if not (appended or concerned(query)) or not self._is_read(compiler):
                return result
            logger = self._logger()
            if logger is None:
                return result
            if result_type == MULTI:
                return internal.during(self._fetched, logger, compiler, appended, result)
            if result_type == SINGLE:
                internal.during(self._answered, logger, compiler, result)
            return result

        return execute_sql

    def raw(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``RawModelIterable.__iter__``: ``raw()`` makes its objects without the compiler's help."""

        @functools.wraps(original)
        def iterate(iterable: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
            rows: Iterator[Any] = original(iterable, *args, **kwargs)
            queryset = iterable.queryset
            logger = self._logger()
            if logger is None or self._internal.depth or not self._is_sensitive(queryset.model):
                return rows
            return self._raw_rows(logger, queryset, rows)

        return iterate

    def internal(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method of Django's whose own queries show nobody anything."""

        @functools.wraps(original)
        def not_a_read(*args: Any, **kwargs: Any) -> Any:
            return self._internal.during(original, *args, **kwargs)

        return not_a_read

    def collects(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Collector.collect``: it loads what is about to be deleted.

        The admin's own collector shows what it found and asks: that is a read.
        """
        collect_silently = self.internal(original)

        @functools.wraps(original)
        def collect(collector: Any, /, *args: Any, **kwargs: Any) -> Any:
            chosen = collect_silently if type(collector) is Collector else original
            return chosen(collector, *args, **kwargs)

        return collect

    # --- deciding ----------------------------------------------------------------------------

    def _is_sensitive(self, model: Any) -> bool:
        return self._policy.of(model).reads

    def _is_read(self, compiler: Any) -> bool:
        """Say whether a compiler's rows are for the application, and are not a plan of the database."""
        return not (self._internal.depth or isinstance(compiler, _WRITES) or compiler.query.explain_info)

    def _concerned(self, query: Any) -> bool:
        """Say quickly whether a query may show anything of a sensitive model."""
        tables = self._tables or self._sensitive_tables()
        if not tables or query.model is None:  # Q.check() evaluates a condition on values
            return False
        for join in query.alias_map.values():
            if join.table_name in tables:
                return True
        if query.combinator or (query.annotations and any(map(shows_a_query, query.annotations.values()))):
            return True
        if isinstance(query, AggregateQuery):
            return self._concerned(query.inner_query)
        # Until it is compiled it may not know its own table.
        return not query.alias_map and query.model._meta.db_table in tables

    def _sensitive_tables(self) -> frozenset[str]:
        if self._tables is None:
            if not apps.models_ready:
                return frozenset()
            models = [*apps.get_models(include_auto_created=True), *self._made]
            self._tables = frozenset(model._meta.db_table for model in models if self._is_sensitive(model))
        return self._tables

    def _append_keys(self, compiler: Any) -> Sequence[Any]:
        """Let a ``values()`` query that leaves out the primary key select it too, behind its own columns."""
        query = compiler.query
        if not self._concerned(query) or not self._is_read(compiler) or self._logger() is None:
            return ()
        try:
            keys = missing_keys(query, self._is_sensitive)
        except faults() as error:
            self._failures.report("read", error, what=_label(query))
            return []
        if not keys:
            return []
        appended: list[Any] = []

        def pre_sql_setup(*args: Any, **kwargs: Any) -> Any:
            extra_select, order_by, group_by = type(compiler).pre_sql_setup(compiler, *args, **kwargs)
            if not (extra_select or group_by or compiler.qualify):
                extra_select = [(key, compiler.compile(key), None) for key in keys]
                appended[:] = keys
            return extra_select, order_by, group_by

        compiler.pre_sql_setup = pre_sql_setup
        return appended

    # --- recording ---------------------------------------------------------------------------

    def _named(self, reading: ModelReading) -> Reading:
        return reading.named(self._policy.keys(reading.model).key)

    def _answered(self, logger: AuditLogger, compiler: Any, row: Any) -> None:
        """Record a count, an exists or an aggregate."""
        records = ReadRecords(logger, self._failures, self._database(compiler.connection))
        kind = kind_of(compiler.query)
        try:
            readings = aggregate_readings(compiler.query, kind, self._is_sensitive)
        except faults() as error:
            self._failures.report("read", error, what=_label(compiler.query), lost=1)
        else:
            records.keep_answer([self._named(reading) for reading in readings], kind, row)

    def _fetched(self, logger: AuditLogger, compiler: Any, appended: Sequence[Any], result: Any) -> Any:
        """Record rows that are there; of those still to come, see to it that they will be."""
        records = ReadRecords(logger, self._failures, self._database(compiler.connection))
        try:
            tallies = [
                Tally(self._named(reading), key_readers(compiler, reading.keys), self._max_keys)
                for reading in row_readings(compiler, self._is_sensitive, appended)
            ]
        except faults() as error:
            self._failures.report("read", error, what=_label(compiler.query), lost=1)
            tallies = []
        width = -len(appended) if appended else None
        if not tallies:
            return result if width is None else _narrowed(result, width)
        if isinstance(result, list):
            for chunk in result:
                records.count(tallies, chunk)
            records.keep(tallies)
            return result if width is None else list(_narrowed(result, width))
        if type(result) is type(iter([])):  # an empty result that the database was not asked for
            return result
        return self._pieces(records, tallies, result, width)

    def _pieces(
        self, records: ReadRecords, tallies: list[Tally], chunks: Any, width: int | None
    ) -> Iterator[Any]:
        try:
            try:
                self._internal.during(records.begin, tallies)
                for chunk in chunks:
                    records.count(tallies, chunk)
                    yield chunk if width is None else [row[:width] for row in chunk]
            finally:
                self._end_pieces(records, tallies, chunks)
        finally:  # once more: an interruption may come between any two lines
            self._end_pieces(records, tallies, chunks)

    def _end_pieces(self, records: ReadRecords, tallies: list[Tally], chunks: Any) -> None:
        try:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        finally:
            self._keep_displayed(records.end, tallies)

    def _raw_rows(self, logger: AuditLogger, queryset: Any, rows: Iterator[Any]) -> Iterator[Any]:
        records = self._internal.during(
            lambda: ReadRecords(logger, self._failures, self._database(connections[queryset.db]))
        )
        reading = self._named(ModelReading(queryset.model._meta.concrete_model, (), every_row=True))
        tally = Tally(reading, [lambda instance: key_text(instance.pk)], self._max_keys)
        ended = False
        try:
            for instance in rows:
                if not tally.count:
                    tally.reading = reading._replace(fields=_raw_fields(self._failures, queryset))
                records.count([tally], [instance])
                yield instance
            ended = True
        except GeneratorExit:
            ended = True
            raise
        finally:
            if ended or tally.count:
                self._keep_displayed(records.keep, [tally])

    def _keep_displayed(self, keep: Callable[[list[Tally]], None], tallies: list[Tally]) -> None:
        """Keep what was read; once more where that is interrupted: the application has seen the rows."""
        try:
            self._internal.during(keep, tallies)
        except BaseException as error:
            if interrupts(error):
                self._internal.during(keep, tallies)
            raise


def _raw_fields(failures: Failures, queryset: Any) -> tuple[str, ...]:
    try:
        columns = [queryset.model_fields.get(column) for column in queryset.columns]
    except faults() as error:
        failures.report("read", error, what=_label(queryset))
        return ()
    return tuple(field.name for field in columns if field is not None)


def _label(query: Any) -> str:
    """Name what is asked for: a query or a query set."""
    return str(query.model._meta.label)


class _Internal(threading.local):
    """A block whose queries are nobody's reads: Django's own errands, and what our own work may ask for."""

    depth = 0

    def during(self, run: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run it inside the block."""
        outer = self.depth
        try:
            try:
                self.depth = outer + 1
                return run(*args, **kwargs)
            finally:
                self.depth = outer
        finally:  # once more: an interruption may come between any two lines
            self.depth = outer


def _narrowed(chunks: Iterable[Any], width: int) -> Iterator[Any]:
    for chunk in chunks:
        yield [row[:width] for row in chunk]
