"""What really happened, told by PostgreSQL row triggers, and what the records claim, in the same words.

A fact is (table, operation, key, changes), changes being a sorted tuple of (column, old, new). Columns the
database computes are left out, and so are updates that change nothing or nothing but ``auto_now`` fields.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django.apps import apps
from django.db import connection
from django.db import models as m
from msgspec import UNSET

from otel_audit.audit_record import AuditRecord

Fact = tuple[str, str, str, tuple[tuple[str, Any, Any], ...]]
ABSENT = "(absent)"


def tables() -> dict[str, type[m.Model]]:
    """The audited models by table."""
    return {
        model._meta.db_table: model
        for model in apps.get_app_config("warehouse").get_models(include_auto_created=True)
        if not model._meta.proxy and model.__name__ != "Ignored"
    }


def install_triggers(names: Iterable[str] | None = None) -> None:
    """Let triggers tell each change of these tables, by default of all audited ones."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS truth (id bigserial, place text, op text, old text, new text)"
        )
        cursor.execute(
            """
            CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              INSERT INTO truth (place, op, old, new) VALUES (
                TG_TABLE_NAME, TG_OP,
                CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE to_jsonb(OLD)::text END,
                CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE to_jsonb(NEW)::text END);
              RETURN NULL;
            END $$
            """
        )
        for table in tables() if names is None else names:
            cursor.execute(
                f'CREATE OR REPLACE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON "{table}"'
                " FOR EACH ROW EXECUTE FUNCTION tell()"
            )


def remove_triggers(names: Iterable[str] | None = None) -> None:
    with connection.cursor() as cursor:
        for table in tables() if names is None else names:
            cursor.execute(f'DROP TRIGGER IF EXISTS tell ON "{table}"')
        cursor.execute("DROP TABLE IF EXISTS truth")


def taken() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Take what the triggers told since the last call: table, operation, row before and row after."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM truth RETURNING id, place, op, old, new")
        rows = sorted(cursor.fetchall())
    return [
        (
            table,
            operation,
            json.loads(old, parse_float=Decimal) if old else {},
            json.loads(new, parse_float=Decimal) if new else {},
        )
        for _, table, operation, old, new in rows
    ]


def told() -> Counter[Fact]:
    """Return what the triggers told since the last call."""
    facts: Counter[Fact] = Counter()
    for table, operation, old, new in taken():
        fact = _told(table, operation, old, new)
        if fact is not None:
            facts[fact] += 1
    return facts


def _told(table: str, operation: str, old: dict[str, Any], new: dict[str, Any]) -> Fact | None:
    model = tables()[table]
    row = old or new
    keys: list[Any] = [field.column for field in model._meta.pk_fields]
    parts = [row[column] for column in keys]
    key = str(parts[0]) if len(parts) == 1 else json.dumps(parts, separators=(",", ":"))
    changes = []
    fields: list[Any] = list(model._meta.local_concrete_fields)
    for field in fields:
        if field.generated:
            continue
        before = _canonical(field, old[field.column]) if old else ABSENT
        after = _canonical(field, new[field.column]) if new else ABSENT
        if field.column in keys and operation != "UPDATE":
            continue
        if before != after:
            changes.append((field.name, before, after))
    return _fact(model, operation, key, changes)


def claimed(records: Iterable[AuditRecord]) -> Counter[Fact]:
    """Return what records of successful writes claim."""
    facts: Counter[Fact] = Counter()
    for record in records:
        if record.outcome != "success":
            continue
        assert record.completeness == "full", record
        for fact in _claims(record):
            facts[fact] += 1
    return facts


def _claims(record: AuditRecord) -> Iterable[Fact]:
    assert record.target is not None
    model = apps.get_model(record.target.type)
    operation = {"CREATE": "INSERT", "UPDATE": "UPDATE", "DELETE": "DELETE"}[record.action]
    rows: Sequence[tuple[str, list[tuple[str, Any, Any]]]]
    if record.bulk is None:
        rows = [(record.target.id, [(change.field, change.old, change.new) for change in record.changes])]
    else:
        rows = [
            (
                key,
                [
                    (
                        column.field,
                        column.old[index] if column.old is not UNSET else UNSET,
                        column.new[index] if column.new is not UNSET else UNSET,
                    )
                    for column in record.bulk.columns
                ],
            )
            for index, key in enumerate(record.bulk.keys)
        ]
    for key, changes in rows:
        canonical = []
        for name, old, new in changes:
            field = model._meta.get_field(name)
            if field.generated:
                continue
            before = ABSENT if operation == "INSERT" else _canonical(field, old)
            after = ABSENT if operation == "DELETE" else _canonical(field, new)
            if before != after:
                canonical.append((name, before, after))
        fact = _fact(model, operation, key, canonical)
        if fact is not None:
            yield fact


def _fact(model: Any, operation: str, key: str, changes: list[tuple[str, Any, Any]]) -> Fact | None:
    if operation == "UPDATE":
        automatic = {
            field.name for field in model._meta.local_concrete_fields if getattr(field, "auto_now", False)
        }
        if all(name in automatic for name, _, _ in changes):
            return None
    return model._meta.db_table, operation, key, tuple(sorted(changes))


def _canonical(field: Any, value: Any) -> Any:
    if value is UNSET:
        return "(not known)"
    if value is None:
        return None
    while field.remote_field is not None:
        field = field.target_field
    if isinstance(field, m.JSONField):
        return json.dumps(_floats(value), sort_keys=True)
    if isinstance(field, m.DecimalField):
        return str(Decimal(value))
    if isinstance(field, m.FloatField):
        return float(value)
    if isinstance(field, m.DateTimeField):
        return datetime.datetime.fromisoformat(value).astimezone(datetime.UTC).isoformat()
    if isinstance(field, m.BinaryField):
        return value if not value.startswith("\\x") else base64.b64encode(bytes.fromhex(value[2:])).decode()
    return value


def _floats(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    return value
