"""An exception without secrets: its type, message and last frames; nothing its class defines is called."""

from __future__ import annotations

from collections import deque
from types import FrameType, TracebackType
from typing import Any, Final

import msgspec

from otel_audit import semconv
from otel_audit.http.contents.parameters import plain
from otel_audit.http.contents.shortening import shortened_text
from otel_audit.interruptions import faults
from otel_audit.long_texts import head_of
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import Portable, plain_text

_MESSAGE: Final = 2 * 1024
_STACK: Final = 5 * 1024
_TYPE: Final = 256
_LONGEST: Final = 16 * 1024
"""Characters of a message that are looked at."""
_FRAMES: Final = 12
_ARGS: Final = 8
_CAUSES: Final = 3
_MOST_FRAMES: Final = 100_000
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def exception(error: BaseException, redactor: ValueRedactor) -> dict[str, str]:
    """Return the attributes ``exception.type``, ``.message`` and ``.stacktrace``, of at most 8 KiB."""
    try:
        message = _message(error)
        lines = [f'  File "{name}", line {line}, in {function}' for name, line, function in _frames(error)]
        lines += _causes(error)
        stack = redactor.text("\n".join(lines))
        made = {
            semconv.EXCEPTION_TYPE: _name(type(error))[:_TYPE],
            semconv.EXCEPTION_MESSAGE: shortened_text(redactor.text(message), _MESSAGE)[0],
            semconv.EXCEPTION_STACKTRACE: shortened_text(stack, _STACK)[0],
        }
    except faults():
        return {semconv.EXCEPTION_TYPE: _name(type(error))[:_TYPE]}
    return {name: text for name, text in made.items() if text}


def _name(kind: type) -> str:
    module = str(type.__getattribute__(kind, "__module__"))
    name = str(type.__getattribute__(kind, "__qualname__"))
    return name if module == "builtins" else f"{module}.{name}"


def _message(error: BaseException) -> str:
    """Return what an exception was made with: its ``__str__`` may be the application's."""
    args: tuple[Any, ...] = _of(error, "args")
    if isinstance(error, OSError) and len(args) >= 2:
        return ": ".join([_part(arg) for arg in args[:2]])
    return ", ".join([_part(arg) for arg in args[:_ARGS] if arg is not None])


def _of(error: BaseException, name: str) -> Any:
    """Return what an exception has by itself, whatever its class makes of the name."""
    return vars(BaseException)[name].__get__(error)


def _part(arg: Any) -> str:
    kind = type(arg)
    if kind in _PLAIN:
        text = arg if kind is str else str(arg)
    elif issubclass(kind, str):
        text = str.__str__(arg)
    else:
        text = _written(plain(arg))
    text = text if len(text) <= _LONGEST else head_of(text, _LONGEST) + "…"
    return plain_text(text)


def _written(value: Portable) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _frames(error: BaseException) -> list[tuple[str, int, str]]:
    last: deque[TracebackType] = deque(maxlen=_FRAMES)
    traceback: TracebackType | None = _of(error, "__traceback__")
    for _ in range(_MOST_FRAMES):
        if traceback is None:
            break
        last.append(traceback)
        traceback = traceback.tb_next
    return [_frame(each.tb_frame, each.tb_lineno) for each in last]


def _frame(frame: FrameType, line: int | None) -> tuple[str, int, str]:
    return frame.f_code.co_filename, line or 0, frame.f_code.co_qualname


def _causes(error: BaseException) -> list[str]:
    """Say what an exception was raised from, or while handling what."""
    lines: list[str] = []
    seen = {id(error)}
    while len(lines) < _CAUSES:
        cause: BaseException | None = _of(error, "__cause__")
        following = cause
        if cause is None and not _of(error, "__suppress_context__"):
            following = _of(error, "__context__")
        if following is None or id(following) in seen:
            break
        how = "caused by" if cause is not None else "while handling"
        lines.append(f"{how} {_name(type(following))}: {_message(following)[:512]}")
        seen.add(id(following))
        error = following
    return lines
