"""Statements an application wrote itself: which tables they write to, and their text without values. Pure.

Nobody compiled these statements, so their text is all there is. A table counts as written where the statement
names it as its target; sqlglot reads that (the extra ``sql``), and where it is missing, cannot parse the text
or the text is long, the words before the name decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

from otel_audit.capture.plan import Verb
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.redaction.lazy import pattern

MAX_ENTRIES: Final = 1024
"""Statements remembered."""
MAX_PARSED: Final = 16 * 1024
"""Characters of a statement; a longer one is read by its names only and not remembered."""
MAX_SHOWN: Final = 4 * 1024
"""Characters of the text kept for a record."""

_DIALECTS: Final = {
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "oracle": "oracle",
    "microsoft": "tsql",
    "mssql": "tsql",
}
_ESCAPING: Final = frozenset({"mysql", "mariadb"})
"""Here a backslash escapes in every text literal, double quotes hold texts, and # begins a comment."""


class Write(NamedTuple):
    """What a statement does to one table.

    ``table`` is one of those asked for, ``schema`` what the statement names before it (of MySQL's, a
    database); empty where it names nothing, or that cannot be told.
    """

    verb: Verb
    table: str
    schema: str = ""


class SqlText(NamedTuple):
    """A statement that writes to tables asked for.

    ``text`` has neither literals nor comments, and is cut at :data:`MAX_SHOWN`; ``cut`` says so. ``counts``:
    the row count of the driver is that of the only write.
    """

    writes: tuple[Write, ...]
    text: str
    cut: bool
    counts: bool


_TO_WORDS: Final = {
    code: chr(code).lower() if chr(code).isalnum() or chr(code) in "_$" else " " for code in range(128)
}
"""Leaves the words of a text, in lower case; several times as fast as a regular expression."""
_NAME: Final = r"(?:\"(?:[^\"]|\"\")*+\"|`[^`]*+`|\[[^\]]*+\]|[^\W\d][\w$]*+)"
_LITERALS: Final = r"""
    (?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$)
  | (?P<escaped>[eE]'(?:[^'\\]|''|\\[\s\S])*+(?:'|\Z))
  | (?P<text>(?:[nNbBxX]|[uU]&|_\w+[ ]?)?'(?:[^'{stop}]|''{escape})*+(?:'|\Z))
"""
_PARTS: Final = (
    r"""
    (?P<space>\s++|--{dashes}[^\n]*+{hash})
  | (?P<comment>/\*{executed})
  |"""
    + _LITERALS
    + r"""
  | (?P<quoted>"(?:[^"{stop}]|""{escape})*+(?:"|\Z)|`[^`]*+(?:`|\Z)|\[[A-Za-z_][\w ]*+\])
  | (?P<holder>%\(\w++\)s|%s|\?|\$\d++|(?<![:\w]):[A-Za-z_]\w*+|@\w++)
  | (?P<number>\d[\w.]*+(?:(?<=[eE])[+-]\d++)?+)
  | (?P<word>[^\W\d][\w$]*+)
  | (?P<sign>::|[\s\S])
    """
)
_MYSQL_PARTS = pattern(
    _PARTS.replace("{stop}", r"\\")
    .replace("{escape}", r"|\\[\s\S]")
    .replace("{dashes}", r"(?=\s|\Z)")
    .replace("{hash}", r"|\#[^\n]*+")
    .replace("{executed}", r"(?!!)"),
    re.VERBOSE,
)
_STANDARD_PARTS = pattern(
    re.sub(r"\{\w+\}", "", _PARTS),
    re.VERBOSE,
)
_EXECUTED_COMMENT = pattern(r"/\*!\d*+([\s\S]*?)\*/")
_COMMENT_EDGE = pattern(r"/\*|\*/")
_COMPARING: Final = frozenset({"=", "<", ">", "(", ",", "|", "LIKE", "ILIKE", "VALUES", "IN"})

