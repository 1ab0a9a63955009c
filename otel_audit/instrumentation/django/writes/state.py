"""Write capture: what the wrappers around Django's compilers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_audit.audit_record import Database
from otel_audit.capture.databases import dbapi
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.plan import Verb
from otel_audit.capture.transactions.state import CaptureState
from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.django.connection import DjangoConnection, Transactions
from otel_audit.instrumentation.django.loaded import ThreadState
from otel_audit.instrumentation.django.plan import NOT_AUDITED, ModelPlan, ModelPolicy
from otel_audit.instrumentation.django.writes.raw_tables import ModelTables
from otel_audit.instrumentation.django.writes.sql.selects import take_write_lock
from otel_audit.instrumentation.django.writes.sql.tables import Tables
from otel_audit.interruptions import faults
from otel_audit.redaction.names import NameRules

if TYPE_CHECKING:
    from otel_audit.pipeline.provider import AuditPipeline

_PLANS: Final = "_otel_audit_plans"
"""Where a :class:`_Plans` stands in ``model._meta``: plans go with the class they are of."""


class _Plans:
    """The plans of one model by kind of database, made by one capture."""

    __slots__ = ("by_vendor", "meta", "owner")

    def __init__(self, owner: object, meta: Any) -> None:
        self.owner = owner
        self.meta = meta
        self.by_vendor: dict[str, ModelPlan] = {}


class Capture(CaptureState):
    """The state of write capture in this process, and the plans of the models it has met."""

    policy: ModelPolicy

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None = None) -> None:
        super().__init__("Django", config, config.django, pipeline)
        self.policy = ModelPolicy(config.django, NameRules.of(config.redaction), config.policy)
        self.thread = ThreadState()
        self.tables = Tables()
        self.raw = ModelTables(self.policy.of)
        self.transactions = Transactions(self, self.thread)
        self.generation = object()

    def plan(self, model: Any, vendor: str = "") -> ModelPlan:
        """Return the plan of ``model`` on a database of ``vendor``; a proxy has that of its concrete model.

        A model that cannot be understood counts as not audited; the fault says so.
        """
        meta = model._meta
        plans: _Plans | None = meta.__dict__.get(_PLANS)
        # A copied ``_meta`` carries the plans of the model it was copied from.
        if plans is None or plans.owner is not self.generation or plans.meta is not meta:
            plans = meta.__dict__[_PLANS] = _Plans(self.generation, meta)
        found = plans.by_vendor.get(vendor)
        if found is None:
            concrete = model._meta.concrete_model
            try:
                policy = self.policy
                found = ModelPlan(concrete, policy.of(concrete), policy.keys(concrete), vendor)
            except faults() as error:
                self.failures.report("plan", error, what=model.__name__, lost=1)
                return NOT_AUDITED
            plans.by_vendor[vendor] = found
        return found

    def abilities(self, connection: Any, plan: ModelPlan, verb: Verb, column: str = "") -> Abilities:
        """Return what the table of ``plan`` lets us ask around ``verb``.

        ``column`` is one the statement writes; a DELETE has none.
        """
        known = self.tables.known(connection.alias, plan, verb)
        if known is not None:
            return known
        connection.ensure_connection()
        if dbapi.dialect(connection.vendor).one_writer and not connection.get_autocommit():
            # Asking reads the schema: in a transaction that has not written yet this would be the snapshot
            # that cannot be upgraded afterwards.
            state = self.transactions.state(connection)
            if not state.locked:
                state.locked = take_write_lock(connection, plan.table, verb, column, visibly=False)
        return self.tables.ask(connection, plan, verb)

    def policy_changed(self) -> None:
        """Decide about every model anew, when it is next used."""
        self.policy.forget()
        self.generation = object()

    def schema_changed(self) -> None:
        """Forget what tables could do."""
        self.tables.forget()

    def connection(self, connection: Any) -> DjangoConnection:
        """Return ours of one of Django's connections, which knows the system it is."""
        return self.transactions.connection(connection)

    def database(self, connection: Any) -> Database:
        """Say in records where queries through one of Django's connections go."""
        found = self.connection(connection)
        return Database(found.system, found.namespace, "", "", "", *found.address)
