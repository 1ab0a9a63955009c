"""Command lines without secrets: ``--password x``, ``--token=x``, ``KEY=x``, ``mysql -px``, addresses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from otel_audit.http.contents.shortening import Shortened
from otel_audit.long_texts import head_of
from otel_audit.redaction.names import removes
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import plain_text

LIMIT: Final = 8 * 1024
"""Bytes of all arguments together."""
_BLANK: Final = re.compile(r"[\s\"']")
_JOINT: Final = "\ue000"
"""Of private use: no text that people write has it."""
_MAX_ARGUMENTS: Final = 1000
_LONGEST: Final = 16 * 1024
"""Characters of one argument that are looked at."""


def arguments(argv: Iterable[Any], redactor: ValueRedactor, secret: Collection[str] = ()) -> list[str]:
    """Return arguments without secrets; as for :meth:`otel_audit.http.contents.Contents.arguments`."""
    given = [_text(item) for item in islice(argv, _MAX_ARGUMENTS + 1)]
    more = len(given) > _MAX_ARGUMENTS
    if more:
        given.pop()
    made: list[str] = []
    expected = False  # whether the next argument is the value of a secret option
    for item in _without_short(given, redactor):
        if expected and not _is_option(item):
            made.append(redactor.mask)
            expected = False
            continue
        name, equals, value = item.partition("=")
        bare = name.lstrip("-")
        is_secret = name in secret or redactor.is_secret(bare)
        if equals and is_secret and (name in secret or removes(redactor.names.decide(bare), value)):
            made.append(f"{name}={redactor.mask}")
        elif not equals and name in secret and name.startswith("-"):
            made.append(item)
        else:
            made.append(_attached(item, secret, redactor))
        expected = not equals and name.startswith("-") and is_secret
    if more:
        made.append("…")
    short = Shortened(made, LIMIT).value  # type: ignore[arg-type]
    return short if isinstance(short, list) else []  # type: ignore[return-value]


def _text(item: Any) -> str:
    kind = type(item)
    text: str
    if kind is str:
        text = item
    elif issubclass(kind, str):
        text = str.__str__(item)
    elif kind is bytes:
        text = item[:_LONGEST].decode("utf-8", "replace")
    elif kind in (int, float, bool, type(None)):
        text = str(item)
    else:
        return f"<{kind.__qualname__}>"
    if len(text) > _LONGEST:
        text = head_of(text, _LONGEST)
    return plain_text(text)


def _is_option(item: str) -> bool:
    """Say whether an argument is an option for certain: a secret may begin with a dash, too."""
    return item.startswith("--") or (len(item) == 2 and item[0] == "-")


def _attached(item: str, secret: Collection[str], redactor: ValueRedactor) -> str:
    """Redact an argument that is no secret as a whole: ``-pSECRET``, an address, JSON, a header."""
    for option in secret:
        if len(option) == 2 and item.startswith(option) and len(item) > 2:
            return option + redactor.mask
    return redactor.text(item)


def _without_short(given: Sequence[str], redactor: ValueRedactor) -> Sequence[str]:
    """Redact short options of programs whose meaning is known: ``mysql -px``, ``curl -u name:x``."""
    if not redactor.builtin or not any(item.startswith("-") for item in given):
        return given
    whole = [_BLANK.sub(_JOINT, item) for item in given]  # a value may have blanks and quotes
    shown = redactor.options(" ".join(whole)).split(" ")
    if len(shown) != len(given):  # the replacement has blanks
        return [redactor.mask for _ in given]
    return [
        item if new == old else new.replace(_JOINT, " ")
        for item, old, new in zip(given, whole, shown, strict=True)
    ]