_SKIPPED: Final = pattern(r"(?:\s++|--[^\n]*+|/\*[\s\S]*?\*/)*+")
_FIRST: Final = pattern(r"[\s(]*(\w*)")
_PARSED_FIRST: Final = frozenset({"INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "TRUNCATE"})
_NAMED_FIRST: Final = frozenset({"REPLACE", "COPY", "LOAD"})
_RUNNING: Final = frozenset({"EXPLAIN", "ANALYZE", "DESCRIBE", "DESC"})
_BLOCKS: Final = frozenset({"DO"})
_VERBS: Final[dict[str, Verb]] = {
    "INSERT": "create",
    "REPLACE": "create",
    "COPY": "create",
    "LOAD": "create",
    "MERGE": "update",
    "UPDATE": "update",
    "DELETE": "delete",
    "TRUNCATE": "delete",
}
_WRITES = pattern(
    r"(?P<skip>--[^\n]*+|/\*(?!!)[\s\S]*?(?:\*/|\Z)|'(?:[^'\\]|''|\\[\s\S])*+(?:'|\Z))"
    r"|(?P<stop>;)"
    r"|(?<![\w$.])(?P<verb>INSERT|REPLACE|MERGE|UPDATE|DELETE|TRUNCATE|COPY|LOAD)(?![\w$.(])"
    r"(?P<between>(?:\s+(?:INTO|FROM|ONLY|TABLE|IGNORE|QUICK|LOW_PRIORITY|HIGH_PRIORITY|DELAYED|CONCURRENT"
    r"|OR\s+(?:REPLACE|IGNORE|ABORT|FAIL|ROLLBACK)|DATA|LOCAL|INFILE|\?|'[^']*+'))*+)"
    rf"\s+(?P<name>{_NAME}(?:\s*\.\s*{_NAME})*+)",
    re.IGNORECASE,
)
_NOT_A_WRITE: Final = pattern(r"\b(?:FOR|KEY|ON|AFTER|BEFORE|OF|GRANT|REVOKE)\s*\Z", re.IGNORECASE)
_ENDS_TARGETS = pattern(
    r"\b(?:SET|WHERE|USING|VALUES|SELECT|RETURNING|ORDER|LIMIT|INSERT|UPDATE|DELETE|MERGE|TO)\b|;",
    re.IGNORECASE,
)
_NAMED = pattern(_NAME)
_QUOTES: Final = frozenset('"`[')
_HOLDERS: Final = pattern(r"%\(\w+\)s|%s|@\w+|\$\d+|(?<![:\w]):[A-Za-z_]\w*")
_NEVER_COUNTS: Final = pattern(r"\s*(?:TRUNCATE|REPLACE|EXPLAIN|DO|DESC|ANALYZE)", re.IGNORECASE)


def folded(name: str) -> str:
    """Return a table's name as statements are searched for it: the last part, unquoted, in lower case."""
    return _bare(name.rpartition(".")[2]).lower()


def folded_parts(name: str) -> tuple[str, str]:
    """Return a table's folded name, and the schema before it; empty if there is none."""
    *before, last = _NAMED.findall(name) or [name]
    return folded(last), _schema(_bare(before[-1]), quoted=before[-1][0] in _QUOTES) if before else ""


def schema_of(table: Any) -> str:
    """Return the schema that a table of sqlglot's is called with; empty if there is none."""
    schema = table.args.get("db")
    return "" if schema is None else _schema(schema.name, quoted=bool(schema.args.get("quoted")))


def _schema(name: str, *, quoted: bool) -> str:
    """Return a schema as most databases call it: in lower case, unless it is quoted."""
    return name if quoted else name.lower()


def _bare(name: str) -> str:
    return name.strip().strip('"`[]')


class SqlTexts:
    """Reads statements of one process, and remembers what it has read of the last ones.

    What is remembered has no literal in it: a statement is known by the hash of its text.

    Args:
        tables: the folded names of the tables asked for; :meth:`forget` after changing them.
    """

    def __init__(self, tables: AbstractSet[str]) -> None:
        self._names = tables
        self._odd: tuple[str, ...] | None = None
        # By system: what is a literal on one is a name on another.
        self._known: dict[str, dict[int, SqlText | None]] = {}
        self._read: dict[tuple[str, str], SqlText | None] = {}

    def forget(self) -> None:
        """Forget what was read: the tables are others now."""
        self._odd = None
        self._known.clear()
        self._read.clear()

    def read(self, sql: str, system: str) -> SqlText | None:
        """Say what a statement writes to the tables asked for; None if nothing.

        Args:
            sql: its text.
            system: ``db.system.name`` of the database that runs it.
        """
        if len(sql) > MAX_PARSED:
            return self._read_long(sql, system)
        key = hash(sql)
        try:
            return self._known[system][key]
        except KeyError:
            pass
        found = self._look(sql, system)
        known = self._known.setdefault(system, {})
        if len(known) >= MAX_ENTRIES:
            known.clear()
        known[key] = found
        return found

    def _look(self, sql: str, system: str) -> SqlText | None:
        if not self._names_a_table(sql):
            return None
        text, whole, block = without_values(sql, system)
        if not whole or block:  # what decides is not all in the text
            return self._writes(text, "" if whole else sql, block, system)
        if (system, text) not in self._read:
            found = self._writes(text, "", "", system)
            if len(self._read) >= MAX_ENTRIES:
                self._read.clear()
            self._read[system, text] = found
            return found
        return self._read.get((system, text))

    def _names_a_table(self, sql: str) -> bool:
        if self._odd is None:  # names that are no single word cannot be looked up word by word
            self._odd = tuple(name for name in self._names if name.translate(_TO_WORDS).split() != [name])
        if not self._names.isdisjoint(words_of(sql)):
            return True
        return bool(self._odd) and any(odd in sql.lower() for odd in self._odd)

    def _read_long(self, sql: str, system: str) -> SqlText | None:
        if not self._may_write(sql):
            return None
        block = _first_word(sql, 0) in _BLOCKS
        writes = tuple(dict.fromkeys(self._by_names(sql, inside=block)))
        if not writes:
            return None
        text, _, _ = without_values(sql[:MAX_SHOWN], system)
        counts = len(writes) == 1 and _counts(sql, system) and ";" not in sql.rstrip("; \n\t")
        return SqlText(writes, text, True, counts)

    def _may_write(self, sql: str) -> bool:
        """Look at a long text behind its verbs only, literals and comments included: most name no table."""
        upper = sql.upper()
        if len(upper) != len(sql):
            return True  # places in one are not those in the other
        for verb in _VERBS:
            place = upper.find(verb)
            while place >= 0:
                match = _WRITES.match(sql, place)
                if match is not None and any(name in self._names for name, _ in _targets(verb, match, sql)):
                    return True
                place = upper.find(verb, place + len(verb))
        return False

    def _writes(self, text: str, doubtful: str, block: str, system: str) -> SqlText | None:
        pieces = [piece for piece in text.split(";") if piece.strip()]
        found = [self._piece(piece, block, system) for piece in pieces]
        writes = dict.fromkeys(write for some, _ in found for write in some)
        if doubtful:
            writes |= dict.fromkeys(self._by_names(doubtful))
        if not writes:
            return None
        counts = len(writes) == len(found) == 1 and found[0][1] and not doubtful and _counts(text, system)
        return SqlText(tuple(writes), text[:MAX_SHOWN], bool(doubtful) or len(text) > MAX_SHOWN, counts)

    def _piece(self, piece: str, block: str, system: str) -> tuple[list[Write], bool]:
        """Return the writes of one statement, and whether its row count is that of the first."""
        first = _first_word(piece, 0)
        if first in _BLOCKS:
            return list(self._by_names(block, inside=True)), False
        if first in _PARSED_FIRST:
            try:
                return self._parsed(piece, system)
            except faults():  # sqlglot is not installed, or cannot parse it: its names are left
                return list(self._by_names(piece)), first != "WITH"
        if first in _NAMED_FIRST or (first in _RUNNING and "ANALYZE" in piece.upper()):
            return list(self._by_names(piece)), True
        return [], False

    # --- by names ------------------------------------------------------------------------------

    def _by_names(self, text: str, *, inside: bool = False) -> Iterator[Write]:
        runs = inside or _runs(text, 0)
        for match in _WRITES.finditer(text):
            if match.lastgroup == "stop":
                runs = inside or _runs(text, match.end())
            verb = match["verb"]
            if verb is None or not runs or match["name"].upper() == "SET":
                continue  # … DO UPDATE SET
            if _NOT_A_WRITE.search(text[max(0, match.start() - 12) : match.start()]):
                continue
            verb = verb.upper()
            if verb == "COPY" and not re.search(r"\bFROM\b", text[match.end() :][:MAX_SHOWN], re.IGNORECASE):
                continue  # COPY … TO reads
            for name, schema in _targets(verb, match, text):
                if name in self._names:
                    yield Write(_VERBS[verb], name, schema)

    # --- by sqlglot ----------------------------------------------------------------------------

    def _parsed(self, piece: str, system: str) -> tuple[list[Write], bool]:
        from sqlglot import exp

        tree = parsed(piece, system)
        kinds = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.TruncateTable)
        writes: list[Write] = []
        for node in tree.find_all(*kinds):
            verb = _VERBS["TRUNCATE" if isinstance(node, exp.TruncateTable) else node.key.upper()]
            named = [(table.name.lower(), schema_of(table)) for table in _written(node)]
            writes += [Write(verb, name, schema) for name, schema in named if name in self._names]
        root = isinstance(tree, kinds) and any(table.name.lower() in self._names for table in _written(tree))
        return writes, root


def parsed(text: str, system: str) -> Any:
    """Return one statement without values as sqlglot has it.

    Raises:
        ImportError: it is not installed.
        ValueError: it does not know this statement, or another error of its own.
    """
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(_HOLDERS.sub("?", text), dialect=_DIALECTS.get(system))
    if isinstance(tree, exp.Command):
        raise ValueError("sqlglot does not know this statement")
    return tree


def words_of(sql: str) -> list[str]:
    """Return the words of a text, in lower case, with those of its literals."""
    words = sql if sql.isascii() else sql.lower()
    return words.translate(_TO_WORDS).split()


def _counts(text: str, system: str) -> bool:
    """Whether the driver's row count is that of rows written: MySQL counts a row an upsert updates twice."""
    if _NEVER_COUNTS.match(text):
        return False
    return system not in _ESCAPING or "DUPLICATE" not in text[-MAX_PARSED:].upper()


def _first_word(text: str, start: int) -> str:
    match = _FIRST.match(text, start)
    return match[1].upper() if match else ""


def _runs(text: str, start: int) -> bool:
    """Whether a statement that begins here may write: not DDL, which names tables as well."""
    match = _SKIPPED.match(text, start)
    first = _first_word(text, match.end() if match else start)
    return (
        first in _PARSED_FIRST
        or first in _NAMED_FIRST
        or (
            first in _RUNNING
            and re.search(r"\bANALYZE\b", text[start : start + 200], re.IGNORECASE) is not None
        )
    )


def _targets(verb: str, match: re.Match[str], text: str) -> Iterator[tuple[str, str]]:
    """Name the tables behind a verb: the next name, of UPDATE and DELETE all of its list of tables."""
    yield folded_parts(match["name"])
    if verb not in ("UPDATE", "DELETE", "TRUNCATE"):
        return
    end = _ENDS_TARGETS.search(text, match.end(), match.end() + MAX_SHOWN)
    for found in _NAMED.finditer(text, match.end(), end.start() if end else match.end() + MAX_SHOWN):
        yield folded(found[0]), ""


def _written(node: Any) -> Iterator[Any]:
    """Return the tables a statement of sqlglot's writes to."""
    from sqlglot import exp

    if isinstance(node, exp.TruncateTable):
        yield from node.expressions
        return
    target = node.this.this if isinstance(node.this, exp.Schema) else node.this
    if not isinstance(target, exp.Table):
        return  # WHEN MATCHED THEN UPDATE: its table is that of the MERGE
    joined = [join.this for join in target.args.get("joins") or () if isinstance(join.this, exp.Table)]
    named: list[str] | None = None
    if isinstance(node, exp.Delete):
        named = [table.name.lower() for table in node.args.get("tables") or ()] or None
    elif isinstance(node, exp.Update) and joined:
        columns = [each.this for each in node.expressions if isinstance(each, exp.EQ)]
        named = [column.table.lower() for column in columns if isinstance(column, exp.Column)]
    for table in (target, *joined):
        # A column without its table may be of any of them.
        if not named or "" in named or table.alias_or_name.lower() in named or table.name.lower() in named:
            yield table


# --- text without values ---------------------------------------------------------------------------


def without_values(sql: str, system: str) -> tuple[str, bool, str]:
    """Return a statement without literals and comments, whether it is whole, and the body of its block.

    Literals are ``?``, many rows of ``VALUES`` are one. The rest is left out where it cannot be told what
    is a literal.
    """
    escaping = system in _ESCAPING
    if escaping and "/*!" in sql:
        sql = _EXECUTED_COMMENT.sub(r" \1 ", sql)
    match_part = (_MYSQL_PARTS if escaping else _STANDARD_PARTS).match
    parts: list[str] = []
    block = ""
    position, before, values = 0, "", False
    while position < len(sql):
        match = match_part(sql, position)
        assert match is not None, "the last alternative matches anything"
        kind, text = match.lastgroup, match[0]
        position = match.end()
        if kind == "tag":
            kind = "dollar"
        if kind == "space" or kind == "comment":
            if kind == "comment":
                position = _comment_end(sql, position, nested=system == "postgresql")
            if parts and parts[-1] != " ":
                parts.append(" ")
            continue
        if kind == "dollar":
            end = sql.find(text, position)
            block = block or (sql[position:end] if end >= 0 else sql[position:])
            position = end + len(text) if end >= 0 else len(sql)
        if kind == "text" and not escaping and text.endswith("\\'"):
            # Where backslashes escape after all, the literal goes on.
            parts.append("?")
            return _joined(parts), False, block
        if (
            kind == "quoted"
            and text[0] == '"'
            and (
                escaping
                or (system == "sqlite" and before in _COMPARING and (values or before not in ("(", ",")))
            )
        ):
            kind = "text"
        if kind in ("text", "escaped", "dollar", "number"):
            text = "?"
        before = text.upper()
        values = values or before == "VALUES"
        parts.append(text)
    return _joined(parts), True, block


def _comment_end(sql: str, position: int, *, nested: bool) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        position = edge.end()
        if edge[0] == "*/":
            depth -= 1
        elif nested:
            depth += 1
    return position


_ROW: Final = r"\(\s?(?:\?|%s|NULL|DEFAULT|TRUE|FALSE)(?:\s?,\s?(?:\?|%s|NULL|DEFAULT|TRUE|FALSE))*+\s?\)"
_ROWS = pattern(rf"({_ROW})(?:\s?,\s?{_ROW})++", re.IGNORECASE)


def _joined(parts: list[str]) -> str:
    text = "".join(parts).strip()
    return _ROWS.sub(r"\1", text)
