"""Literals of sensitive columns in SQL text: ``SET password = 'x'``, ``INSERT … (a, token) VALUES (1, 'x')``.

Not a parser: a tokenizer, and three shapes in which a literal belongs to a column: compared or assigned in an
expression, at the column's place in a list of values, or named by ``AS``. It errs towards removing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from otel_audit.redaction.lazy import pattern

LOOKS_LIKE_SQL = pattern(
    r"\b(?:insert\s+into|replace\s+into|merge\s+into|update\s+\S+(?:\s+\S+){0,3}\s+set|select|delete\s+from|set\s+(?:password|session|global|local)"
    r"|(?:alter|create)\s+(?:user|role|login)|identified\s+by)\b",
    re.IGNORECASE,
)
_SHAPE = r"""
    (?P<space>\s++|--[^\n]*+|/\*[\s\S]*?(?:\*/|\Z))
  | (?P<text>(?:[EeNnBbXx]|[Uu]&|_\w+\s*)?'(?:[^'{stop}]|''{escape})*+(?:'|\Z)
      |\$\$[\s\S]*?(?:\$\$|\Z)|\$(?P<tag>[A-Za-z_]\w*+)\$[\s\S]*?(?:\$(?P=tag)\$|\Z))
  | (?P<quoted>"(?:[^"]|"")*+(?:"|\Z)|`[^`]*+(?:`|\Z)|\[[A-Za-z_][\w ]*+\])
  | (?P<holder>%\(\w++\)s|%s|\?|\$\d++|(?<!:):[A-Za-z_]\w*+|@\w++)
  | (?P<number>\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+)
  | (?P<word>[^\W\d][\w$]*+)
  | (?P<sign>::|:=|<=>|<>|!=|<=|>=|~~\*?|!~~?\*?|~\*|\|\||->>?|\#>>?|@>|<@|[\s\S])
"""
# Backslashes escape in MySQL and in E'' strings and nowhere else: a text that has \' is read both ways.
_ESCAPING = pattern(_SHAPE.replace("{stop}", r"\\").replace("{escape}", r"|\\[\s\S]"), re.VERBOSE)
_STANDARD = pattern(_SHAPE.replace("{stop}", "").replace("{escape}", ""), re.VERBOSE)

_COMPARES: Final = frozenset(
    {"=", ":=", "<>", "!=", "<", ">", "<=", ">=", "<=>", "~", "~*", "~~", "~~*", "!~"}
)
_COMPARES_WORDS: Final = frozenset(
    {"LIKE", "ILIKE", "IN", "BETWEEN", "IS", "NOT", "RLIKE", "REGEXP", "SIMILAR", "BY"}
)
_ENDS: Final = frozenset(
    """WHERE AND OR RETURNING FROM ON ORDER GROUP HAVING LIMIT SET UNION EXCEPT INTERSECT OFFSET JOIN
    INNER LEFT RIGHT AS WITH VALUES SELECT UPDATE INSERT DELETE""".split()  # noqa: SIM905
)


class _Token(NamedTuple):
    kind: str
    start: int
    end: int
    text: str

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text

    @property
    def name(self) -> str:
        """The column an identifier names, empty if this is none."""
        if self.kind == "quoted":
            return self.text[1:-1]
        return self.text if self.kind == "word" else ""

    @property
    def is_literal(self) -> bool:
        return self.kind in ("text", "number")


def scrub(text: str, is_sensitive: Callable[[str], bool], mask: str, start: int = 0) -> str:
    """Give ``text`` without the literals of sensitive columns, reading it as SQL from ``start``."""
    spans = set(_spans(_tokens(_ESCAPING, text, start), is_sensitive))
    if "\\'" in text:
        spans.update(_spans(_tokens(_STANDARD, text, start), is_sensitive))
    if not spans:
        return text
    parts: list[str] = []
    copied = 0
    for begin, end in sorted(spans):
        if end <= copied:
            continue
        if text[begin:end] != f"'{mask}'":
            parts += (text[copied : max(begin, copied)], f"'{mask}'")
        else:
            parts.append(text[copied:end])
        copied = end
    return "".join((*parts, text[copied:]))


def names_sensitive(text: str, is_sensitive: Callable[[str], bool]) -> bool:
    """Say whether any identifier in ``text`` is sensitive: then its parameters are, too."""
    return any(token.name and is_sensitive(token.name) for token in _tokens(_ESCAPING, text, 0))


def literals(text: str) -> Iterator[tuple[int, int]]:
    """Give start and end of what stands inside the quotes of each text literal."""
    for token in _tokens(_ESCAPING, text, 0):
        if token.kind == "text" and token.text.endswith("'"):
            yield token.start + token.text.index("'") + 1, token.end - 1


def _tokens(shape: re.Pattern[str], text: str, start: int) -> list[_Token]:
    tokens = []
    for match in shape.finditer(text, start):
        kind = match.lastgroup or "text"
        if kind == "tag":
            kind = "text"
        if kind != "space":
            tokens.append(_Token(kind, match.start(), match.end(), match.group()))
    return tokens


def _spans(tokens: list[_Token], is_sensitive: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    for index, token in enumerate(tokens):
        if token.text == "(":
            yield from _listed(tokens, index, is_sensitive)
        name = token.name
        if not name or not is_sensitive(name):
            if token.upper == "IDENTIFIED":
                yield from _literals(tokens, index + 1, _expression_end(tokens, index + 1))
            continue
        yield from _beside(tokens, index)


def _beside(tokens: list[_Token], index: int) -> Iterator[tuple[int, int]]:
    """Find the literals a sensitive column is compared with, assigned, or named after."""
    after = index + 1
    while after + 1 < len(tokens) and tokens[after].text == "::":  # password::text = 'x'
        after += 2
    if after < len(tokens):
        follower = tokens[after]
        if follower.text in _COMPARES or follower.upper in _COMPARES_WORDS or follower.kind == "text":
            yield from _literals(tokens, after, _expression_end(tokens, after))
    before = index - 1
    while before >= 1 and tokens[before].text == ".":  # 'x' = shop_user.password
        before -= 2
    if before >= 1 and (tokens[before].text in _COMPARES or tokens[before].upper == "AS"):
        begin = before - 1
        while begin > 0 and not _separates(tokens[begin]):
            begin -= 1
        yield from _literals(tokens, begin, before)


def _separates(token: _Token) -> bool:
    return token.text in (",", ";") or token.upper in _ENDS


def _listed(
    tokens: list[_Token], index: int, is_sensitive: Callable[[str], bool]
) -> Iterator[tuple[int, int]]:
    """Find the literals at the places of sensitive columns: ``(a, password) VALUES (1, 'x'), (2, 'y')``."""
    places: set[int] = set()
    place = 0
    position = index + 1
    while position < len(tokens) and tokens[position].text != ")":
        token = tokens[position]
        if token.text == ",":
            place += 1
        elif token.name:
            if is_sensitive(token.name):
                places.add(place)
        elif token.text != ".":
            return
        position += 1
    if not places:
        return
    position += 1
    while position < len(tokens) and tokens[position].upper not in ("VALUES", "SELECT", "="):
        if tokens[position].text in ("(", ";") or position > index + 500:
            return
        position += 1
    if position >= len(tokens):
        return
    if tokens[position].upper == "SELECT":
        yield from _at_places(tokens, position + 1, places, ends_at_keyword=True)
        return
    position += 1
    while position < len(tokens):
        if tokens[position].text == "(":
            yield from _at_places(tokens, position + 1, places, ends_at_keyword=False)
            position = _closing(tokens, position)
        elif tokens[position].text != "," and tokens[position].upper != "ROW":
            return
        position += 1


def _at_places(
    tokens: list[_Token], position: int, places: set[int], *, ends_at_keyword: bool
) -> Iterator[tuple[int, int]]:
    place = depth = 0
    while position < len(tokens):
        token = tokens[position]
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
            if depth < 0:
                return
        elif token.text == "," and depth == 0:
            place += 1
        elif ends_at_keyword and depth == 0 and token.upper in ("FROM", "WHERE", ";", "UNION"):
            return
        elif place in places and (token.is_literal or _is_quoted_value(tokens, position)):
            yield token.start, token.end
        position += 1


def _closing(tokens: list[_Token], position: int) -> int:
    depth = 0
    while position < len(tokens):
        depth += (tokens[position].text == "(") - (tokens[position].text == ")")
        if depth == 0:
            return position
        position += 1
    return position


def _expression_end(tokens: list[_Token], position: int) -> int:
    depth = 0
    between = 0
    while position < len(tokens):
        token = tokens[position]
        if token.text == "(" or token.upper == "CASE":
            depth += 1
        elif token.text == ")" or token.upper == "END":
            depth -= 1
            if depth < 0:
                return position
        elif token.upper == "BETWEEN":
            between += 1
        elif token.upper == "AND" and between:
            between -= 1
        elif depth == 0 and _separates(token):
            return position
        position += 1
    return position


def _literals(tokens: list[_Token], start: int, end: int) -> Iterator[tuple[int, int]]:
    for position in range(start, end):
        if tokens[position].is_literal or _is_quoted_value(tokens, position):
            yield tokens[position].start, tokens[position].end


def _is_quoted_value(tokens: list[_Token], position: int) -> bool:
    """Say whether this is MySQL's ``"x"``: double quotes around a value, not around a name."""
    token = tokens[position]
    if token.kind != "quoted" or not token.text.startswith('"'):
        return False
    neighbours = tokens[max(0, position - 1) : position] + tokens[position + 1 : position + 2]
    return all(neighbour.text not in (".", "(") for neighbour in neighbours[-1:]) and all(
        neighbour.text != "." for neighbour in neighbours
    )
