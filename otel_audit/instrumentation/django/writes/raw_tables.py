"""Which model's table a statement of the application's own text means: several models may have one of a name.

What is said of one database is no matter of another's: a router knows which models a database has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from otel_audit.capture.plan import TablePlan
from otel_audit.capture.sql.raw_sql import Planned, RawTables
from otel_audit.capture.sql.sql_text import folded
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from django.db.models import Model

    from otel_audit.capture.table_policy import TableSettings


class ModelTables(RawTables):
    """The tables of audited models.

    Args:
        settings: says of a model how it is audited.
    """

    def __init__(self, settings: Callable[[type[Model]], TableSettings]) -> None:
        super().__init__()
        self._settings = settings
        self._shared: dict[str, list[type[Model]]] | None = None

    def models_changed(self) -> None:
        """Look anew which models have tables of one name."""
        self._shared = None

    def here(self, alias: str) -> Planned:
        """Return them as the database of a connection has them."""
        return _Here(self, alias)

    def meant(self, name: str, alias: str) -> TablePlan:
        """Return the plan of a table, by what :meth:`read` calls it, in one database."""
        known = self.plan(name)
        try:
            models = _of_database(self._sharing(name), alias)
        except faults():  # a router of the application's
            return known
        plans = [self._plan(model) for model in models]
        if any(plan.label == known.label for plan in plans):
            return known
        return next((plan for plan in plans if plan.audited), plans[0]) if plans else known

    def _plan(self, model: type[Model]) -> TablePlan:
        meta = model._meta
        return TablePlan(meta.label, meta.db_table, (), (), self._settings(model))

    def _sharing(self, name: str) -> list[type[Model]]:
        """Return the models whose table has this name, if they are several."""
        from django.apps import apps

        shared = self._shared
        if shared is None:
            by_table: defaultdict[str, list[type[Model]]] = defaultdict(list)
            for models in list(apps.all_models.values()):
                for model in list(models.values()):
                    if not model._meta.proxy:
                        by_table[folded(model._meta.db_table)].append(model)
            shared = self._shared = {table: some for table, some in by_table.items() if len(some) > 1}
        return shared.get(name, [])


class _Here:
    def __init__(self, tables: ModelTables, alias: str) -> None:
        self._tables = tables
        self._alias = alias

    def plan(self, name: str, schema: str = "") -> TablePlan:
        """Return the plan of a table, by what a statement calls it."""
        return self._tables.meant(name, self._alias)


def _of_database(models: list[type[Model]], alias: str) -> list[type[Model]]:
    """Return those of models that are written to a database, or that it may have."""
    from django.db import router

    return [model for model in models if router.db_for_write(model) == alias] or [
        model for model in models if router.allow_migrate_model(alias, model)
    ]
