"""Names beside values in free text: ``password=x``, ``"token": "x"``, ``Cookie: x``, ``--secret x``.

Texts are query strings, messages, tracebacks, headers, command lines, reprs and JSON, cut off anywhere. A
scanner finds each name with what separates it from its value; a sensitive name loses its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote_plus

from otel_audit.redaction import named_values
from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.names import SENSITIVE, NameRules, Sensitivity, removes_from_text, words
from otel_audit.redaction.text import budget, forms

# The lookbehind lets a name start only where a run of name characters starts: linear on any text.
_HEAD = pattern(
    r"""(?<![\w%.\-\[\]$])
        (?P<name>[\w%.\-\[\]$]++)
        (?P<separator> \\*["']?[ \t]*(?:=>|->|:=|[!<>=]?=|[＝﹦：﹕]|:(?!//)       # password = , "password":
                          |(?<=\\)(?:u003|x3)[dD]|&\#(?:0{0,4}61|[xX]0{0,4}3[dD]);)[ \t]*  # as JSON, as HTML
                     | \\*["'][ \t]*,[ \t]*(?=[\[(]{0,2}[bBuU]?\\*["'])      # (b"password", b"x")
                     | [ \t]+(?:(?:is|was)[ \t]+)?(?=\\*["'][^\s"'\\]{4})   # PASSWORD 'x'
                     | [ \t]+(?:is|was)[ \t]+(?=[A-Za-z]{0,32}\d)(?=\d{0,32}[A-Za-z])(?=[^\s"']{6}) )
    """,
    re.VERBOSE,
)
_ARGUMENT = pattern(r"(?<![\w%.\-\[\]$])--?([A-Za-z][\w.\-]*+)[ \t]+(?=[^\s\-])")
# password\n    hunter2: alone on its line, and a deeper line of one word after it.
_ABOVE = pattern(
    r"^([ \t]*+)(?P<name>[\w.\-\[\]$%]++)[ \t]*+\r?\n\1[ \t]++(?=[^\s<]++[ \t]*+(?:\r?\n|\Z))", re.MULTILINE
)
# A pair in a parameter or a document that was quoted, once or more: `%3Fpassword%3D`, `%22token%22%3A%22`.
_QUOTED = pattern(
    r"(?:(?<![\w.\-%])|(?<=%3[DA])|(?<=%253[DA])|(?<=%25253[DA]))(?P<name>(?:%(?:25)*+(?!3[DA])[0-9A-F]{2}|[\w.\-+])++)%(?:25)*+3(?P<sign>[DA])",
    re.IGNORECASE,
)
_QUOTED_OPENING = pattern(r"(?:%(?:25)*+(?:20|5C)|\+){0,8}+(%(?:25)*+2[27])?", re.IGNORECASE)
_QUOTED_VALUE: Final = {
    "D": pattern(r"(?:(?!%(?:25)*+(?:26|23|0A|0D|22|27|3C))[^&\s\"'<>])*+", re.IGNORECASE),
    "A": pattern(r"(?:(?!%(?:25)*+(?:26|23|0A|0D|22|27|3C|2C|7D))[^&\s\"'<>,])*+", re.IGNORECASE),
    "%": pattern(r"(?:(?!%(?:25)*+(?:26|23|22|27))[^&\s\"'<>])*+", re.IGNORECASE),
}
_LAST_NAME = pattern(r"([\w.\-\[\]]++)\\*[\"']?\s*+\Z")

_OPENING_QUOTE = pattern(r"""[bBuUrRfFeEnN]{0,2}(\\*)(["'])""")
_CLOSED_BY: Final = {
    "'": pattern(r"(?:[^'\\]|\\[\s\S]|'')*+"),
    '"': pattern(r'(?:[^"\\]|\\[\s\S])*+'),
}
_PLACEHOLDER = pattern(
    r"(?:%s|%\(\w+\)s|\?|\$\d+|:\w+|\{\w*\}|null|none|true|false)(?![^\s,;&)\]}\"'])", re.IGNORECASE
)
# With blanks only if another parameter follows: an address may stand in a sentence.
_IN_QUERY = pattern(r"[^&#\s\"'<>]*+(?:(?:[ ](?!HTTP/)[^&#\s\"'<>]*+){1,12}(?=&[\w.\-\[\]%]{1,64}=))?+")
# A closing bracket, comma or semicolon ends a value if something new begins after it.
_PLAIN = pattern(
    r"""(?:Bearer|Basic|Digest|Negotiate|Token|ApiKey)[ ]+[^\s,;"'<>]++
      | (?:[^\s&"'<>,;)\]}]|&(?![\w.\-\[\]%]{1,64}[=;]|\s|\Z|[&"'<>])
          |[,;)\]}](?!\s|\Z|[,;)\]}"'&<>]|[\w.\-]{1,64}\s?[=:]))++
    """,
    re.VERBOSE | re.IGNORECASE,
)
# More words of a value with blanks, `password: correct horse battery`, up to a word of a sentence or a pair.
_MORE_WORDS = pattern(
    r"""(?:[ \t](?!(?:a|about|after|an|and|are|as|at|be|because|been|before|but|by|can|cannot|could|did|do
            |does|exists?|expired|failed|for|from|had|has|have|if|in|into|invalid|is|it|its|may|missing|must|no|not
            |of|on|or|out|over|rejected|refused|required|rest|set|should|so|than|that|the|then|they|this|to
            |too|up|used|user|was|were|when|which|who|will|with|within|without|would|you|your)\b)
           (?![\w.\-]{1,64}\s?[=:＝：])[^\s,;"'<>&|()\[\]{}=]++){0,24}+""",
    re.VERBOSE | re.IGNORECASE,
)
# What may stand on a line before a name whose value is below. Code is none: `if password:`, `class Token:`.
_LABEL = pattern(
    r"""[ \t\-*•>"']{0,64}+(?:(?!(?:if|elif|while|for|class|def|with|except|return|async|in|not|and|or|else
        |try|case|match|lambda|is)\b)[\w'’]{1,32}[ ]){0,3}+["']?""",
    re.VERBOSE,
)
_LINE_BREAK = pattern(r"(?:[|>][+\-\d]{0,2})?[ \t]{0,64}+\r?\n")
_LINE_BEGIN = pattern(r"(?:[ \t]*+(?:[\-*•>][ \t]++)?(?:export[ \t]++|set[ \t]++)?)", re.IGNORECASE)
_FURTHER_LINE = pattern(r"([ \t]*+)([^\r\n]*+)(?:\r?\n|\Z)")
_LINE = pattern(r"[^\r\n]*+")
_WHOLE_LINE: Final = ("cookie", "cookies", "authorization", "authorisation", "phrase")
_BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}
_CALL = pattern(r"[A-Za-z_][\w.]{0,63}+(?=\()")
_LABEL_REACH: Final = 64
_ROUNDS: Final = 3
_NAMED_REACH: Final = 256
_KEY_END = pattern(r"""\\{0,4}+["'][ \t]{0,8}+(?:=>|[:=])""")
_LAST_WORD = pattern(r"(?<![\w\-])(?:[\w\-]++[ ](?=de?\Z))?+[\w\-]++\Z")


def reads_otherwise(text: str, scrubbed: str) -> bool:
    """Say whether what is left of a text may be read in another way, as a row of a table."""
    return scrubbed != text and any(sign in text for sign in "\n\t|│")


class PairScanner:
    """Removes the values of sensitive names from text."""

    def __init__(self, names: NameRules, mask: str) -> None:
        self._names = names
        self._mask = mask
        # A mask of several words may be taken for a word and more: it would grow with every round.
        self._rounds = _ROUNDS if len(mask.split()) == 1 else 1

    def scrub(self, text: str) -> str:
        """Return ``text`` without the values of sensitive names."""
        scrubbed = self._scrub(text)
        for _ in range(1, self._rounds):
            if not reads_otherwise(text, scrubbed):
                break
            text, scrubbed = scrubbed, self._scrub(scrubbed)
        return scrubbed

    def _scrub(self, text: str) -> str:
        text = self.scrub_quoted(text)
        if "<" in text or "lt;" in text:
            from otel_audit.redaction.text import markup  # few processes ever meet one

            text = markup.scrub(text, self._is_secret, self._mask)
        text = forms.scrub_constraints(text, self._is_secret, self._mask)
        if "form-data" in text:
            text = forms.scrub_parts(text, self._is_secret, self._mask)
        if "\n" in text:
            text = forms.scrub_tables(text, self._is_secret, self._mask)
            text = self._scan(_ABOVE, text, self._decide_above)
        if "\t" in text or "|" in text or "│" in text:
            text = forms.scrub_rows(text, self._is_secret, self._mask)
        if "-" in text:  # before a program's name is taken for a word of a value
            text = forms.scrub_options(text, self._mask)
        text = self._scrub_named(text)
        text = self._scan(_HEAD, text, self._decide_pair)
        if "-" in text:
            text = self._scan(_ARGUMENT, text, lambda match: self._names.decide(match[1]))
        return text

    def _scrub_named(self, text: str) -> str:
        """Replace values beside a sensitive name that is a value itself: ``name: token, value: x``."""
        parts: list[str] = []
        copied = names = 0
        lines = _Lines(text)
        found = named_values.NAMING.search(text)
        while found is not None:
            names += 1
            if names > budget.TOKENS:
                return self._cut(parts, text, copied, found.start())
            following = named_values.NAMING.search(text, found.end())
            if self._is_secret(found["name"]):
                limit = len(text) if following is None else following.start()
                for start, end in self._held(text, found, copied, limit, lines):
                    if copied <= start < end and text[start:end] != self._mask:
                        parts += (text[copied:start], self._mask)
                        copied = end
                if following is not None and following.start() < copied:
                    following = named_values.NAMING.search(text, copied)
            found = following
        return "".join((*parts, text[copied:])) if parts else text

    def _held(
        self, text: str, named: re.Match[str], begin: int, limit: int, lines: _Lines
    ) -> Iterator[tuple[int, int]]:
        """Find the values that belong to a name, those before it in the same braces first."""
        opening = text.rfind("{", max(begin, named.start() - _NAMED_REACH), named.start())
        if opening >= 0:
            before = text[opening : named.start()]
            for held in named_values.HOLDING.finditer(before):
                start, end = self._value(before, held, _Lines(before))
                yield opening + start, opening + end
        reach = min(named.end() + _NAMED_REACH, limit)
        closing = text.find("}", named.end(), reach)
        position = named.end()
        while (
            held_after := named_values.HOLDING.search(text, position, reach if closing < 0 else closing)
        ) is not None:
            start, position = self._value(text, held_after, lines)
            yield start, position
            position = max(position, held_after.end())

    def scrub_quoted(self, text: str) -> str:
        """Return ``text`` without the values of sensitive names in it that were percent-encoded."""
        return self._scan(_QUOTED, text, self._decide_quoted) if "%" in text and "3" in text else text

    def _is_secret(self, name: str) -> bool:
        return self._names.decide(name) in ("secret", "secret_text")

    def _decide_quoted(self, match: re.Match[str]) -> Sensitivity:
        name = match["name"]
        for _ in range(budget.LAYERS):
            name = unquote_plus(name)
        found = _LAST_NAME.search(name[-_LABEL_REACH:])
        return "clean" if found is None else self._decide(found[1], match["sign"] in "dD")

    def _decide_above(self, match: re.Match[str]) -> Sensitivity:
        return self._names.decide(match["name"])

    def _scan(
        self, found_by: re.Pattern[str], text: str, decide: Callable[[re.Match[str]], Sensitivity]
    ) -> str:
        parts: list[str] = []
        copied = position = names = 0
        outer: re.Match[str] | None = None
        lines = _Lines(text)
        while (match := found_by.search(text, position)) is not None:
            names += 1
            if names > budget.TOKENS:
                return self._cut(parts, text, copied, match.start())
            position = match.end()
            sensitivity = decide(match)
            if sensitivity in ("clean", "allowed"):
                continue
            start, end = self._value(text, match, lines)
            if start < end and self._removes(sensitivity, text[start:end]):
                if outer is not None and not text[copied:start].strip(" \t"):
                    # Only blanks between two masks, `password=pin: x y`: both are one value.
                    end = self._grown(text, outer, end, lines)
                else:
                    parts += (text[copied:start], self._mask)
                    outer = match if start == match.end() else None
                copied = end
                if found_by is _HEAD:
                    end = _next_name(text, start, end, quoted=start > match.end())
            position = max(position, end)
        return "".join((*parts, text[copied:])) if parts else text

    def _cut(self, parts: list[str], text: str, copied: int, start: int) -> str:
        """Return what was searched, up to the name at ``start``, and say that the rest was not."""
        return "".join((*parts, budget.cut(text[copied:], max(0, start - copied), self._mask)))

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
        if name == self._mask:  # what stands before it is its name
            return "clean"
        before = text[start - 1] if start else ""
        found = self._decide(name, before in ("", "?", "&") and match["separator"] == "=")
        if found != "clean":
            return found
        label = _label(text, start, match.end("name"), before)
        return self._names.decide(label) if label else found

    def _removes(self, sensitivity: Sensitivity, value: str) -> bool:
        if sensitivity == "ambiguous":  # of a number that says little the words after it say no more
            value = value.split(None, 1)[0] if value.strip() else value
        return value != self._mask and removes_from_text(sensitivity, value)

    def _value(self, text: str, match: re.Match[str], lines: _Lines) -> tuple[int, int]:
        """Find where the value after a name and separator starts and ends; equal if none is to be removed."""
        start = match.end()
        if match.re.pattern == _QUOTED.pattern:
            return _quoted_value(text, match)
        end = start
        if text.startswith(self._mask, start):
            end += len(self._mask)  # perhaps a client's own: it does not shield what follows it
        elif (quote := _OPENING_QUOTE.match(text, start)) is not None:
            return _quoted_span(text, match, quote)
        elif (placeholder := _PLACEHOLDER.match(text, start)) is not None:
            return placeholder.end(), placeholder.end()
        elif text[start : start + 1] in _BRACKETS:
            end = balanced_end(text, start)
        else:
            option = _ARGUMENT.match(text, start)
            if option is not None and self._names.decide(option[1]) in SENSITIVE:
                return start, start  # `password= --token x`: what stands there has its own value behind
            below = self._below(text, match, lines)
            if below is not None:
                return below
        # Whatever would follow the mask and be taken for more of the value belongs to it at once: what has
        # been redacted is never redacted again.
        return start, self._grown(text, match, end, lines)

    def _grown(self, text: str, match: re.Match[str], end: int, lines: _Lines) -> int:
        """Return where a value ends of which what stands before ``end`` is known."""
        while end < len(text) and text[end] not in "\r\n":
            further = self._further(text, match, end, lines)
            if further == end:
                break
            end = further
        return end

    def _below(self, text: str, match: re.Match[str], lines: _Lines) -> tuple[int, int] | None:
        """Find the value on the lines below a name that stands on a line of its own; None if it does not."""
        separator = match.group().rstrip()[-1:]
        before = text[match.start() - 1] if match.start() else ""
        if separator not in "=:：" or (before in "?&" and separator == "=") or lines.is_source(match.start()):
            return None
        further = _LINE_BREAK.match(text, match.end())
        if further is None:
            return None
        line = lines.start(match.start())
        if _LABEL.fullmatch(text, line, match.start()) is None:
            return match.end(), match.end()
        return _block(text, line, further.end())

    def _further(self, text: str, match: re.Match[str], position: int, lines: _Lines) -> int:
        """Return where a plain value ends of which everything before ``position`` is known."""
        before = text[match.start() - 1] if match.start() else ""
        separator = match.group().rstrip()[-1:]
        if before in "?&" and separator == "=":
            end = _end(_IN_QUERY, text, _past_call(text, position))
            return end if before or text[end : end + 1] == "&" else _end(_MORE_WORDS, text, end)
        if lines.is_source(match.start()):
            return position
        if separator in ":：" and words(match[1]).endswith(_WHOLE_LINE):
            end = _end(_LINE, text, position)
            if before and before in "\"'":
                closing = text.find(before, position, end)
                return closing if closing >= 0 else end
            return end
        end = _end(_PLAIN, text, _past_call(text, position))
        if separator in "=:＝：﹦﹕" and end > match.end() and lines.begins(self._name_start(match, before)):
            end = _end(_MORE_WORDS, text, end)
        return end

    def _name_start(self, match: re.Match[str], before: str) -> int:
        """Return where a name starts, with the words before it that make it a sensitive one."""
        if self._names.decide(match[1]) != "clean":
            return match.start()
        end = match.end(1)
        return end - len(_label(match.string, match.start(), end, before))


def _next_name(text: str, start: int, end: int, *, quoted: bool) -> int:
    """Return where a name starts that was taken for a value, or for the end of one; without one ``end``.

    ``password= token="x"``, ``no token 'password': 'x'``, ``password: a /login?token=x``.
    """
    position = start
    while (match := _HEAD.search(text, position, end + _LABEL_REACH)) is not None and match.start() < end:
        if match.end() > end or (match.end() == end and not quoted):
            return match.start()
        position = match.end()
    return end


def _past_call(text: str, start: int) -> int:
    """Return where a value written as a call ends, ``UUID('x')``; ``start`` if it is none."""
    call = _CALL.match(text, start)
    return start if call is None else balanced_end(text, call.end())


def _end(shape: re.Pattern[str], text: str, start: int) -> int:
    found = shape.match(text, start)
    return start if found is None else found.end()


def _quoted_value(text: str, match: re.Match[str]) -> tuple[int, int]:
    opening = _QUOTED_OPENING.match(text, match.end())
    if opening is None:
        return match.end(), match.end()
    kind = "%" if opening[1] else match["sign"].upper()
    return opening.end(), _end(_QUOTED_VALUE[kind], text, opening.end())


def _block(text: str, line: int, start: int) -> tuple[int, int]:
    """Find the value on the lines after a name: all that are deeper, or the next one."""
    own = _indentation(text, line)
    first, end = -1, start
    position = start
    while position < len(text) and (found := _FURTHER_LINE.match(text, position)) is not None:
        content = found.start(2)
        if found[2]:
            deeper = _indentation(text, position) > own
            if not deeper and first >= 0:
                break
            if first < 0:
                if found[2][0] in "<" or (not deeper and _HEAD.match(text, content)):
                    return start, start
                quote = _OPENING_QUOTE.match(text, content)
                if quote is not None:
                    return quote.end(), _quoted_end(text, quote)
                first = content
            end = found.end(2)
            if not deeper:
                break
        position = found.end()
    return (first, end) if first >= 0 else (start, start)


def _indentation(text: str, line: int) -> int:
    found = _LINE_BEGIN.match(text, line)
    return 0 if found is None else found.end() - line


def _label(text: str, start: int, end: int, before: str) -> str:
    """Return a name of several words, ``API key: …``, ``mot de passe : …``, or a quoted one; or nothing."""
    if before and before in " '’":
        quote = text[end : end + 1]
        if before == " " and quote and quote in "\"'":
            opening = text.rfind(quote, max(0, start - _LABEL_REACH), start)
            return text[opening + 1 : end] if opening >= 0 else ""
        previous = _LAST_WORD.search(text, max(0, start - _LABEL_REACH), start - 1)
        return f"{previous.group()} {text[start:end]}" if previous is not None else ""
    return ""


def _quoted_span(text: str, match: re.Match[str], quote: re.Match[str]) -> tuple[int, int]:
    end = _quoted_end(text, quote)
    if match.group().rstrip()[-1:] == "," and _KEY_END.match(text, end) is not None:
        return match.end(), match.end()  # `"token", "value": …`: the key of another value
    return quote.end(), end


def _quoted_end(text: str, quote: re.Match[str]) -> int:
    backslashes, mark = quote.groups()
    if backslashes:  # quoted inside a quoted text
        end = text.find(backslashes + mark, quote.end())
        return len(text) if end < 0 else end
    found = _CLOSED_BY[mark].match(text, quote.end())
    return quote.end() if found is None else found.end()


_BRACKET_TOKEN = pattern(r"""[()\[\]{}]|"(?:[^"\\]|\\[\s\S])*+"?|'(?:[^'\\]|\\[\s\S])*+'?""")


def balanced_end(text: str, start: int) -> int:
    """Return where the bracket that opens at ``start`` is closed; the end of the text if it is not."""
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


class _Lines:
    """Knows the lines of a text, asked from its beginning to its end: each is looked at once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = -1  # of the line asked about last
        self._start = 0
        self._is_source = False

    def start(self, position: int) -> int:
        """Return where the line of ``position`` starts."""
        self._look(position)
        return self._start

    def begins(self, position: int) -> bool:
        """Say whether what is at ``position`` is the first on its line."""
        self._look(position)
        return (
            not self._text[self._start : position].strip(" \t-*>\"'")
            if position - self._start < 80
            else False
        )

    def is_source(self, position: int) -> bool:
        """Say whether ``position`` is on a line of source in a traceback: names there are beside names."""
        self._look(position)
        return self._is_source

    def _look(self, position: int) -> None:
        if position > self._end:
            text = self._text
            self._start = line = text.rfind("\n", 0, position) + 1
            end = text.find("\n", position)
            self._end = len(text) if end < 0 else end
            self._is_source = False
            if text.startswith("    ", line):
                previous = text.rfind("\n", 0, max(0, line - 1)) + 1
                self._is_source = text[previous:line].lstrip().startswith('File "')
