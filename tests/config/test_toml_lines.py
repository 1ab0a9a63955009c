"""Finding the line of a key: on hand-made traps, and on anything ``tomllib`` accepts."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_audit.config.toml_lines import key_lines

TRAPS = '''\
# [not.a.table]
title = "with = and [brackets] # and hash"  # comment = 1
text = """
[inside] = 5
\\"""
"""
raw = \'\'\'
x = 1
\'\'\'
[a."b.c".'d']   # comment
list = [ # ]
  "x ] y", [1, 2],
  { inner = 1, deep.er = 2 },
]
"quoted \\u00e9" = 1
dotted . key = { q = "}" , r = [ "]" ] }
[[table]]
first = 1
[[ table ]]
second = 1979-05-27 07:32:00
last = -inf'''


def test_keys_are_found_between_traps() -> None:
    lines = key_lines(TRAPS)
    assert lines[("title",)] == 2
    assert lines[("text",)] == 3
    assert lines[("raw",)] == 7
    assert lines[("a", "b.c", "d")] == 10
    assert lines[("a", "b.c", "d", "list", "2", "inner")] == 13
    assert lines[("a", "b.c", "d", "quoted é")] == 15
    assert lines[("a", "b.c", "d", "dotted", "key", "r")] == 16
    assert lines[("table",)] == 17
    assert lines[("table", "0")] == 17
    assert lines[("table", "1")] == 19
    assert lines[("table", "1", "second")] == 20
    assert lines[("table", "1", "last")] == 21
    assert len(lines) == 19


def test_tables_within_tables_of_a_list_belong_to_the_last_of_them() -> None:
    lines = key_lines("[[a]]\n[[a.b]]\nx = 1\n[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[a.c]\ny = 1\n")
    assert lines[("a", "0", "b", "0", "x")] == 3
    assert lines[("a", "1", "b", "0", "x")] == 6
    assert lines[("a", "1", "b", "1", "x")] == 8
    assert lines[("a", "1", "c", "y")] == 10


def leaves(value: dict[str, Any], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for name, item in value.items():
        found.add((*path, name))
        if isinstance(item, dict):
            found |= leaves(item, (*path, name))
    return found


NAMES = st.text(min_size=1, max_size=6).filter(lambda name: name.isprintable())
VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(max_size=12)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        escaped = "".join(
            f"\\U{ord(c):08x}" if ord(c) < 32 or ord(c) == 127 or c in '"\\' else c for c in value
        )
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ",\n ".join(literal(item) for item in value) + "]"
    return "{ " + ", ".join(f"{literal(name)} = {literal(item)}" for name, item in value.items()) + " }"


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_every_key_tomllib_sees_has_the_line_it_was_written_on(values: dict[str, Any]) -> None:
    text = ""
    written: dict[tuple[str, ...], int] = {}
    for name, value in values.items():
        text += "# comment = [\n"
        written[(name,)] = text.count("\n") + 1
        text += f"{literal(name)} = {literal(value)}\n"
    parsed = tomllib.loads(text)
    lines = key_lines(text)
    assert leaves(parsed) <= set(lines)
    assert {path: lines[path] for path in written} == written
