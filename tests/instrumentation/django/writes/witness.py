"""Two witnesses of what really happened, and what the records claim, in the same words.

The rows themselves, read before and after: the records must lead from the ones to the others. PostgreSQL's
triggers: they tell each change (:mod:`~tests.instrumentation.django.writes.truth` takes what they told).
"""

from __future__ import annotations

import base64
import datetime
import json
import re
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from django.db import models
from django.utils.dateparse import parse_duration
from msgspec import UNSET

from otel_audit.audit_record import AuditRecord
from tests.instrumentation.django.warehouse.models import Money, Point
from tests.instrumentation.django.writes import truth
from tests.instrumentation.django.writes.specimens import Mood

ABSENT: Final = "(absent)"
UNKNOWN: Final = "(not known)"
Models = Sequence[type[models.Model]]
Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]
"""Label and key, and what stands in the other fields."""


def _keys(model: Any) -> list[str]:
    return [field.column for field in model._meta.pk_fields]


def _counts(field: Any) -> bool:
    """Whether a record must tell of it: not of what stands in the key, nor of the time of the last save."""
    return field.column not in _keys(field.model) and not getattr(field, "auto_now", False)


# --- the rows ------------------------------------------------------------------------------------


def _key_text(model: Any, values: Row) -> str:
    parts = [values[field.name] for field in model._meta.pk_fields]
    if len(parts) == 1:
        return str(parts[0])
    return json.dumps(parts, separators=(",", ":"))


def _of_key(model: Any, key: str) -> str:
    """The id of a record in the form of the witness."""
    fields = model._meta.pk_fields
    parts = [key] if len(fields) == 1 else json.loads(key)
    return _key_text(
        model, {field.name: canonical(field, part) for field, part in zip(fields, parts, strict=True)}
    )


def rows_of(made: Models) -> Rows:
    """Read all rows: label and key, and what stands in the other fields."""
    rows: Rows = {}
    for model in made:
        fields: list[Any] = list(model._meta.local_concrete_fields)
        for instance in model.objects.all():
            row = {field.name: canonical(field, getattr(instance, field.attname)) for field in fields}
            rows[model._meta.label, _key_text(model, row)] = {
                field.name: row[field.name] for field in fields if _counts(field)
            }
    return rows


class Told:
    """One row of a record: what it claims of the fields it names, as (old, new)."""

    def __init__(self, model: Any, record: AuditRecord, key: str, fields: dict[str, tuple[Any, Any]]) -> None:
        self.row = (model._meta.label, _of_key(model, key))
        self.action = record.action
        self.record = record
        self.fields = {
            name: (
                ABSENT if record.action == "CREATE" else canonical(model._meta.get_field(name), old),
                ABSENT if record.action == "DELETE" else canonical(model._meta.get_field(name), new),
            )
            for name, (old, new) in fields.items()
            if _counts(model._meta.get_field(name))
        }


def claims(made: Models, records: Sequence[AuditRecord]) -> Iterator[Told]:
    """Go through the rows of all records of what was committed."""
    by_label = {model._meta.label: model for model in made}
    for record in records:
        assert record.outcome != "unknown", record
        if record.outcome != "success":
            continue
        assert record.completeness == "full", record
        assert not record.truncated, record
        assert record.target is not None
        model = by_label[record.target.type]
        if record.old_values == "exact":
            columns = [] if record.bulk is None else record.bulk.columns
            olds = [change.old for change in record.changes] + [column.old for column in columns]
            assert UNSET not in olds, record
        if record.bulk is None:
            changed = {change.field: (change.old, change.new) for change in record.changes}
            yield Told(model, record, record.target.id, changed)
            continue
        for index, key in enumerate(record.bulk.keys):
            yield Told(
                model,
                record,
                key,
                {
                    column.field: (
                        column.old[index] if isinstance(column.old, list) else column.old,
                        column.new[index] if isinstance(column.new, list) else column.new,
                    )
                    for column in record.bulk.columns
                },
            )


