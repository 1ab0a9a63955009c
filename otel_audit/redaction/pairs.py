"""Names beside values in free text: ``password=x``, ``"token": "x"``, ``Cookie: x``, ``--secret x``.

Texts are query strings, messages, tracebacks, headers, command lines, reprs and JSON, cut off anywhere. A
scanner finds each name with what separates it from its value; a sensitive name loses its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_plus

from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.names import NameRules, Sensitivity, removes_from_text, words

# The lookbehind lets a name start only where a run of name characters starts: linear on any text.
_HEAD = pattern(
    r"""(?<![\w%.\-\[\]$])
        (?P<name>[\w%.\-\[\]$]++)
        (?P<separator> \\*["']?[ \t]*(?:=>|:=|[!<>=]?=|:(?!//))[ \t]*       # password = , "password":
                     | \\*["'][ \t]*,[ \t]*(?=\\*["'])                        # ("password", "x")
                     | \)=(?=\()                                              # Key (password)=(x)
                     | [ \t]+(?:(?:is|was)[ \t]+)?(?=\\*["'][^\s"'\\]{4}) )   # PASSWORD 'x'
    """,
    re.VERBOSE,
)
_ARGUMENT = pattern(r"(?<![\w%.\-\[\]$])--?([A-Za-z][\w.\-]*+)[ \t]+(?=[^\s\-])")
_ELEMENT = pattern(r"<([\w:.\-]++)(?:\s[^<>]*+)?+>([^<]++)(?=</)")
# A query string inside a parameter of another, quoted once or more.
_QUOTED_PARAMETER = pattern(
    r"(?:%(?:25)*+3F|%(?:25)*+26|[?&=;])([\w.\-]++)%(?:25)*+3D((?:(?!%(?:25)*26|%(?:25)*23)[^&\s\"'<>])++)",
    re.IGNORECASE,
)
_QUOTED_MEMBER = pattern(
    r"(?<=%22)([\w.\-]++)%22(?:%20|\+)*+%3A(?:%20|\+)*+(?:%22)?+((?:(?!%22|%2C|%7D)[^&\s\"'<>])++)",
    re.IGNORECASE,
)

_OPENING_QUOTE = pattern(r"""[bBuUrRfFeEnN]{0,2}(\\*)(["'])""")
_CLOSED_BY: Final = {
    "'": pattern(r"(?:[^'\\]|\\[\s\S]|'')*+"),
    '"': pattern(r'(?:[^"\\]|\\[\s\S])*+'),
}
_PLACEHOLDER = pattern(
    r"(?:%s|%\(\w+\)s|\?|\$\d+|:\w+|\{\w*\}|null|none|true|false)(?![^\s,;&)\]}\"'])", re.IGNORECASE
)
_IN_QUERY = pattern(r"[^&#\s\"'<>]*+")
# A closing bracket, comma or semicolon ends a value if something new begins after it.
_PLAIN = pattern(
    r"""(?:Bearer|Basic|Digest|Negotiate|Token|ApiKey)[ ]+[^\s,;"'<>]++
      | (?:[^\s&"'<>,;)\]}]|[,;)\]}](?!\s|\Z|[,;)\]}"'&<>]|[\w.\-]{1,64}\s?[=:]))++
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LINE = pattern(r"[^\r\n]*+")
_WHOLE_LINE: Final = ("cookie", "cookies", "authorization", "authorisation", "phrase")
_BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}
_LABEL_REACH: Final = 64
_LAST_WORD = pattern(r"(?<![\w\-])[\w\-]++\Z")


class PairScanner:
    """Removes the values of sensitive names from text."""

    def __init__(self, names: NameRules, mask: str) -> None:
        self._names = names
        self._mask = mask

    def scrub(self, text: str) -> str:
        """Give ``text`` without the values of sensitive names."""
        if "%3" in text:
            text = self._substitute(_QUOTED_PARAMETER, text, in_address=True)
            text = self._substitute(_QUOTED_MEMBER, text)
        if "<" in text:
            text = self._substitute(_ELEMENT, text)
        text = self._scan(_HEAD, text, self._decide_pair)
        if "-" in text:
            text = self._scan(_ARGUMENT, text, lambda match: self._names.decide(match[1]))
        return text

    def _substitute(self, found_by: re.Pattern[str], text: str, *, in_address: bool = False) -> str:
        def replace(match: re.Match[str]) -> str:
            name, value = match.groups()
            if not self._removes(self._decide(name, in_address), value):
                return match.group()
            start = match.start()
            return match.string[start : match.start(2)] + self._mask

        return found_by.sub(replace, text)

    def _scan(
        self, found_by: re.Pattern[str], text: str, decide: Callable[[re.Match[str]], Sensitivity]
    ) -> str:
        parts: list[str] = []
        copied = position = 0
        while (match := found_by.search(text, position)) is not None:
            position = match.end()
            sensitivity = decide(match)
            if sensitivity in ("clean", "allowed"):
                continue
            start, end = self._value(text, match)
            if start < end and self._removes(sensitivity, text[start:end]):
                parts += (text[copied:start], self._mask)
                copied = end
            position = max(position, end)
        return "".join((*parts, text[copied:])) if parts else text

    def _decide(self, name: str, in_address: bool) -> Sensitivity:
        if "%" in name:
            name = unquote_plus(name)
        found = self._names.decide(name)
        if found == "clean" and in_address and self._names.in_address(name):
            return "secret"
        return found

    def _decide_pair(self, match: re.Match[str]) -> Sensitivity:
        text, start = match.string, match.start()
        name = match["name"]
        before = text[start - 1] if start else ""
        found = self._decide(name, before in ("", "?", "&") and match["separator"] == "=")
        if found != "clean":
            return found
        label = _label(text, start, match.end("name"), before)
        return self._names.decide(label) if label else found

    def _removes(self, sensitivity: Sensitivity, value: str) -> bool:
        return value != self._mask and removes_from_text(sensitivity, value)

    def _value(self, text: str, match: re.Match[str]) -> tuple[int, int]:
        """Find where the value after a name and separator starts and ends; equal if none is to be removed."""
        start = match.end()
        if text.startswith(self._mask, start):
            return start, start
        quote = _OPENING_QUOTE.match(text, start)
        if quote is not None:
            return quote.end(), _quoted_end(text, quote)
        if (placeholder := _PLACEHOLDER.match(text, start)) is not None:
            return placeholder.end(), placeholder.end()
        if text[start : start + 1] in _BRACKETS:
            end = _balanced_end(text, start)
            return (
                (start + 1, end - 1)
                if "separator" in match.re.groupindex and ")=" in match["separator"]
                else (start, end)
            )
        before = text[match.start() - 1] if match.start() else ""
        if before in "?&" and match.group().endswith("="):
            found = _IN_QUERY.match(text, start)
        elif _is_source_line(text, match.start()):
            return start, start
        elif ":" in match.group() and words(match[1]).endswith(_WHOLE_LINE):
            found = _LINE.match(text, start)
            if before and before in "\"'" and found is not None:
                closing = text.find(before, start, found.end())
                return start, closing if closing >= 0 else found.end()
        else:
            found = _PLAIN.match(text, start)
        return (start, found.end()) if found is not None else (start, start)


def _label(text: str, start: int, end: int, before: str) -> str:
    """Give a name of two words, ``API key: …``, or a quoted one, ``"card number": …``; empty if neither."""
    if before == " ":
        quote = text[end : end + 1]
        if quote and quote in "\"'":
            opening = text.rfind(quote, max(0, start - _LABEL_REACH), start)
            return text[opening + 1 : end] if opening >= 0 else ""
        previous = _LAST_WORD.search(text, max(0, start - _LABEL_REACH), start - 1)
        return f"{previous.group()} {text[start:end]}" if previous is not None else ""
    return ""


def _quoted_end(text: str, quote: re.Match[str]) -> int:
    backslashes, mark = quote.groups()
    if backslashes:  # quoted inside a quoted text
        end = text.find(backslashes + mark, quote.end())
        return len(text) if end < 0 else end
    found = _CLOSED_BY[mark].match(text, quote.end())
    return quote.end() if found is None else found.end()


_BRACKET_TOKEN = pattern(r"""[()\[\]{}]|"(?:[^"\\]|\\[\s\S])*+"?|'(?:[^'\\]|\\[\s\S])*+'?""")


def _balanced_end(text: str, start: int) -> int:
    expected: list[str] = []
    for match in _BRACKET_TOKEN.finditer(text, start):
        token = match.group()
        if token in _BRACKETS:
            expected.append(_BRACKETS[token])
        elif expected and token == expected[-1]:
            expected.pop()
            if not expected:
                return match.end()
    return len(text)


def _is_source_line(text: str, position: int) -> bool:
    """Say whether ``position`` is on a line of source code in a traceback: names there are beside names."""
    line = text.rfind("\n", 0, position) + 1
    if not text.startswith("    ", line):
        return False
    previous = text.rfind("\n", 0, max(0, line - 1)) + 1
    return text[previous:line].lstrip().startswith('File "')
