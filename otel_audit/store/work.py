"""What the store knows of a request, a call, a command or a task beside what every record has.

Its status, duration and state are among what its record carries as one JSON text. The engine takes them from
there into a column of their own as a row is written, and of older rows as they are read: so lists and counts
need not read headers, bodies and output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel_audit.semconv import (
    DURATION,
    EXIT_CODE,
    METHOD,
    STATUS_CODE,
    TASK_QUEUE,
    TASK_STATE,
    URL,
    WORK_EVENTS,
)
from otel_audit.store.columns import TEXT_COLUMNS, attribute_names

FACTS: Final = {
    "status": (STATUS_CODE, "UInt16"),
    "duration": (DURATION, "Float64"),
    "exit_code": (EXIT_CODE, "Int32"),
    "state": (TASK_STATE, "LowCardinality(String)"),
    "queue": (TASK_QUEUE, "LowCardinality(String)"),
    "method": (METHOD, "LowCardinality(String)"),
    "url": (URL, "String"),
}
"""Parts of the column ``work``: the name of each among the attributes of its record, and its type."""

KINDS: Final = WORK_EVENTS
KIND_OF: Final = {name: kind for kind, names in KINDS.items() for name in names}
"""The kind of work that an event is about."""
REQUEST_LOGS: Final = ("activity", "pageview")
"""The logs that have the records of requests."""


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a record says of a piece of work; what it does not say has its default.

    ``duration`` is in seconds. ``method`` and ``url`` are those of a request to another service, ``queue``
    and ``state`` those of a task.
    """

    status: int = 0
    duration: float = 0.0
    exit_code: int = 0
    state: str = ""
    queue: str = ""
    method: str = ""
    url: str = ""


NO_WORK: Final = Work()


def work_of(columns: Mapping[str, Any]) -> Work:
    """Decode the column ``work`` of a row."""
    return msgspec.convert(columns, Work) if any(columns.values()) else NO_WORK


TYPE: Final = f"Tuple({', '.join(f'{name} {kind}' for name, (_, kind) in FACTS.items())})"


def items() -> str:
    """Return the SQL of the texts that a request is counted by, one for each thing that is asked."""
    columns = {
        "ip": "source_ip",
        "path": "path",
        "view": "view",
        "slug": "slug",
        "method": "method",
        "status": "toString(work.status)",
        "month": "toString(toYYYYMM(timestamp))",
    }
    listed = ["'request'", *(f"concat('{name}=', {column})" for name, column in columns.items())]
    listed += [f"concat('user=', {column})" for column in ("actor_id", "actor_name")]
    listed.append("concat('status=', toString(intDiv(work.status, 100)), 'xx')")
    [name] = (f"'{each}'" for each in KINDS["request"])
    # Not IN: the engine does not know an expression with a set again, and the index would never be asked.
    return f"if(event_name = {name} AND ordinal = 0, [{', '.join(listed)}], [])"


def attribute_of(column: str) -> str:
    """Return the SQL of a column of a row that was written before there was this column."""
    return f"attributes['{attribute_names(TEXT_COLUMNS[column])[0]}']"


def extracted() -> str:
    """Return the SQL of the column ``work`` of a row."""
    named = ", ".join(f"`{name}` {kind}" for name, kind in FACTS.values())
    told = f"JSONExtract(attributes['{attribute_names('attributes')[0]}'], 'Tuple({named})')"
    # Between two tuples with names the engine looks for the same names, and there is hardly one.
    return f"CAST({told}, 'Tuple({', '.join(kind for _, kind in FACTS.values())})')"