def replay(made: Models, rows: Rows, records: Sequence[AuditRecord]) -> Rows:
    """Apply records to rows; each old value must be what the row held."""
    rows = {key: dict(row) for key, row in rows.items()}
    for told in claims(made, records):
        row = rows.get(told.row)
        if told.action == "CREATE":
            assert row is None, f"{told.row} was there: {told.record}"
            rows[told.row] = {name: new for name, (_, new) in told.fields.items()}
            continue
        assert row is not None, f"{told.row} was not there: {told.record}"
        for name, (old, new) in told.fields.items():
            assert old in (row[name], UNKNOWN), f"{name} was {row[name]!r}, not {old!r}: {told.record}"
            if told.action == "UPDATE":
                row[name] = new
        if told.action == "DELETE":
            del rows[told.row]
    return rows


def balance(made: Models, before: Rows, after: Rows, records: Sequence[AuditRecord]) -> None:
    """Check that the records lead from ``before`` to ``after``, in whatever order they happened.

    Of each field of a row, what records say was written and what they say was replaced cancel each other
    out, but for the first and the last value.
    """
    sums: dict[tuple[str, str, str], Counter[str]] = {}

    def add(row: tuple[str, str], name: str, value: Any, by: int) -> None:
        if value != ABSENT:
            sums.setdefault((*row, name), Counter())[repr(value)] += by

    for told in claims(made, records):
        for name, (old, new) in told.fields.items():
            add(told.row, name, new, 1)
            add(told.row, name, old, -1)
    for rows, by in ((before, 1), (after, -1)):
        for row, values in rows.items():
            for name, value in values.items():
                add(row, name, value, by)
    wrong = {}
    for field, total in sums.items():
        unknown = total.pop(repr(UNKNOWN), 0)
        left = {value: number for value, number in total.items() if number}
        if any(number < 0 for number in left.values()) or sum(left.values()) != -unknown:
            wrong[field] = left
    assert not wrong, f"written (1) or replaced (-1) and not so: {list(wrong.items())[:10]}"


# --- the triggers --------------------------------------------------------------------------------

Fact = tuple[str, str, str, tuple[tuple[str, str, str], ...]]
_ACTIONS: Final = {"INSERT": "CREATE", "UPDATE": "UPDATE", "DELETE": "DELETE"}


def _fact(model: Any, action: str, key: str, fields: dict[str, tuple[Any, Any]]) -> Fact | None:
    changed = {
        name: both
        for name, both in fields.items()
        if both[0] != both[1] and _counts(model._meta.get_field(name))
    }
    if action == "UPDATE" and not changed:
        return None
    changes = sorted((name, repr(old), repr(new)) for name, (old, new) in changed.items())
    return model._meta.label, action, key, tuple(changes)


def triggers_told(made: Models) -> Counter[Fact]:
    """Take what the triggers told of the models."""
    by_table: dict[str, Any] = {model._meta.db_table: model for model in made}
    facts: Counter[Fact] = Counter()
    for table, operation, old, new in truth.taken():
        model = by_table[table]
        fields = {
            field.name: (
                canonical(field, old[field.column]) if old else ABSENT,
                canonical(field, new[field.column]) if new else ABSENT,
            )
            for field in model._meta.local_concrete_fields
        }
        row = {name: after if new else before for name, (before, after) in fields.items()}
        fact = _fact(model, _ACTIONS[operation], _key_text(model, row), fields)
        if fact is not None:
            facts[fact] += 1
    return facts


def claimed(made: Models, records: Sequence[AuditRecord]) -> Counter[Fact]:
    """Return what the records claim, as the triggers tell it."""
    by_label = {model._meta.label: model for model in made}
    facts = (
        _fact(by_label[told.row[0]], told.action, told.row[1], told.fields) for told in claims(made, records)
    )
    return Counter(fact for fact in facts if fact is not None)


def compare(made: Models, records: Sequence[AuditRecord]) -> None:
    """Check that the records claim what the triggers told, no more and no less.

    Of a row that somebody else made while an upsert ran the old values are not known; what was written is.
    """
    expected, actual = triggers_told(made), claimed(made, records)
    missing, invented = expected - actual, actual - expected
    for fact in list(invented.elements()):
        new = {name: after for name, before, after in fact[3] if before == repr(UNKNOWN)}
        for other in missing:
            if other[:3] == fact[:3] and new and all(new.get(name) == after for name, _, after in other[3]):
                missing -= Counter([other])
                invented -= Counter([fact])
                break
    assert not missing, f"not on record: {missing}; on record: {invented}"
    assert not invented, f"on record and not true: {invented}"


