"""What a command printed is kept from its end, made readable, redacted, and costs little while it prints."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents, OutputTail

MASK = "[redacted]"
contents = Contents.of(AuditConfig())


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m \x9b32mgreen", "red green"),
        ("\x1b]8;;https://h\x07link\x1b]8;;\x1b\\ \x1b(Bx\x1b=", "link x"),
        ("10%\r20%\r100%\ndone\r\n", "100%\ndone\n"),
        ("a\x00b\x08c\td\x7f\u202e", "abc\td"),
        ("password: \x1b[1mx1y2z3\x1b[0m\n", f"password: {MASK}\n"),
        ("pass\x1b[1mword=x1y2z3", f"password={MASK}"),
        ("half \ud800", "half ?"),
        ("", ""),
    ],
)
def test_output_is_readable_and_has_no_secrets(printed: str, shown: str) -> None:
    assert contents.output(printed) == shown


def test_the_end_of_an_output_is_kept() -> None:
    tail = OutputTail(1000)
    for number in range(10_000):
        tail.write(f"line {number}\n")
    shown = contents.output(tail.text(), 1000, size=tail.size)
    assert shown.startswith(f"… ({tail.size} characters)\n")
    assert shown.endswith("line 9998\nline 9999\n")
    assert len(shown.encode()) <= 1000


def test_a_short_output_is_kept_whole() -> None:
    tail = OutputTail(1000)
    tail.write("tea\n")
    tail.write("grün\n".encode())
    assert contents.output(tail.text(), 1000, size=tail.size) == "tea\ngrün\n"
    assert tail.text() == tail.text()


def test_bytes_are_kept_as_text_even_if_a_character_is_cut_in_two() -> None:
    tail = OutputTail(100)
    for _ in range(5000):
        tail.write("ü€".encode()[:4])
        tail.write("ü€".encode()[4:])
    assert contents.output(tail.text(), 100).endswith("ü€ü€")


def test_of_an_output_longer_than_is_searched_the_end_is_kept() -> None:
    printed = "tea\n" * 200_000 + f"password: {'x7' * 9}\nthe end\n"
    shown = contents.output(printed, 1024 * 1024)
    assert shown.endswith(f"password: {MASK}\nthe end\n")
    assert shown.startswith(f"… ({len(printed)} characters)\n")


@pytest.mark.parametrize("limit", [0, 1, 30, 300, 3000])
def test_no_output_is_longer_than_its_limit(limit: int) -> None:
    for printed in ("€" * 20_000, "tea\n" * 20_000, "password=x1 " * 5000):
        assert len(contents.output(printed, limit).encode()) <= limit


def test_where_an_output_is_cut_no_secret_loses_its_name() -> None:
    tail = OutputTail(200)
    for number in range(3000):
        tail.write(f"step {number} of 3000: password: x7secret\n")
    for limit in range(150, 230):
        assert "x7secret" not in contents.output(tail.text(), limit, size=tail.size)


def test_the_rest_of_a_private_key_is_left_out() -> None:
    key = "-----BEGIN PRIV" + "ATE KEY-----\n" + "MIIEvQIBADANBg\n" * 40 + "-----END PRIV" + "ATE KEY-----\n"
    tail = OutputTail(100)
    for text in ("x\n" * 30_000, key, "done\n" * 1664 * 2):
        tail.write(text)
    for limit in (100, 9000, 17_000):
        assert "MIIE" not in contents.output(tail.text(), limit, size=tail.size)


def test_what_a_write_costs_does_not_grow() -> None:
    def executed(writes: int) -> int:
        tail, count = OutputTail(64 * 1024), 0

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal count
            frame.f_trace_opcodes = True
            count += event == "opcode"
            return trace

        sys.settrace(trace)
        try:
            for _ in range(writes):
                tail.write("a line of a usual length, as commands print them\n")
        finally:
            sys.settrace(None)
        return count

    assert executed(20_000) <= 2.1 * executed(10_000)
    assert executed(10_000) / 10_000 < 90


def test_what_is_kept_does_not_grow() -> None:
    tail = OutputTail(1000)
    for _ in range(2000):
        tail.write("x" * 50_000)
    assert tail.size == 100_000_000
    assert sum(map(len, tail._parts)) < 200_000
    tail.write("y" * 50_000_000)
    assert sum(map(len, tail._parts)) < 200_000


class Loud(str):
    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("called for audit")


def test_text_of_another_class_is_kept_as_text() -> None:
    tail = OutputTail(1000)
    tail.write(Loud("tea"))
    assert tail.text() == "tea"
