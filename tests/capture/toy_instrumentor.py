"""All it takes to audit another library: the instrumentor of the toy, complete."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.capture.bulk import BulkWrite, ReturnedRows
from otel_audit.capture.plan import FieldPlan, TablePlan, Verb
from otel_audit.capture.reads import Reading, ReadRecords, Tally
from otel_audit.capture.statement import Statement
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.transactions.state import CaptureState
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import Patch
from tests.capture.toy import Database


class ToyConnection(Connection):
    def __init__(self, toy: Database, state: CaptureState) -> None:
        self.toy = toy
        super().__init__(state, name=toy.path, system="sqlite", namespace=toy.path)

    def commits_at_once(self) -> tuple[bool, bool]:
        return (not self.toy.raw.in_transaction,) * 2

    def driver(self) -> Any:
        return self.toy.raw

    def abandon(self) -> None:
        self.toy.raw.rollback()
        self.rolled_back("SpoolError")


class ToyCapture(Part):
    def __init__(self, config: AuditConfig, pipeline: Any) -> None:
        self.state = CaptureState("the toy", config, config.django, pipeline)

    def connection(self, toy: Database) -> ToyConnection:
        if not hasattr(toy, "_otel_audit"):
            vars(toy)["_otel_audit"] = ToyConnection(toy, self.state)
        return vars(toy)["_otel_audit"]  # type: ignore[no-any-return]

    def plan(self, toy: Database, table: str) -> TablePlan:
        columns = [FieldPlan(row[1]) for row in toy.raw.execute(f"PRAGMA table_info({table})")]
        label = f"toy.{table}"
        return TablePlan(label, table, columns, columns[:1], self.state.policy.settings(label))

    def write(self, verb: Verb, note: Callable[..., CapturedWrite]) -> Callable[..., Any]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def method(toy: Database, table: str, *where: str, **values: Any) -> Any:
                plan = self.plan(toy, table)
                sql = f"SELECT {', '.join(['id', *values])} FROM {table} WHERE {where[0] if where else 0}"
                before = toy.raw.execute(sql).fetchall()
                statement = Statement(self.connection(toy), plan, verb)
                statement.begin()
                try:
                    result = original(toy, table, *where, **values)
                except BaseException as error:
                    statement.failed(error, sent=True, refused=isinstance(error, sqlite3.Error))
                    raise
                try:
                    statement.done(*([note(statement, before, result, values)] if result else []))
                except Exception as fault:  # noqa: BLE001 - it costs detail, never the statement
                    statement.recover(fault, result if verb == "update" else 1)
                return result

            return method

        return wrap

    def inserted(self, statement: Statement, before: Any, key: int, values: dict[str, Any]) -> CapturedWrite:
        made = [(field, UNSET, field.normal(values.get(field.name))) for field in statement.plan.fields[1:]]
        return RowWrite(statement.plan, "create", statement.connection, key, made)

    def updated(self, statement: Statement, rows: Any, count: int, values: dict[str, Any]) -> CapturedWrite:
        plan, found = statement.plan, ReturnedRows(statement.plan.keys, rows)
        old = [field for name in values for field in plan.fields if field.name == name]
        new = [(field, field.normal(values[field.name])) for field in old]
        return BulkWrite(plan, "update", statement.connection, count, found, old=old, constant=new)

    def selects(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def select(toy: Database, table: str, where: str = "1") -> Iterator[Any]:
            plan, rows = self.plan(toy, table), list(original(toy, table, where))
            if plan.reads and (logger := self.state.logger()):
                records = ReadRecords(logger, self.state.failures, self.connection(toy).database(plan))
                reading = Reading(plan.label, plan.event, table, tuple(field.name for field in plan.fields))
                tally = Tally(reading, [lambda row: str(row[0])], self.state.config.max_read_ids)
                records.count([tally], rows)
                records.keep([tally])
            yield from rows

        return select


class ToyInstrumentor(AuditInstrumentor):
    library = "the toy"
    section = "django"  # a library's own section is another CaptureSection

    def parts(self, config: AuditConfig, pipeline: Any) -> Sequence[Part]:
        return [ToyCapture(config, pipeline)]

    def patches(self, parts: Sequence[Any]) -> Iterable[Patch]:
        toy, of, target = parts[0], parts[0].connection, f"{Database.__module__}:Database"
        yield Patch(f"{target}.insert", toy.write("create", toy.inserted), "every INSERT")
        yield Patch(f"{target}.update", toy.write("update", toy.updated), "every UPDATE")
        yield Patch(f"{target}.select", toy.selects, "every SELECT")
        yield Patch(f"{target}.commit", lambda run: lambda db: of(db).commit(lambda: run(db)), "success")
        yield Patch(f"{target}.rollback", then(lambda db, _: of(db).rolled_back()), "failure")
        yield Patch(f"{target}.savepoint", then(lambda db, sid: of(db).savepoint(sid)), "a mark")
        yield Patch(f"{target}.rollback_to", then(lambda db, _, sid: of(db).rollback_to(sid)), "back to it")


def then(note: Callable[..., None]) -> Callable[..., Any]:
    return lambda run: lambda db, *args: (result := run(db, *args), note(db, result, *args))[0]