def differ(trail: Rows, rows: Rows) -> list[str]:
    """Say where two sets of rows differ."""
    found = [f"{key} only on record" for key in trail.keys() - rows.keys()]
    found += [f"{key} not on record" for key in rows.keys() - trail.keys()]
    for key in trail.keys() & rows.keys():
        found += [
            f"{key} {name}: recorded {trail[key].get(name)!r}, is {value!r}"
            for name, value in rows[key].items()
            if trail[key].get(name, ABSENT) != value
        ]
    return found[:20]


# --- one form for all witnesses ------------------------------------------------------------------


def canonical(field: Any, value: Any) -> Any:
    """Bring a value into one form: from a record, from the ORM, from a row that PostgreSQL wrote as JSON."""
    if value is UNSET:
        return UNKNOWN
    if value is None:
        return None
    if isinstance(field, models.GeneratedField):
        field = field.output_field
    convert = _CANONICAL.get(type(field).__name__)
    return value if convert is None else convert(field, value)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _moment(value: Any) -> str:
    if isinstance(value, int):
        value = datetime.datetime.fromtimestamp(value, datetime.UTC)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return str(value.astimezone(datetime.UTC).isoformat())


def _bytes(value: Any) -> str:
    if isinstance(value, str):
        return base64.b64encode(bytes.fromhex(value[2:])).decode() if value.startswith("\\x") else value
    return base64.b64encode(bytes(value)).decode()


def _point(value: Any) -> list[float]:
    return [value.x, value.y] if isinstance(value, Point) else [float(part) for part in value.split(",")]


def _zipped(value: str) -> str:
    return zlib.decompress(bytes.fromhex(value[2:])).decode() if value.startswith("\\x") else value


def _money(value: Any) -> str:
    return str((value.amount if isinstance(value, Money) else Decimal(str(value))).normalize())


def _range(field: Any, value: Any) -> str:
    text = str(value)
    if text == "empty":
        return text
    low, high = re.sub(r'["\s](?=[,\[\]()]|$)|(?<=[\[(,])["\s]+|"', "", text[1:-1]).split(",")
    bounds = [
        canonical(field.base_field, bound.strip()) if bound.strip() not in ("", "None") else None
        for bound in (low, high)
    ]
    return f"{text[0]}{bounds[0]}, {bounds[1]}{text[-1]}"


def _decimal(field: Any, value: Any) -> str:
    return str(Decimal(str(value)).normalize())


_CANONICAL: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "JSONField": lambda _, value: json.dumps(_plain(value), sort_keys=True),
    "DecimalField": _decimal,
    "FloatField": lambda _, value: float(value),
    "BooleanField": lambda _, value: value,
    "DateTimeField": lambda _, value: _moment(value),
    "SecondsField": lambda _, value: _moment(value),
    "DateField": lambda _, value: str(value),
    "TimeField": lambda _, value: datetime.time.fromisoformat(str(value)).isoformat(),
    "DurationField": lambda _, value: (
        value if isinstance(value, datetime.timedelta) else parse_duration(value)
    ),
    "UUIDField": lambda _, value: str(uuid.UUID(str(value))),
    "BinaryField": lambda _, value: _bytes(value),
    "ZippedField": lambda _, value: _zipped(value),
    "MoneyField": lambda _, value: _money(value),
    "FileField": lambda _, value: value if isinstance(value, str) else value.name,
    "PointField": lambda _, value: _point(value),
    "SealingField": lambda _, value: value.rpartition(":")[2][::-1] if ":" in value else value,
    "ListField": lambda _, value: value.split(",") if isinstance(value, str) else [str(v) for v in value],
    "EnumField": lambda _, value: (
        value.value if isinstance(value, Mood) else Mood[value].value if value in Mood.__members__ else value
    ),
    "ArrayField": lambda field, value: [canonical(field.base_field, item) for item in value],
    "IntegerRangeField": _range,
    "DecimalRangeField": _range,
    "DateTimeRangeField": _range,
    "DateRangeField": _range,
}
