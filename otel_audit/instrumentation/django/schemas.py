"""In which schema of a PostgreSQL database a connection writes, as far as that is known without asking.

Projects with one schema per tenant write rows of the same table and key into each of them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from otel_audit.capture.freshness import Mark
from otel_audit.redaction.lazy import pattern

SETS: Final = frozenset({"SET ", "set ", "Set ", "RESE", "rese", "Rese"})
"""How the statements begin that may set the search path."""
CALLS: Final = frozenset({"se", "SE", "pg", "PG"})
"""What stands behind ``SELECT`` in a query that may set it: ``set_config``, ``pg_catalog.set_config``."""
_WORDS: Final = ("search_path", "set_config", "reset", "discard")
_HEAD: Final = 1024
_SET: Final = pattern(
    r"\s*SET\s+(SESSION\s+|LOCAL\s+)?search_path(?:\s*=\s*|\s+TO\s+)(.+?)[\s;]*$", re.IGNORECASE | re.DOTALL
)
_RESET: Final = pattern(r"\s*(?:RESET\s+(?:search_path|ALL)|DISCARD\s+ALL)[\s;]*$", re.IGNORECASE)
_OPTION: Final = pattern(r"-c\s*search_path=((?:\\\s|\S)+)")
_ARGUMENT: Final = r"""(?:'(?:[^']|'')*'|%s|%\(\w+\)s|\w+)(?:\s*::\s*\w+)?"""
_CONFIG: Final = pattern(
    rf"\bset_config\s*\(\s*({_ARGUMENT})\s*,\s*({_ARGUMENT})\s*,\s*({_ARGUMENT})\s*\)", re.IGNORECASE
)
_PLACEHOLDER: Final = pattern(r"%s|%\((\w+)\)s|%%")
_COMMENTS: Final = pattern(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*", re.DOTALL)
_TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_NEVER: Final = float("inf")
_NAME: Final = pattern(r"""\s*(?:"((?:[^"]|"")+)"|'((?:[^']|'')+)'|([^\s,"';]+))""")


class SearchPath:
    """The first schema of a connection's search path; ``""`` where nobody said which it is.

    What a transaction sets holds from then on if it commits, and is taken back if it does not.
    """

    __slots__ = ("_default", "_open", "_saved", "_session", "_transaction")

    def __init__(self, default: str = "") -> None:
        self._default = default
        self._session = default
        self._open: list[tuple[Mark, str, bool]] = []
        self._saved: dict[str, int] = {}
        self._transaction: Mark | None = None

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

    def savepoint(self, sid: str, mark: Mark) -> None:
        """Remember what was set when a savepoint of the transaction ``mark`` was made."""
        if self._transaction is not mark:
            self.now(mark)  # what other transactions have set goes
            self._transaction = mark
            self._saved.clear()
        self._saved[sid] = len(self._open)

    def rollback_to(self, sid: str, mark: Mark) -> None:
        """Forget what was set since a savepoint."""
        if self._transaction is mark and sid in self._saved:
            del self._open[self._saved[sid] :]

    def now(self, mark: Mark) -> str:
        """Return the schema in the transaction ``mark``, which is open or yet to begin."""
        if not self._open:
            return self._session
        current: str | None = None
        waiting: list[tuple[Mark, str, bool]] = []
        for begun, schema, local in self._open:
            if begun is mark:
                waiting.append((begun, schema, local))
                current = schema
            elif 0 < begun.committed < _NEVER and not local:
                self._session = schema
        self._open = waiting
        return self._session if current is None else current


def may_set(sql: str) -> bool:
    """Say whether a statement, however it begins, may set the search path."""
    head = sql[:_HEAD].lower()
    return any(word in head for word in _WORDS)


def setting(sql: str, params: Any = None) -> tuple[str | None, bool] | None:
    """Read what sets the search path: the schema, and whether it holds for this transaction only.

    The schema is None for the default one, and empty where it cannot be told.
    """
    sql = sql[_COMMENTS.match(sql).end() :]  # type: ignore[union-attr]
    if sql[:6].lower() == "select":
        return _by_function(sql, params) if "set_config" in sql.lower() else None
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


def _by_function(sql: str, params: Any) -> tuple[str | None, bool] | None:
    """Read ``SELECT set_config('search_path', schema, is_local)``, the last of several."""
    found: tuple[str | None, bool] | None = None
    calls = 0
    for call in _CONFIG.finditer(sql):
        calls += 1
        before = sum(each[0] == "%s" for each in _PLACEHOLDER.finditer(sql[: call.start(1)]))
        values = []
        for argument in call.groups():
            value, used = _value(argument, params, before)
            before += used
            values.append(value)
        name, path, local = values
        if name is None or name.lower() == "search_path":
            unknown = name is None or path is None or local is None
            found = ("" if unknown else first(str(path))), str(local).lower() in _TRUE
    if calls < sql.lower().count("set_config"):  # one that is not understood
        return "", False
    return found


def _value(argument: str, params: Any, position: int) -> tuple[str | None, int]:
    """Return the value of an argument, None if it is not known, and how many parameters it took."""
    text = argument.partition("::")[0].strip()
    placeholder = _PLACEHOLDER.fullmatch(text)
    if placeholder is None:
        if text.startswith("'"):
            return text[1:-1].replace("''", "'"), 0
        return (text if text.lower() in ("true", "false") else None), 0
    try:
        value = params[placeholder[1]] if placeholder[1] else list(params)[position]
    except (KeyError, IndexError, TypeError):
        value = None
    return (None if value is None else str(value)), 0 if placeholder[1] else 1


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
