"""Literals of sensitive columns in SQL: ``SET password = 'x'``, ``INSERT … (a, token) VALUES (1, 'x')``.

Not a parser: a tokenizer, and one pass over its tokens that keeps, for each open bracket, what a literal in
it would belong to. A literal belongs to a column when it is compared with it or assigned to it, when it is at
the column's place in a list of values, or when ``AS`` names it. It errs towards removing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from otel_audit.named_tuples import NamedTuple
from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.text import budget

LOOKS_LIKE_SQL = pattern(
    r"\b(?:insert\s++into|replace\s++into|merge\s++into|update\s++\S++(?:\s++(?!set\b)\S++){0,3}+\s++set"
    r"|select|delete\s++from|set\s++(?:password|session|global|local)|with\s++[\w\"`]++\s*+\("
    r"|(?:alter|create)\s++(?:user|role|login|table|view)|identified\s++by)\b",
    re.IGNORECASE,
)
# A text may end inside a literal, or right behind its backslash: it is followed to the end once, not again.
_SHAPE = r"""
    (?P<space>\s++)
  | (?P<comment>--[^\n]*+|/\*[\s\S]*?(?:\*/|\Z))
  | (?P<text>(?:[EeNnBbXx]|[Uu]&|_\w++\s*+)?'(?:[^'{stop}]|''{escape})*+(?:'|{stop}?\Z)
      |\$\$[\s\S]*?(?:\$\$|\Z)|\$(?P<tag>[A-Za-z_]\w*+)\$[\s\S]*?(?:\$(?P=tag)\$|\Z))
  | (?P<quoted>"(?:[^"]|"")*+(?:"|\Z)|`[^`]*+(?:`|\Z)|\[[A-Za-z_][\w ]*+\])
  | (?P<holder>%\(\w++\)s|%s|\?|\$\d++|(?<!:):[A-Za-z_]\w*+|@\w++)
  | (?P<number>\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+)
  | (?P<word>[^\W\d][\w$]*+)
  | (?P<sign>::|:=|<=>|<>|!=|<=|>=|~~\*?|!~~?\*?|~\*|\|\||->>?|\#>>?|@>|<@|[\s\S])
"""
# Backslashes escape in MySQL and in E'' strings and nowhere else: a text that has \' is read both ways.
_ESCAPING = pattern(_SHAPE.replace("{stop}", r"\\").replace("{escape}", r"|\\[\s\S]"), re.VERBOSE)
_STANDARD = pattern(_SHAPE.replace("{stop}?", "").replace("{stop}", "").replace("{escape}", ""), re.VERBOSE)

_COMPARES: Final = frozenset(
    """= := <> != < > <= >= <=> ~ ~* ~~ ~~* !~ !~* !~~ @> <@
    LIKE ILIKE IN BETWEEN IS NOT RLIKE REGEXP SIMILAR BY DEFAULT""".split()  # noqa: SIM905
)
_ENDS: Final = frozenset(
    """, ; WHERE AND OR RETURNING FROM ON ORDER GROUP HAVING LIMIT SET UNION EXCEPT INTERSECT OFFSET JOIN
    INNER LEFT RIGHT WITH VALUES SELECT UPDATE INSERT DELETE""".split()  # noqa: SIM905
)
_ENDS_SELECT_LIST: Final = frozenset({"FROM", "WHERE", "UNION", "EXCEPT", "INTERSECT"})
_CONTAINERS: Final = frozenset({"IN", "AS", "ANY", "ALL", "SOME"})  # of rows, or of a query
_EQUALS: Final = frozenset({"=", "<>", "!=", "<", ">", "<=", ">=", "<=>", "IS"})
_OF_CASE: Final = frozenset({"WHEN", "THEN", "ELSE", "END"})
# Not AS: what it names comes after it.
_WORDS: Final = (
    _ENDS | _COMPARES | _CONTAINERS | _OF_CASE | {"CASE", "IDENTIFIED", "INTO", "TO", "VALUE", "ROW"}
)
_NO_COLUMNS: Final = frozenset("SELECT VALUES CASE FROM WITH = := <> != < > <= >=".split())  # noqa: SIM905
_COMPARES_OR_NAMES: Final = _COMPARES | {"AS"}
_BEFORE_ROWS: Final = frozenset({"(", "NOT", "ROW", "ANY", "ALL", "SOME"})
_ARROWS: Final = frozenset({"->", "->>", "#>", "#>>", "["})
_TAKES_KEYS = pattern(r"(?:jsonb?|hstore|set_config|object|map)(?:_\w+)?", re.IGNORECASE)
_KEY = pattern(r"\$?[\w.,\-{}\[\]\" ]{1,128}")
_KEY_PART = pattern(r"[\w\-]+")

_Places = frozenset[int]
_NOWHERE: Final[_Places] = frozenset()


class _Token(NamedTuple):
    kind: str
    start: int
    end: int
    text: str  # of a word, as capitals if that means something


class _Literal(NamedTuple):
    start: int
    end: int
    place: int | None  # in the row or list of columns it stands in


class _Level:
    """What is known inside one bracket, or one CASE, or outside all of them."""

    __slots__ = (
        "after", "assigns", "at", "between", "columns", "compared", "compared_row", "first", "following",
        "inherited", "into", "json", "key", "kind", "named", "of_alias", "outer", "place", "places",
        "removing", "row", "rows", "select_at", "shows", "simple", "start", "starter", "sticky", "tail",
        "to_values",
    )  # fmt: skip

    def __init__(self, kind: str, first: int) -> None:
        self.kind = kind
        self.first = self.start = first  # literals from here on are in it; and in the expression under way
        self.inherited = False  # every literal inside is removed
        self.outer: int | None = None  # the place of the bracket, for literals in it
        self.row = False  # its commas separate columns
        self.place = 0
        self.at = self.rows = self.select_at = _NOWHERE  # removed: here, in brackets here, in a query
        self.json = False  # arguments of a function that takes keys and values
        # The expression under way.
        self.removing = self.named = self.compared = self.sticky = self.key = False
        self.assigns = False  # behind SET: what is left of = is not compared with it
        self.between = 0
        self.compared_row = -1  # literals of the row before a comparison begin here
        # A list of columns: `(a, password)` inside, and what comes after it.
        self.simple = kind == "("
        self.places: set[int] = set()
        self.shows = False  # a sensitive column is among what it gives
        self.tail = False  # behind FROM
        self.columns = _NOWHERE  # of the list before, waiting for its values
        self.starter = ""
        self.into = False
        self.to_values = False
        # `(…) AS name (…)`: the literals of the first bracket begin here, and how much of it was seen.
        self.following = -1
        self.after = 0
        self.of_alias = -1


class _Pass:
    """One pass over the tokens of a statement."""

    def __init__(self, tokens: list[_Token], is_sensitive: Callable[[str], bool]) -> None:
        self._tokens = tokens
        self._is_sensitive = is_sensitive
        self._literals: list[_Literal] = []
        self._found: list[tuple[int, int]] = []
        self._levels = [_Level("", 0)]

    def run(self) -> list[tuple[int, int]]:
        """Return start and end of each literal to remove."""
        previous = _Token("sign", 0, 0, ";")
        for index, token in enumerate(self._tokens):
            level = self._levels[-1]
            text = token.text
            if level.starter in _EQUALS and text not in _BEFORE_ROWS:
                # `coalesce(a, password) = 'x'`: no list of columns after all
                level.columns, level.starter, level.removing = _NOWHERE, "", True
            if token.kind in ("text", "number") or self._is_quoted_value(index, previous):
                self._literal(level, token, previous)
            elif token.kind == "holder":
                level.simple = False
            elif text == "(":
                self._open(level, previous)
            elif text == ")":
                self._close()
            elif text in _WORDS and token.kind != "quoted":
                self._keyword(level, text, previous)
            elif token.kind in ("quoted", "word"):
                self._name(level, index, previous)
            else:
                level.simple &= text == "."
                level.after = 0
            previous = token
        return self._found

    # --- what a token does ---------------------------------------------------------------------------

    def _literal(self, level: _Level, token: _Token, previous: _Token) -> None:
        level.simple = False
        level.after = 0
        if token.kind == "text" and self._is_key(level, token, previous):
            level.named = level.shows = True
            level.key = level.json or token.text[1:2] == "$"
            if level.compared and not level.assigns:
                self._flush(level)
            if not level.removing:
                return
        if token.kind == "text" and previous.kind in ("word", "quoted") and level.named:
            level.removing |= self._sensitive(previous)  # PASSWORD 'x'
        if level.removing or level.inherited or level.place in level.at:
            self._found.append((token.start, token.end))
        else:
            place = level.place if level.row else level.outer
            self._literals.append(_Literal(token.start, token.end, place))

    def _is_key(self, level: _Level, token: _Token, previous: _Token) -> bool:
        """Say whether a text is the sensitive key of a document: ``->> 'password'``, ``'$.password'``."""
        inner = token.text[1:-1]
        if not (level.json or previous.text in _ARROWS or inner[:1] == "$"):
            return False
        return _KEY.fullmatch(inner) is not None and any(map(self._is_sensitive, _KEY_PART.findall(inner)))

    def _name(self, level: _Level, index: int, previous: _Token) -> None:
        token = self._tokens[index]
        by_as = previous.text == "AS"
        level.after = 3 if level.after in (1, 2) else 0
        if self._sensitive(token):
            if (level.compared and not level.assigns) or by_as or previous.kind in ("text", "number"):
                self._flush(level)  # 'x' = password, 'x' AS password, 'x' password
            level.named = True
            if level.simple:
                level.places.add(level.place)
            level.shows |= not level.tail
        elif by_as:
            self._end(level)
        if token.text[0] == '"' and previous.text != "." and self._next(index) in _COMPARES_OR_NAMES:
            # A value to MySQL; if it is compared with a sensitive column it goes like one.
            self._literals.append(_Literal(token.start, token.end, level.place if level.row else level.outer))

    def _keyword(self, level: _Level, text: str, previous: _Token) -> None:
        if text not in ("AS", "ROW", ","):
            level.after = 0
        if text in _NO_COLUMNS:
            level.simple = False
        if text == "CASE":
            self._push("CASE", level)
        elif text in _OF_CASE:
            if level.kind == "CASE":
                self._close_case() if text == "END" else self._end(level)
        elif text == "AND" and level.between:
            level.between -= 1
        elif text == "FROM" and previous.text.upper() == "DISTINCT" and level.named:
            level.removing = True  # password IS DISTINCT FROM 'x'
        elif text in _ENDS:
            self._ends(level, text)
        elif text == "IDENTIFIED":
            level.removing = level.sticky = True
        elif text == "INTO":
            level.into = True
        elif text == "AS":
            level.starter = "AS" if level.columns else ""
            level.after = 2 if level.after == 1 else 0
        elif text == "VALUE":
            level.to_values |= level.columns != _NOWHERE
            level.starter = "VALUES" if level.columns else level.starter
        elif text == "TO":
            level.removing |= level.named and level.assigns
        else:
            self._compares(level, text, previous)

    def _compares(self, level: _Level, text: str, previous: _Token) -> None:
        if text == "BETWEEN":
            level.between += 1
        if level.columns and (text in _CONTAINERS or text in _EQUALS):
            level.starter = text
        level.removing |= level.named and text in _COMPARES
        if text in _COMPARES:
            level.compared = True
            level.compared_row = level.following if previous.text == ")" else -1

    def _ends(self, level: _Level, text: str) -> None:
        if text == ",":
            level.place += 1
            if level.key:
                self._end(level)
                level.removing = True  # the value after its key
                return
        elif text == "SELECT":
            if level.columns:
                level.select_at = level.columns
                level.columns = _NOWHERE
            level.at, level.place, level.row, level.tail = level.select_at, 0, True, False
        elif text in _ENDS_SELECT_LIST:
            level.at, level.row, level.tail = _NOWHERE, False, True
            level.columns = level.columns if level.into else _NOWHERE
        if text == "VALUES":
            level.to_values, level.starter = True, "VALUES"
        elif text != ",":
            level.to_values = False
            level.starter = ""
            level.assigns = text in ("SET", "UPDATE")
            if text in (";", "AND", "OR", "ON", "SET"):
                level.columns = _NOWHERE
            if text == ";":
                level.at = level.select_at = _NOWHERE
                level.into = False
        if text in (",", ";") or not level.sticky:
            self._end(level)

    def _end(self, level: _Level) -> None:
        """End the expression under way."""
        level.removing = level.named = level.compared = level.sticky = level.key = False
        level.between = 0
        level.start = len(self._literals)

    # --- brackets ------------------------------------------------------------------------------------

    def _push(self, kind: str, level: _Level) -> _Level:
        child = _Level(kind, len(self._literals))
        child.inherited = level.inherited or level.removing or level.place in level.at
        child.outer = level.place if level.row else level.outer
        self._levels.append(child)
        return child

    def _open(self, level: _Level, previous: _Token) -> None:
        level.simple = False
        child = self._push("(", level)
        is_call = previous.kind in ("word", "quoted") and previous.text not in _WORDS
        if is_call:
            child.json = _TAKES_KEYS.fullmatch(previous.text) is not None
            if previous.text in ("ANY", "ALL", "SOME") and level.columns:
                level.starter = "IN"
            child.inherited |= self._sensitive(previous) and not level.into  # PASSWORD('x'), set_token('x')
        child.row = not is_call
        if level.after == 3:
            child.of_alias = level.following
        level.after = 0
        if level.rows and not is_call:
            child.at = level.rows  # a row of IN ((1, 'x'), …)
        elif level.columns and level.starter in _CONTAINERS:
            child.rows = child.columns = level.columns
        elif level.columns and level.starter == "VALUES":
            child.at = child.rows = level.columns
        elif level.columns and level.starter:
            child.at = child.columns = level.columns
        if level.columns and level.starter and level.starter != "VALUES" and not level.into:
            level.columns = _NOWHERE
        if not level.to_values:
            level.starter = ""

    def _close(self) -> None:
        while len(self._levels) > 1 and self._levels[-1].kind == "CASE":
            self._close_case()
        if len(self._levels) == 1:
            self._end(self._levels[0])
            return
        child = self._levels.pop()
        level = self._levels[-1]
        several = child.place > 0
        if child.simple and child.places:
            self._list(level, child)
        if child.shows and not (child.simple and several):
            level.named = True
            level.shows |= not level.tail
            if level.compared and not level.assigns:
                self._flush(level)
        if not (level.to_values and level.following >= 0):
            level.following = child.first
        level.after = 1

    def _close_case(self) -> None:
        child = self._levels.pop()
        level = self._levels[-1]
        level.named |= child.shows

    def _list(self, level: _Level, child: _Level) -> None:
        """Note a list of columns: what it names comes after it, or came before."""
        places = frozenset(child.places)
        if child.of_alias >= 0:  # (VALUES (1, 'x')) AS name (id, token)
            self._mark(child.of_alias, places)
        elif level.compared_row >= 0:  # (1, 'x') = (id, token)
            self._mark(level.compared_row, places)
        else:
            level.columns, level.starter, level.to_values = places, "", False

    def _mark(self, first: int, places: _Places) -> None:
        for literal in self._literals[first:]:
            if literal.place is None or literal.place in places:
                self._found.append((literal.start, literal.end))
        self._forget(first)

    def _flush(self, level: _Level) -> None:
        """Remove the literals of the expression under way."""
        self._found += ((literal.start, literal.end) for literal in self._literals[level.start :])
        self._forget(level.start)

    def _forget(self, first: int) -> None:
        # Each literal is looked at once: it could be asked for again by every bracket around it.
        del self._literals[first:]
        level = self._levels[-1]
        level.start = min(level.start, first)
        level.following = min(level.following, first)

    # --- tokens --------------------------------------------------------------------------------------

    def _sensitive(self, token: _Token) -> bool:
        return self._is_sensitive(token.text[1:-1] if token.kind == "quoted" else token.text)

    def _is_quoted_value(self, index: int, previous: _Token) -> bool:
        """Say whether this is MySQL's ``"x"`` where values go, and not the name of a column."""
        token = self._tokens[index]
        if token.kind != "quoted" or token.text[0] != '"' or previous.text == ".":
            return False
        level = self._levels[-1]
        if not (level.removing or level.inherited or level.place in level.at):
            return False
        return self._next(index) not in (".", "(")

    def _next(self, index: int) -> str:
        return self._tokens[index + 1].text if index + 1 < len(self._tokens) else ""


_LITERAL_KIND = pattern(r"(?<!\w)[bBeEnNxX]\Z")


def scrub(text: str, is_sensitive: Callable[[str], bool], mask: str, start: int = 0) -> str:
    """Return ``text`` without the literals of sensitive columns, reading it as SQL from ``start``.

    What lies beyond :data:`otel_audit.redaction.text.budget.TOKENS` is left out, and the text says so.
    """
    tokens, end = _tokens(_ESCAPING, text, start)
    spans = set(_Pass(tokens, is_sensitive).run())
    if "\\'" in text:
        tokens, other_end = _tokens(_STANDARD, text, start)
        end = min(end, other_end)
        spans.update(_Pass(tokens, is_sensitive).run())
    if not spans and end == len(text):
        return text
    parts: list[str] = []
    copied = 0
    for begin, until in sorted(spans):
        if until <= copied:
            continue
        if begin >= end:
            break
        if parts and begin == copied:
            pass  # two beside each other read as one: `'x''y'`
        elif text[begin:until] != f"'{mask}'":
            # Apart from what stands beside it without a blank: `x'…'` is a literal of another kind.
            before = " " if _LITERAL_KIND.search(text, max(copied, begin - 2), begin) else ""
            behind = " " if text[until : until + 1].isalnum() else ""
            parts += (text[copied : max(begin, copied)], f"{before}'{mask}'{behind}")
        else:
            parts.append(text[copied:until])
        copied = until
    if end < len(text):
        return "".join((*parts, text[copied:end], budget.withheld(mask, len(text) - max(copied, end))))
    return "".join((*parts, text[copied:]))


def names_sensitive(text: str, is_sensitive: Callable[[str], bool]) -> bool:
    """Say whether any identifier in ``text`` is sensitive: then its parameters are, too."""
    tokens, end = _tokens(_ESCAPING, text, 0)
    if end < len(text):
        return True
    return any(
        is_sensitive(token.text[1:-1] if token.kind == "quoted" else token.text)
        for token in tokens
        if token.kind in ("quoted", "word")
    )


def literals(text: str) -> Iterator[tuple[int, int]]:
    """Return start and end of each comment, and of what stands inside the quotes of each text literal."""
    for match in _ESCAPING.finditer(text):
        if match.lastgroup == "comment":
            yield match.span()
        elif match.lastgroup == "text" and "'" in match.group():
            start = match.start() + match.group().index("'") + 1
            closed = match.end() > start and text[match.end() - 1] == "'"
            yield start, match.end() - closed


def _tokens(shape: re.Pattern[str], text: str, start: int) -> tuple[list[_Token], int]:
    """Return the tokens from ``start`` and where the last of them ends that may be looked at."""
    tokens: list[_Token] = []
    for match in shape.finditer(text, start):
        kind = match.lastgroup or "text"
        if kind in ("space", "comment"):
            continue
        if len(tokens) == budget.TOKENS:
            return tokens, match.start()
        found = match.group()
        if kind == "tag":
            kind = "text"
        elif kind == "word" and (upper := found.upper()) in _WORDS:
            found = upper
        tokens.append(_Token(kind, match.start(), match.end(), found))
    return tokens, len(text)
