"""JSON as far as it goes: whole documents, their beginnings, and what only lenient readers take."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import msgspec

from otel_audit.large_values import LEFT_OUT
from otel_audit.redaction import named_values
from otel_audit.values import portable

LEVELS: Final = 24
"""Of a document that are read; redaction looks no deeper than 32."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\[\s\S])*+(?P<closed>"?)|[\[\]{},:]|[^\s\[\]{},:"]++')
_END: Final = {"{": "}", "[": "]"}
_PAIR: Final = 2
_LAST_BLANK: Final = re.compile(r"[ \t][^ \t]*+\Z")
_LONGEST_NUMBER: Final = 4000
_CONTAINERS: Final = frozenset({dict, list})
_decode: Final = msgspec.json.Decoder().decode


def read(content: bytes) -> Any:
    """Return the value of a document in UTF-8: of classes that JSON has, its floats finite.

    Raises:
        ValueError: it is not JSON, or not in UTF-8, or :func:`read_either` might take it.
        RecursionError: it is nested too deep.
    """
    return _decode(content)


def read_either(text: str) -> Any:
    """Return the value of a document that may have what only Python's own reader takes.

    NaN, half a surrogate pair, line breaks in texts.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep.
    """
    with suppress(ValueError):
        return _decode(text)
    return portable(json.loads(text, strict=False, parse_int=_number))


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else digits


def prune(value: Any) -> str:
    """Take away, in place, what is nested deeper than is read; return what in words, empty if nothing."""
    level: list[Any] = [value] if type(value) is dict or type(value) is list else []
    for _ in range(LEVELS):
        parts = list(chain.from_iterable([each.values() if type(each) is dict else each for each in level]))
        if _CONTAINERS.isdisjoint(map(type, parts)):
            return ""
        level = [part for part in parts if type(part) is dict or type(part) is list]
    for container in level:
        container.clear()
        if type(container) is list:
            container.append(LEFT_OUT)
        else:
            container[LEFT_OUT] = LEFT_OUT
    return f"more than {LEVELS} levels"


class Beginning:
    """The beginning of a document, as JSON: what was complete, and the texts that were cut.

    Up to where it is cut off, nested too deep or wrong. :attr:`text` is JSON; :attr:`open` says how many
    containers the beginning has opened and not closed.
    """

    __slots__ = ("open", "text")

    def __init__(self, text: str) -> None:
        stack: list[_Open] = []  # innermost last
        end = 0  # of what is whole, and closed by closing what is open
        tail = before = ""
        at_comma = False
        for match in _TOKEN.finditer(text):
            sign = match.group()
            if sign in "{[":
                if len(stack) >= LEVELS:
                    break
                stack.append(_Open(sign, match.start()))
                end, at_comma = match.end(), False
            elif sign in "}]":
                if not stack or _END[stack[-1].bracket] != sign:
                    break
                stack.pop()
                end, at_comma = match.end(), False
                if not stack:
                    break
            elif sign == ",":
                if not stack:
                    break
                end, at_comma = match.start(), True
                stack[-1].items += 1
            elif sign[0] == '"' and not match["closed"]:
                inside = stack[-1].bracket if stack else ""
                if before == ":" or (inside == "[" and before in "[,"):
                    tail, end, at_comma = sign, match.start(), False
                break
            before = sign
        if at_comma:
            stack[-1].items -= 1
        if tail and _is_half_a_pair(stack, _PAIR - 1):
            tail = ""
        whole = text[:end].rstrip()
        while not tail and _is_half_a_pair(stack, _PAIR):
            whole = text[: stack.pop().start].rstrip().rstrip(",")
        self.open = len(stack)
        self.text = whole + _cut_text(tail) + "".join([_END[each.bracket] for each in reversed(stack)])


class _Open:
    """A container that is open: its bracket, where that is, and how many items have begun."""

    __slots__ = ("bracket", "items", "start")

    def __init__(self, bracket: str, start: int) -> None:
        self.bracket = bracket
        self.start = start
        self.items = 1


def _is_half_a_pair(stack: list[_Open], items: int) -> bool:
    """Say whether what is open may be a pair of name and value of which one is missing.

    It would keep all other pairs of the list from being known as such.
    """
    return len(stack) > 1 and stack[-1].bracket == stack[-2].bracket == "[" and stack[-1].items <= items


def _cut_text(tail: str) -> str:
    if not tail:
        return ""
    found = _LAST_BLANK.search(tail)  # a sign that is cut off could not be recognized
    return '"' + (tail[1 : found.start()] if found is not None else "") + f'{LEFT_OUT}"'


def _is_cut(value: Any) -> bool:
    return type(value) is str and value.endswith(LEFT_OUT)


def mask_unnamed(value: Any, levels: int, mask: str) -> None:
    """Remove values whose name may stand in the part that was cut off: ``{"value": "x", …``, in place."""
    for _ in range(levels):
        if type(value) is dict:
            last = next(reversed(value), "")
            named = value
            if _is_cut(value.get(last)):  # a name, perhaps
                named = {key: item for key, item in value.items() if key != last}
            for key in named_values.without_name(named):
                value[key] = mask
            value = value.get(last)
        elif type(value) is list and value:
            value = value[-1]
        else:
            return
