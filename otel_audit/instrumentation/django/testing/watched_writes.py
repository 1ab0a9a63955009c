"""For tests of applications: what reached the database, seen at the cursor, beside what was captured."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final

from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.django.plan import ModelPolicy
from otel_audit.named_tuples import NamedTuple

_WRITE: Final = re.compile(
    r"\b(?:INSERT\s+(?:OR\s+\w+\s+|IGNORE\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+ONLY)?|DELETE\s+FROM(?:\s+ONLY)?)"
    r"\s+([\w.\"`\[\]]+)",
    re.IGNORECASE,
)
_COMPILERS: Final = "django.db.models.sql.compiler"


class Written(NamedTuple):
    """A statement that wrote rows of a model's table.

    ``captured``: it came from the ORM, and the configuration names the model.
    """

    model: str
    statement: str
    captured: bool

    def __str__(self) -> str:
        return f"{self.model}: {self.statement[:200]}"


@contextmanager
def watch(config: AuditConfig) -> Iterator[list[Written]]:
    """Note the writes of this thread's connections, while this lasts."""
    from django.apps import apps
    from django.db import connections

    policy = ModelPolicy(config.django, rules=config.policy)
    models = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    written: list[Written] = []

    def note(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        text = str(sql)
        # -1: not known; SQLite knows it only when what RETURNING gives has been fetched.
        if context["cursor"].rowcount or "RETURNING" in text.upper():
            for found in _WRITE.finditer(text):
                table = found[1].rpartition(".")[2].strip('"`[]')
                model = models.get(table)
                if model is not None:
                    audited = policy.of(model).audited
                    written.append(Written(model._meta.label, text, audited and _is_from_the_orm()))
        return result

    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(note))
        yield written


def _is_from_the_orm() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == _COMPILERS:
            return True
        frame = frame.f_back
    return False
