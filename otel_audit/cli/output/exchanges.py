"""What a record keeps of a request, call, command or task: headers, bodies, arguments, output, exception.

Everything is shown as it was recorded, over several lines where it has several, and comes out safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from otel_audit.cli.output.safe import safe, safe_lines
from otel_audit.cli.output.sizes import size
from otel_audit.cli.output.work import duration
from otel_audit.semconv import (
    ARGUMENTS,
    DURATION,
    EXCEPTION_TYPE,
    OUTPUT,
    REQUEST_BODY,
    REQUEST_HEADER,
    RESPONSE_BODY,
    RESPONSE_HEADER,
    TASK_RESULT,
)

_HEADERS: Final = {
    "Request headers": REQUEST_HEADER,
    "Response headers": RESPONSE_HEADER,
}
_BLOCKS: Final = {
    "Request body": REQUEST_BODY,
    "Response body": RESPONSE_BODY,
    "Arguments": ARGUMENTS,
    "Result": TASK_RESULT,
    "Output": OUTPUT,
}
_EXCEPTION: Final = (EXCEPTION_TYPE, "exception.message", "exception.stacktrace")
_INDENT: Final = "  "


def blocks(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the parts that take several lines: the heading of each, and its text, indented and safe."""
    for heading, prefix in _HEADERS.items():
        found = {name: value for name, value in attributes.items() if name.startswith(prefix)}
        if found:
            lines = (f"{name.removeprefix(prefix)}: {_short(value)}" for name, value in found.items())
            yield heading, _indented("\n".join(map(safe, lines)))
    for heading, name in _BLOCKS.items():
        if name in attributes and attributes[name] not in ("", None):
            yield heading, _indented(pretty(attributes[name]))
    kind, message, stack = (attributes.get(name, "") for name in _EXCEPTION)
    if kind or message or stack:
        head = ": ".join(safe(each) for each in (kind, message) if each)
        yield "Exception", _indented("\n".join(filter(None, (pretty(stack) if stack else "", head))))


def facts(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the other attributes, by name; durations and sizes as people read them."""
    for name, value in attributes.items():
        if name in (*_BLOCKS.values(), *_EXCEPTION) or name.startswith((*_HEADERS.values(),)):
            continue
        if name == DURATION and _is_number(value):
            yield name, duration(value)
        elif name.endswith(".size") and isinstance(value, int) and _is_number(value):
            yield name, size(value)
        else:
            yield name, value


def pretty(value: Any) -> str:
    """Write a value over several lines: text as it is, anything else as indented JSON."""
    if isinstance(value, str):
        return safe_lines(value.replace("\r\n", "\n").rstrip("\n"))
    return safe_lines(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _indented(text: str) -> str:
    return "\n".join(f"{_INDENT}{line}" for line in text.split("\n"))
