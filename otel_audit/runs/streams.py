"""What is written to a text stream, seen as it is written: the stream stays the same object.

``write`` of the stream itself is replaced, so all that holds the stream is seen: ``print``, Django's
``self.stdout``, ``click.echo``, handlers of logging. What is written past it is not: by a subprocess, by
``os.write``, as bytes.

A Python function around each write may cost more than the write. So after some writes per round only the
blocks are looked at that go to the buffer below (``bytes``), what a ``StringIO`` holds is read at the end
of the round (``held``), and where there is no buffer writes are put into a list (``fast``). Each round
(:meth:`Tap.renew`) begins with every write again.

A pipe that is closed breaks where it would without us: we go from writes to blocks when the stream has just
given what it held. It is flushed at the end of a run, and after a round in which blocks were looked at.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from itertools import pairwise
from types import BuiltinMethodType
from typing import Any, Final, Literal

from otel_audit import forks
from otel_audit.interruptions import faults
from otel_audit.runs.blocks import Blocks
from otel_audit.runs.printed import Printed

_WRITES: Final = 1000
"""Writes that are looked at one by one, per round."""
_FAST: Final = 512
_LONG: Final = 4096
_ROOM: Final = 32 * 1024
"""Characters that are put aside, each write counted as one more: as few as that are soon at hand again."""
_BUFFERS: Final = (io.BufferedWriter, io.BufferedRandom, io.BytesIO)
_UTF8: Final = ("utf-8", "UTF-8", "utf8", "ascii")
_ABSENT: Final = object()

_printing: ContextVar[Printed | None] = ContextVar("otel_audit_printing", default=None)
"""Where what the current run prints is kept; None if it is not."""


class _Writing(threading.local):
    """The runs that get what this thread is writing, of a stream further out: one may write to another."""

    given: tuple[Printed, ...] = ()


_writing = _Writing()


class Tap:
    """One stream that is looked at, for all the runs that print to it."""

    def __init__(self, stream: Any) -> None:
        """Look at a stream.

        Raises:
            AttributeError, TypeError: its methods cannot be replaced.
        """
        self.stream = stream
        self._attributes: dict[str, Any] = vars(stream)
        self._write = stream.write
        self._before = self._set = self._attributes.get("write", _ABSENT)
        self._mutex = threading.RLock()
        self._outputs: list[Printed] = []
        self._count = 0
        self._mode: Literal["text", "fast", "bytes", "held"] = "text"
        self._held = 0
        self._pieces: list[str] = []
        self._blocks: Blocks | None = None
        self._given = 0
        """How many blocks there were after the last write that was looked at."""
        self._replace(self._written)

    @property
    def is_used(self) -> bool:
        """Whether any run prints to the stream."""
        return bool(self._outputs)

    def attach(self, printed: Printed) -> None:
        """Keep what a run prints from now on."""
        with self._mutex:
            self._collect()
            self._outputs.append(printed)
            if not self._is_chain():
                self.renew()

    def detach(self, printed: Printed) -> None:
        """Keep it no longer."""
        with self._mutex:
            if self._mode == "bytes":
                self._flush()
            self._collect()
            self._outputs.remove(printed)

    def close(self) -> None:
        """Leave the stream as it was; where somebody has wrapped our function, it stays and keeps nothing."""
        if self._blocks is not None:
            self._blocks.close()
        self._replace(self._before)

    def renew(self) -> None:
        """Begin another round. Any thread may call, whatever is being written just now."""
        with self._mutex:
            self._count = 0
            self._collect()
            if self._mode in ("fast", "held"):
                self._mode = "text"
                self._replace(self._written)
            elif self._mode == "bytes":
                self._replace(self._resume)
            elif self._blocks is not None:
                self._blocks.close()
                self._blocks = None

    def begin_in_child(self) -> None:
        """Forget who held a lock when the process was forked."""
        self._mutex = threading.RLock()
        for printed in self._outputs:
            printed.begin_in_child()

    # --- what stands in for write() ------------------------------------------------------------

    def _replace(self, write: Any) -> bool:
        """Have the stream written to by ``write``; False if somebody has replaced ours."""
        if self._attributes.get("write", _ABSENT) is not self._set:
            return False
        self._set = write
        if write is _ABSENT:
            self._attributes.pop("write", None)
        else:
            self._attributes["write"] = write
        return True

    def _written(self, text: str, /) -> Any:
        """Write, and keep what was written."""
        given = _writing.given
        takers = self._takers(given)
        _writing.given = (*given, *takers)
        blocks = self._blocks.count if self._blocks is not None else 0
        try:
            done = self._write(text)
        finally:
            _writing.given = given
        try:
            self._note(text, takers, blocks)
        except faults():  # it is written; the record has less
            pass
        return done

    def _note(self, text: str, takers: list[Printed], blocks: int) -> None:
        """Keep a text, before which there were so many blocks."""
        if type(text) is not str:
            text = str.__str__(text)
        self._count += 1
        if self._count > _WRITES and self._mode == "text":
            with self._mutex:
                if self._is_chain() and self._hurry(text, blocks):
                    return
        for printed in takers:
            printed.add(text)

    def _hurry(self, text: str, blocks: int) -> bool:
        """Look at less, until the next round; say whether the last text is going to be seen once more."""
        stream = self.stream
        if type(stream) is io.StringIO:
            if self._replace(self._before):
                self._mode, self._held = "held", stream.tell()
        elif not isinstance(stream, io.TextIOWrapper):
            pass  # a class of the application's: it costs more than we do
        elif stream.write_through:
            if self._replace(self._fast()):
                self._mode = "fast"
        elif self._blocks is not None:
            given, self._given = self._given, self._blocks.count
            if given != self._given and self._replace(self._before):
                self._blocks.take()
                self._mode = "bytes"
                return self._is_held(text, blocks)
        elif isinstance(stream.buffer, _BUFFERS):
            self._blocks, self._given = Blocks(stream.buffer, self._keep()), 0
        return False

    def _is_held(self, text: str, blocks: int) -> bool:
        """Say whether the stream holds a text, and nothing else: it has given to its buffer what it held.

        A text that makes it more than a chunk waits alone; one that fills it to the brim, or ends a line
        where lines are flushed, has gone with the rest.
        """
        assert self._blocks is not None
        if self._blocks.count == blocks:  # it was flushed before
            return True
        if self.stream.line_buffering and ("\n" in text or "\r" in text):
            return False
        return self._blocks.last < int(self.stream._CHUNK_SIZE)

    def _keep(self) -> int:
        return max(printed.keep for printed in self._outputs)

    def _fast(self) -> Callable[[str], Any]:
        original, pieces, collect, string = self._write, self._pieces, self._put_aside, str
        append, room = pieces.append, _ROOM

        def write_and_count(text: str, /) -> Any:
            # The stream says how much it has written, which is quicker than asking the text.
            nonlocal room
            done = original(text)
            append(text)
            room -= done + 1
            if room < 0:
                room = _ROOM
                collect("")
            return done

        if type(self.stream) is io.TextIOWrapper and isinstance(original, BuiltinMethodType):
            return write_and_count

        def write(text: str, /) -> Any:
            done = original(text)
            if type(text) is string and len(text) < _LONG and len(pieces) < _FAST:
                append(text)
            else:
                collect(text)
            return done

        return write

    def _put_aside(self, text: str) -> None:
        try:
            with self._mutex:
                self._pieces.append(text if type(text) is str else str.__str__(text))
                self._collect()
        except faults():
            pass

    def _resume(self, text: str, /) -> Any:
        """Write, after what the stream holds, and look at every write again."""
        try:
            with self._mutex:
                if self._blocks is not None:
                    self._flush()
                    self._collect()
                    self._blocks.close()
                    self._blocks = None
                    self._mode = "text"
                    self._replace(self._written)
        except faults():
            pass
        return self._written(text)

    # --- whose it is ---------------------------------------------------------------------------

    def _flush(self) -> None:
        """Have the stream give what it holds to its buffer, as it will do next anyway."""
        with suppress(OSError, ValueError):  # a closed pipe or file: the application's next write says so
            self.stream.flush()

    def _collect(self) -> None:
        """Give the runs what was put aside; one called the other, so it is the innermost that prints."""
        dropped = 0
        put_aside: str | bytes = ""
        if self._pieces:
            put_aside = "".join(self._pieces)
            self._pieces.clear()
        elif self._mode == "bytes" and self._blocks is not None:
            blocks, dropped = self._blocks.take()
            encoding = self.stream.encoding
            put_aside = blocks if encoding in _UTF8 else blocks.decode(encoding, "replace")
        elif self._mode == "held":
            value: str = self.stream.getvalue()
            begin = max(self._held, len(value) - self._keep())
            put_aside, dropped, self._held = value[begin:], max(0, begin - self._held), len(value)
        if put_aside:
            for printed in self._outputs:
                printed.add(put_aside, dropped)

    def _takers(self, given: tuple[Printed, ...]) -> list[Printed]:
        """Return the runs that print what is written now: the current one, and those around it."""
        outputs = self._outputs
        found = []
        printed = _printing.get()
        while printed is not None:
            if printed in outputs:
                found.append(printed)
            printed = printed.parent
        if not found:  # a thread of a run's own, or ours
            roots = self._roots()
            found = roots if len(roots) == 1 else []
        return [printed for printed in found if printed not in given] if given else found

    def _is_chain(self) -> bool:
        """Say whether each run was begun by the one before: there is no doubt who prints."""
        return all(inner.parent is outer for outer, inner in pairwise(self._outputs))

    def _roots(self) -> list[Printed]:
        return [printed for printed in self._outputs if printed.parent not in self._outputs]


# --- the streams of this process -----------------------------------------------------------------

_mutex = threading.RLock()
_taps: Final[dict[int, Tap]] = {}


def _begin_in_child() -> None:
    global _mutex  # noqa: PLW0603 - whoever held it is the parent's
    _mutex = threading.RLock()
    for tap in _taps.values():
        tap.begin_in_child()


forks.after_in_child(_begin_in_child)


class Listening:
    """What a run prints to some streams, kept from :meth:`begin` to :meth:`end`.

    Args:
        limit: how many characters are recorded at most.
    """

    __slots__ = ("_taps", "_token", "printed")

    def __init__(self, limit: int) -> None:
        self.printed = Printed(limit, _printing.get())
        self._taps: list[Tap] = []
        self._token: Token[Printed | None] | None = None

    def begin(self, *streams: Any) -> None:
        """Look at the streams of this process, and at those given."""
        self._token = _printing.set(self.printed)
        for stream in (sys.stdout, sys.stderr, *streams):
            with _mutex:
                self._attach(stream)

    def _attach(self, stream: Any) -> None:
        tap = _taps.get(id(stream))
        if tap in self._taps:
            return
        try:
            if tap is None:
                tap = _taps[id(stream)] = Tap(stream)
        except faults():  # no stream, or one whose methods cannot be replaced: what it writes is not seen
            return
        tap.attach(self.printed)
        self._taps.append(tap)

    def renew(self) -> None:
        """Look at every write again: to be called every few seconds."""
        for tap in self._taps:
            tap.renew()

    def end(self) -> None:
        """Leave the streams as they were before."""
        for tap in self._taps:
            tap.detach(self.printed)
            with _mutex:
                if not tap.is_used and _taps.pop(id(tap.stream), None) is not None:
                    tap.close()
        if self._token is not None:
            with suppress(ValueError):  # ended in another context than it began in
                _printing.reset(self._token)
