"""What a run prints is seen as it is written, and the stream is the same object as before."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click
import pytest

from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents
from otel_audit.runs.streams import Listening

CONTENTS = Contents.of(AuditConfig())


@contextlib.contextmanager
def listening(*streams: Any, limit: int = 16384) -> Iterator[Listening]:
    made = Listening(limit)
    # Standard error as well: what an earlier test has left may log to that of this process at any time.
    with (
        contextlib.redirect_stdout(_Standard.output or sys.stdout),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        made.begin(*streams)
        try:
            yield made
        finally:
            made.end()


class _Standard:
    """Standard output while a test listens; pytest sets its own after the fixtures."""

    output: Any = None


def text(made: Listening) -> str:
    return made.printed.text(CONTENTS)


@pytest.fixture(params=["pipe", "unbuffered", "terminal", "StringIO"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Standard output, as processes have it."""
    made: Any
    if request.param == "StringIO":
        made = io.StringIO()
    else:
        made = io.TextIOWrapper(
            io.BufferedWriter(_Raw()) if request.param != "unbuffered" else io.BytesIO(),
            encoding="utf-8",
            errors="surrogateescape",
            write_through=request.param == "unbuffered",
            line_buffering=request.param == "terminal",
        )
    monkeypatch.setattr(_Standard, "output", made)
    return made


