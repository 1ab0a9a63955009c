"""One model: its fields, its key, and how a row of it is read, looked up once."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_audit.capture.plan import TablePlan
from otel_audit.capture.table_policy import KeyStrategies, TableSettings
from otel_audit.instrumentation.django.plan.field_plan import ModelFieldPlan
from otel_audit.interruptions import faults
from otel_audit.values import freeze_json

if TYPE_CHECKING:
    from django.db.models import Model

_parts_of: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _ends(model: type[Model]) -> dict[str, str]:
    """Return the foreign keys of a model behind many-to-many fields, and the labels of what they name.

    A key to another field than the primary one names no id.
    """
    through: Any = model._meta
    ends: dict[str, str] = {}
    try:
        keys = {field.name: field for field in through.local_concrete_fields if field.many_to_one}
        for related in [field.remote_field.model for field in keys.values()]:
            for field in related._meta.many_to_many:
                if field.remote_field.through is not model:
                    continue
                for name in (field.m2m_field_name(), field.m2m_reverse_field_name()):
                    if name in keys and keys[name].target_field.primary_key:
                        ends[name] = keys[name].remote_field.model._meta.concrete_model._meta.label
    except faults():  # a relation to a model that is not there (yet)
        return {}
    return ends


class ModelPlan(TablePlan):
    """What capture needs to know of one concrete model on one kind of database, looked up once.

    ``fields`` are the columns of the model's own table, ``others`` those not of its key, ``row`` the names an
    instance of it is loaded with (parents' included). ``documents`` takes the values that may change in place
    out of a whole row, where all of them are JSON; None if there are none, or others. ``custom`` are the
    names of fields whose class outside Django decides what is stored, ``noted`` those and the ones it makes
    while saving. ``found`` is what a thread has found out about its table.
    """

    __slots__ = (
        "__weakref__",
        "_documents",
        "by_attname",
        "custom",
        "documents",
        "found",
        "generated",
        "model",
        "mutable",
        "noted",
        "others",
        "row",
    )

    def __init__(
        self, model: type[Model], settings: TableSettings, secret: KeyStrategies, vendor: str = ""
    ) -> None:
        meta: Any = model._meta
        fields = [
            ModelFieldPlan(field, vendor, encrypted=settings.encrypts(field.name))
            for field in meta.local_concrete_fields
        ]
        self.by_attname = {plan.attname: plan for plan in fields}
        keys = [self.by_attname[field.attname] for field in meta.pk_fields]
        super().__init__(meta.label, meta.db_table, fields, keys, settings, secret, _ends(model))
        self.model = model
        self.row: list[str] = [field.attname for field in meta.concrete_fields]
        self.custom = frozenset(plan.attname for plan in fields if plan.custom)
        self.noted = frozenset(plan.attname for plan in fields if plan.noted)
        self.found = threading.local()
        self.others = [plan for plan in fields if plan not in keys]
        self.generated = [plan for plan in fields if plan.field.generated]
        columns = [
            self.by_attname.get(field.attname) or ModelFieldPlan(field, vendor)
            for field in meta.concrete_fields
        ]
        for plan in fields:
            plan.strategies = self.strategies
        self.mutable = {
            plan.attname: (position, plan) for position, plan in enumerate(columns) if plan.mutable
        }
        self._documents = [plan for _, plan in self.mutable.values()]
        self.documents: Callable[[Sequence[Any]], Any] | None = None
        if self._documents and all(plan.document for plan in self._documents):
            self.documents = operator.itemgetter(*[position for position, _ in self.mutable.values()])

    def by_name(self, row: Sequence[Any], documents: bytes) -> dict[str, Any]:
        """Return a loaded row by attname, frozen.

        ``documents`` is what :attr:`documents` took out of it, written as JSON when it was loaded.
        """
        values = dict(zip(self.row, row, strict=True))
        if len(self._documents) == 1:
            [plan] = self._documents
            values[plan.attname] = _frozen(plan, documents)
        else:
            for plan, document in zip(self._documents, _parts_of(documents), strict=True):
                values[plan.attname] = _frozen(plan, bytes(document))
        return values

    def keys_in(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the keys of many rows, frozen: of one row there is one, and it can be remembered."""
        if len(self.keys) == 1:
            if not self.keys[0].mutable:
                return [row[0] for row in rows]
            return [self.keys[0].frozen(row[0]) for row in rows]
        return [
            tuple([plan.frozen(part) for plan, part in zip(self.keys, row, strict=False)]) for row in rows
        ]


def _frozen(plan: ModelFieldPlan, document: bytes) -> Any:
    return freeze_json(document) if plan.plain else plan.frozen(msgspec.json.decode(document))


NOT_AUDITED: Final = ModelPlan.__new__(ModelPlan)
"""Stands for a model no plan could be made of."""
NOT_AUDITED.audited = False
