"""Which exceptions are faults of ours, and which interrupt us and are the application's.

``except Exception`` around our own work also catches what a signal handler raises at that very moment: a
soft time limit (Celery, RQ), ``signal.alarm``. Nobody but the application may handle that. Such an exception
can be told by its traceback alone:

- Python calls a signal handler with the frame it interrupts; no other function is called with a frame of the
  traceback it appears in.
- ``PyThreadState_SetAsyncExc`` raises a class between two instructions: no code of the package that defines
  the class stands in the traceback.

What code of the application raises that we call on purpose (``__str__``, a lazy text, a hook, a method of a
field) is neither: it costs detail, and goes no further.
"""

from __future__ import annotations

import dis
import sys
from types import FrameType, TracebackType
from typing import Final

_PACKAGE: Final = __name__.partition(".")[0]
_BELOW: Final = sys.stdlib_module_names | {_PACKAGE, "django", "msgspec", "opentelemetry", "sqlalchemy"}
"""Packages whose code, in Python or C, raises only exceptions of its own or of what it calls."""
_VARARGS: Final = 0x04


class _Nothing(Exception):
    """Is never raised: ``except _Nothing`` catches nothing."""


def faults() -> type[Exception]:
    """Return what an ``except`` clause around our own work may catch, decided as the exception comes.

    That is :class:`Exception`, unless the exception being handled is an interruption, which passes.
    """
    error = sys.exception()
    return _Nothing if error is not None and interrupts(error) else Exception


def interrupts(error: BaseException) -> bool:
    """Say whether an exception caught around our own work is an interruption: the application's, not ours.

    Every :class:`BaseException` that is no :class:`Exception` is one.
    """
    if not isinstance(error, Exception):
        return True
    frames: list[FrameType] = []
    last: TracebackType | None = None
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frames and _was_given_one_of(frames, frame):
            return True
        frames.append(frame)
        last, traceback = traceback, traceback.tb_next
    return last is not None and _came_between_instructions(error, frames, last)


def _was_given_one_of(frames: list[FrameType], frame: FrameType) -> bool:
    """Say whether the function of ``frame`` was called with one of ``frames``, as a signal handler is."""
    code = frame.f_code
    if _root(frame) == _PACKAGE:
        return False
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    arguments = [frame.f_locals.get(name) for name in names]
    if code.co_flags & _VARARGS:
        more = frame.f_locals.get(code.co_varnames[len(names)])
        arguments.extend(more if type(more) is tuple else ())
    return any(argument is above for argument in arguments for above in frames)


def _came_between_instructions(error: Exception, frames: list[FrameType], last: TracebackType) -> bool:
    """Say whether an exception stands where no code raises it, as one set from another thread does."""
    package = type(error).__module__.partition(".")[0]
    roots = {_root(frame) for frame in frames}
    if package in _BELOW or package in roots or _root(last.tb_frame) not in _BELOW:
        return False
    code = last.tb_frame.f_code.co_code
    instruction = dis.opname[code[last.tb_lasti]] if 0 <= last.tb_lasti < len(code) else ""
    # Elsewhere it is not delivered: what COMPARE_OP raises comes from an object compared.
    return instruction.startswith(("CALL", "PRECALL", "RESUME", "JUMP_BACKWARD"))


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__") or "").partition(".")[0]