class _Raw(io.RawIOBase):
    """Takes bytes as a file does."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)
        return len(data)


def came_out(stream: Any) -> str:
    if isinstance(stream, io.StringIO):
        return stream.getvalue()
    stream.flush()
    below = stream.buffer
    data = below.getvalue() if isinstance(below, io.BytesIO) else below.raw.taken
    return bytes(data).decode("utf-8", "surrogateescape")


def test_all_ways_to_print_are_seen_in_their_order(stream: Any) -> None:
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger(f"{__name__}.{id(stream)}")
    logger.addHandler(handler)
    with listening() as made:
        print("one", 1)
        sys.stdout.write("two\n")
        click.echo("three")
        sys.stdout.writelines(["four\n", "five\n"])
        logger.warning("six")
        print("seven", end="", flush=True)
    assert text(made) == "one 1\ntwo\nthree\nfour\nfive\nsix\nseven"
    assert came_out(stream) == text(made)


def test_the_stream_is_the_same_and_says_the_same(stream: Any) -> None:
    before = (stream, dict(vars(stream)), stream.isatty(), stream.encoding, stream.errors, stream.newlines)
    with listening():
        assert sys.stdout is before[0]
        print("x")
        during = (sys.stdout.isatty(), stream.encoding, stream.errors, stream.newlines)
        assert during == before[2:]
        with pytest.raises((OSError, io.UnsupportedOperation)):
            stream.fileno()
    assert vars(stream) == before[1]


@pytest.mark.parametrize("rounds", [1, 3])
def test_much_is_seen_from_its_end_and_nothing_is_lost_or_moved(stream: Any, rounds: int) -> None:
    said = []
    with listening(limit=2000) as made:
        for part in range(rounds):
            for number in range(5000):
                print("line", part, number)
                said.append(f"line {part} {number}\n")
            made.renew()
        print("last")
    everything = "".join(said) + "last\n"
    assert came_out(stream) == everything
    assert made.printed.size == len(everything)
    kept = text(made)
    assert kept.startswith(f"… ({len(everything)} characters)\n")
    assert everything.endswith(kept.partition("\n")[2])
    assert len(kept) > 1900
    assert "write" not in vars(stream)
    assert not hasattr(stream, "buffer") or "write" not in vars(stream.buffer)


@pytest.mark.parametrize("line_buffering", [False, True])
@pytest.mark.parametrize("flushes", [0, 1, 7, 1500])
@pytest.mark.parametrize("length", [1, 64, 8191, 8192, 10_000])
def test_no_text_is_seen_twice_wherever_the_stream_gives_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, length: int, flushes: int, line_buffering: bool
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", line_buffering=line_buffering)
    monkeypatch.setattr(_Standard, "output", stream)
    said = []
    with listening(limit=200) as made:
        for number in range(2900):
            said.append(f"{number:>{length}}" + "\n" * (number % 3 == 0))
            stream.write(said[-1])
            if flushes and number % flushes == 0:
                stream.flush()
            if number == 1700:
                made.renew()
    assert made.printed.size == len("".join(said))
    assert text(made).partition("\n")[2] == "".join(said)[-len(text(made).partition("\n")[2]) :]
    stream.flush()
    assert stream.buffer.getvalue().decode() == "".join(said)
    assert "write" not in vars(stream)
    assert "write" not in vars(stream.buffer)


def test_when_it_prints_less_again_each_line_is_seen_at_once(stream: Any) -> None:
    with listening(limit=2000) as made:
        for number in range(3000):
            print("line", number)
        made.renew()
        print("slowly")
        made.renew()
        assert text(made).endswith("line 2999\nslowly\n")


def test_text_of_other_encodings_is_read_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(_Standard, "output", stream)
    with listening() as made:
        for _ in range(3000):
            print("grün")
    assert set(text(made).splitlines()[2:]) == {"grün"}


def test_what_cannot_be_written_raises_as_before_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(_Standard, "output", stream)
    with listening() as made:
        with pytest.raises(UnicodeEncodeError):
            print("grün", end="")
        with pytest.raises(TypeError):
            sys.stdout.write(7)  # type: ignore[arg-type]
        print("green")
    assert text(made) == "green\n"


def test_nothing_of_a_text_is_called(stream: Any) -> None:
    class Text(str):
        __slots__ = ()

        def __len__(self) -> int:
            raise RuntimeError("not for audit")

        def __str__(self) -> str:
            raise RuntimeError("not for audit")

        __getitem__ = __repr__ = __format__ = __str__  # type: ignore[assignment]

    with listening() as made:
        for _ in range(1500):
            sys.stdout.write(Text("safe\n"))
    assert text(made).endswith("safe\nsafe\n")
    assert came_out(stream) == "safe\n" * 1500


def test_threads_print_for_their_run(stream: Any) -> None:
    with listening() as made:
        threads = [threading.Thread(target=print, args=(f"thread {number}",)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(text(made).split()) == sorted(["thread", *"01234"] + ["thread"] * 4)


def test_runs_beside_each_other_keep_what_they_print_themselves(stream: Any) -> None:
    texts: dict[str, str] = {}
    barrier = threading.Barrier(3)

    def run(name: str) -> None:
        with listening() as made:
            barrier.wait()
            for _ in range(2000):
                print(name)
            barrier.wait()
        texts[name] = text(made)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("ann", "bob", "cyd")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, kept in texts.items():
        assert set(kept.replace("\n", " ").split()) == {name}
    assert "write" not in vars(stream)


def test_what_an_inner_run_prints_the_outer_one_has_printed_too(stream: Any) -> None:
    with listening() as outer:
        print("before")
        with listening() as inner:
            print("inside")
        print("after")
    assert text(outer) == "before\ninside\nafter\n"
    assert text(inner) == "inside\n"


def test_what_goes_into_a_stream_of_its_own_is_the_inner_ones_alone(stream: Any) -> None:
    own = io.StringIO()
    with listening() as outer:
        with listening(own) as inner:
            print("kept", file=own)
        print("shown")
    assert (text(inner), text(outer), own.getvalue()) == ("kept\n", "shown\n", "kept\n")


def test_a_stream_that_writes_to_another_is_seen_once(stream: Any) -> None:
    class Wrapper:
        def write(self, text: str) -> int:
            return int(stream.write(text.upper()))

        def flush(self) -> None:
            stream.flush()

    wrapper = Wrapper()
    with listening() as outer:
        with listening(wrapper) as inner:
            print("inside", file=wrapper)
        print("after")
    assert text(inner) == "inside\n"
    assert text(outer) == "INSIDE\nafter\n"
    assert vars(wrapper) == {}


def test_a_write_of_somebodys_over_ours_stays(stream: Any) -> None:
    seen = []
    with listening() as made:
        ours = stream.write

        def write(given: str) -> Any:
            seen.append(given)
            return ours(given)

        stream.write = write
        for _ in range(3000):
            print("x")
            made.renew()
    assert stream.write is write
    stream.write("y\n")
    assert came_out(stream) == "x\n" * 3000 + "y\n"
    assert len(seen) == 6001
    assert text(made).endswith("x\nx\n")


def test_a_write_that_somebody_had_put_there_is_there_again(stream: Any) -> None:
    plain, seen = stream.write, []

    def write(given: str) -> Any:
        seen.append(given)
        return plain(given)

    stream.write = write
    with listening():
        for _ in range(3000):
            print("x")
    assert stream.write is write
    assert len(seen) == 6000


class _Slotted:
    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = ""

    def write(self, given: str) -> int:
        self.taken += given
        return len(given)


@pytest.mark.parametrize("odd", [None, _Slotted(), object()])
def test_a_stream_that_cannot_be_looked_at_is_left_alone(odd: Any) -> None:
    with listening(odd) as made:
        if isinstance(odd, _Slotted):
            print("x", end="", file=odd)
            assert odd.taken == "x"
    assert text(made) == ""


def test_a_closed_pipe_breaks_as_without_us() -> None:
    # The reader is gone before the second line: how an interpreter ends depends on which write breaks.
    program = """
import sys
if LISTENING:
    from otel_audit.runs.streams import Listening
    made = Listening(1000)
    made.begin()
try:
    print("line", flush=True)
    sys.stdin.read()
    for number in range(10000):
        print("line", number)
except BrokenPipeError:
    sys.stderr.write("broken")
finally:
    if LISTENING:
        made.end()
"""
    ended = []
    for listens in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-c", f"LISTENING = {listens}\n{program}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        process.stdin.close()
        errors = process.stderr.read()
        ended.append((process.wait(), b"broken" in errors, b"Traceback" in errors))
    assert ended[0] == ended[1]


def test_a_forked_child_can_print(stream: Any) -> None:
    with listening() as made:
        print("parent")
        child = os.fork()
        if not child:
            try:
                print("child")
                made.renew()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert text(made) == "parent\n"
