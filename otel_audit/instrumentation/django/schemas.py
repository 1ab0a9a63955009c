"""In which schema of a PostgreSQL database a connection writes, as far as that is known without asking.

Projects with one schema per tenant write rows of the same table and key into each of them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from otel_audit.capture.freshness import Mark

SETS: Final = frozenset({"SET ", "set ", "Set ", "RESE", "rese", "Rese"})
"""How the statements begin that may set the search path."""
_SET: Final = re.compile(
    r"\s*SET\s+(SESSION\s+|LOCAL\s+)?search_path(?:\s*=\s*|\s+TO\s+)(.+?)[\s;]*$", re.IGNORECASE | re.DOTALL
)
_RESET: Final = re.compile(r"\s*RESET\s+(search_path|ALL)[\s;]*$", re.IGNORECASE)
_OPTION: Final = re.compile(r"-c\s*search_path=((?:\\\s|\S)+)")
_NEVER: Final = float("inf")
_NAME: Final = re.compile(r"""\s*(?:"((?:[^"]|"")+)"|'((?:[^']|'')+)'|([^\s,"';]+))""")


class SearchPath:
    """The first schema of a connection's search path; ``""`` where nobody said which it is.

    What a transaction sets holds from then on if it commits, and is taken back if it does not.
    """

    __slots__ = ("_default", "_open", "_session")

    def __init__(self, default: str = "") -> None:
        self._default = default
        self._session = default
        self._open: list[tuple[Mark, str, bool]] = []

    def set(self, sql: str, params: Any, mark: Mark | None) -> None:
        """Take note of a statement that ran; ``mark`` is the open transaction, ``None`` in autocommit."""
        found = setting(sql, params)
        if found is None:
            return
        schema, local = found
        schema = self._default if schema is None else schema
        if mark is not None:
            self._open.append((mark, schema, local))
        elif not local:
            self._session = schema

    def now(self, mark: Mark) -> str:
        """Return the schema in the transaction ``mark``, which is open or yet to begin."""
        current = ""
        waiting: list[tuple[Mark, str, bool]] = []
        for begun, schema, local in self._open:
            if begun is mark:
                waiting.append((begun, schema, local))
                current = schema
            elif 0 < begun.committed < _NEVER and not local:
                self._session = schema
        self._open = waiting
        return current or self._session


def setting(sql: str, params: Any = None) -> tuple[str | None, bool] | None:
    """Read ``SET search_path``: the schema (None: the default one), and whether for this transaction only."""
    if _RESET.match(sql):
        return None, False
    found = _SET.match(sql)
    if found is None:
        return None
    value = found[2]
    if value.startswith("%s") and params:
        value = str(next(iter(params)))
    local = (found[1] or "").strip().upper() == "LOCAL"
    return (None if value.upper() == "DEFAULT" else first(value)), local


def first(path: str) -> str:
    """Return the first schema of a search path; none if that is the user's, who is not known here."""
    found = _NAME.match(path)
    if found is None:
        return ""
    quoted = found[1] or found[2]
    name = quoted.replace('""', '"') if quoted else found[3].lower()
    return "" if name.startswith("$") else name


def configured(settings: dict[str, Any]) -> str:
    """Return the schema that the options of a ``DATABASES`` entry name."""
    options = (settings.get("OPTIONS") or {}).get("options")
    found = _OPTION.search(options) if isinstance(options, str) else None
    return first(found[1].replace("\\ ", " ")) if found is not None else ""


def of_tenant(connection: Any) -> str | None:
    """Return the schema a package for tenants has chosen: django-tenants, django-pgschemas."""
    name = getattr(connection, "schema_name", None)
    if name is None:
        name = getattr(getattr(connection, "schema", None), "schema_name", None)
    return name if isinstance(name, str) and name else None
