"""What a table lets us ask around a statement, and one row of it by its key."""

from __future__ import annotations

import math
import sqlite3
import time
import weakref
from collections.abc import Sequence
from typing import Any, Final

from otel_audit.capture.databases import abilities
from otel_audit.capture.databases.abilities import Abilities, Answer
from otel_audit.capture.plan import Verb
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Converted
from otel_audit.instrumentation.django.writes.sql.sizes import Capped
from otel_audit.interruptions import faults

_MAX_SELECTS: Final = 4096
_ASK_AGAIN: Final = 60.0
"""Seconds until a table that is not an ordinary one is asked again what it is."""


class Tables:
    """The abilities of every table, asked once, through the driver, by statements that cannot fail."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[ModelPlan, dict[str, tuple[Answer, float]]] = (
            weakref.WeakKeyDictionary()
        )
        self._key_selects: dict[tuple[Any, ...], str] = {}

    def known(self, alias: str, plan: ModelPlan, verb: Verb) -> Abilities | None:
        """Return what the table of ``plan`` lets us ask around ``verb``, if it was asked for it."""
        answers = self._known.get(plan)
        kept = None if answers is None else answers.get(alias)
        if kept is None:
            return None
        answer, until = kept
        return answer.verbs[verb] if until == math.inf or time.monotonic() < until else None

    def ask(self, connection: Any, plan: ModelPlan, verb: Verb) -> Abilities:
        """Ask the table of ``plan``; the connection is open. What may change at any moment is not kept."""
        try:
            answer = _ask(connection, plan)
        except faults():  # an aborted transaction, a foreign driver: ask again next time
            return Abilities()
        if answer.lasting:
            # Another process may change the table; of an ordinary one, a refusal tells.
            until = math.inf if answer.plain else time.monotonic() + _ASK_AGAIN
            self._known.setdefault(plan, {})[connection.alias] = answer, until
        return answer.verbs[verb]

    def forget(self, plan: ModelPlan | None = None) -> None:
        """Forget what is known of the table of ``plan``, or of all: it has changed, or may have."""
        if plan is None:
            self._known.clear()
        else:
            self._known.pop(plan, None)

    def select_row(
        self,
        compiler: Any,
        plan: ModelPlan,
        key: Any,
        columns: Sequence[ModelFieldPlan],
        *,
        lock: bool = False,
        most: int = 0,
    ) -> dict[ModelFieldPlan, Any] | None:
        """Read columns of one row by its key, ``None`` if it is not there.

        ``lock`` holds the row. Values of more than ``most`` bytes, unless it is 0, are left out.
        """
        connection = compiler.connection
        cached = (connection.alias, plan.table, tuple(column.column for column in columns), lock, most)
        sql = self._key_selects.get(cached)
        if sql is None:
            if len(self._key_selects) >= _MAX_SELECTS:
                self._key_selects.clear()
            sql = self._key_selects[cached] = _key_select(compiler, plan, columns, lock=lock, most=most)
        parts = (key,) if len(plan.keys) == 1 else key
        params = [
            column.field.get_db_prep_value(part, connection, prepared=False)
            for column, part in zip(plan.keys, parts, strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            row = cursor.fetchone()
        if row is None:
            return None
        width = len(columns)
        values = dict(
            zip(columns, next(iter(Converted(compiler, plan, columns).rows([row[:width]]))), strict=True)
        )
        large = [column for column in columns if column.large]
        for column, size in zip(large, row[width:], strict=False):
            if size > most:
                del values[column]
        return values


def _ask(connection: Any, plan: ModelPlan) -> Answer:
    driver, system = connection.connection, connection.vendor
    version: tuple[int, ...] = ()
    if system == "sqlite":
        version = sqlite3.sqlite_version_info
    elif system == "mysql" and connection.mysql_is_mariadb:
        system, version = "mariadb", connection.mysql_version

    def query(sql: str, params: Sequence[Any]) -> list[Any]:
        cursor = driver.cursor()
        try:
            cursor.execute(sql, params)
            return list(cursor.fetchall())
        finally:
            cursor.close()

    table = abilities.Table(
        plan.table,
        connection.ops.quote_name(plan.table),
        [field.column for field in plan.fields],
        [field.column for field in plan.keys],
    )
    return abilities.ask(system, version, query, table)


def _key_select(
    compiler: Any, plan: ModelPlan, columns: Sequence[ModelFieldPlan], *, lock: bool, most: int
) -> str:
    connection = compiler.connection
    quote = connection.ops.quote_name
    if most:
        selected = ", ".join(Capped(compiler, columns, most).sql)
    else:
        selected = ", ".join(
            column.field.select_format(compiler, quote(column.column), ())[0] for column in columns
        )
    where = " AND ".join(f"{quote(column.column)} = %s" for column in plan.keys)
    suffix = ""
    if lock and connection.features.has_select_for_update:
        no_key = connection.features.has_select_for_no_key_update
        suffix = " " + connection.ops.for_update_sql(no_key=no_key)
    return f"SELECT {selected} FROM {quote(plan.table)} WHERE {where}{suffix}"
