"""Redaction is linear in its text, whatever the text: counted, never timed.

Our own loops are counted in executed bytecode while the text doubles; the regular expressions, which run in
C, are looked at for repeats that can share characters; and `make attack` counts the processor's instructions
for both together.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import otel_audit.redaction
from otel_audit.config.model import RedactionConfig
from otel_audit.errors import ConfigurationError
from otel_audit.redaction import Redactor
from otel_audit.redaction.collector import harmless_key_patterns, key_patterns, text_patterns
from otel_audit.redaction.lazy import _LazyPattern
from otel_audit.redaction.repeats import problems
from otel_audit.redaction.text import budget, sql

FOLDER = Path(otel_audit.redaction.__file__).parent

# A piece for each rule: what begins it, what it looks for, and what it may look for in vain.
PIECES = [
    "password=",
    "update u set password=",
    "password='x' ",
    "(password)=(",
    "(a,password) values (",
    "(a,password) in ((1,",
    "with x(token) as (values (",
    "(values (1,'x')) as t(id,token) ",
    "('x',1) = (a,password) ",
    "((values (1)) t(token)) ",
    "select password = (",
    "select (password) = ",
    "select 'x' as token ",
    "select 'x',",
    "select case password ",
    "select password between ",
    "'x' = lower(password) ",
    "password::",
    "identified by ",
    "json_set(d,'$.password',",
    "d->>'password' = ",
    "set password ( token ",
    "/* token=",
    "-- token=\n",
    "\\'",
    "select password = \\' ",
    "$a$",
    "$$",
    "token=[",
    'token=["',
    "token='",
    '"token": ',
    '{"token":',
    "('token', ",
    "'password' ",
    "cookie: ",
    '"cookie": "',
    "API key: ",
    "    token = x.y ",
    '\n  File "x"\n    token = x ',
    "--token ",
    "-token x ",
    "<token>",
    "<token ",
    "%3Ftoken%3D",
    "%22token%22%3A",
    "?next=%253Ftoken%253D",
    "pass%77ord=",
    "bearer ",
    "basic YTpi ",
    "AUTH ",
    "Failing row contains (",
    "-----BEGIN PRIVATE KEY-----",
    "[parameters: ",
    "[parameters: (1)] ",
    "eyJ-",
    "eyJaaaaaaaa.aaaa ",
    "4111 ",
    "4111111111111111 ",
    "://a@",
    "a@b:",
    "md5$",
    "[",
    "(",
    ")",
    'form-data; name="token"',
    'form-data; name="token"\r\n\r\n',
    'form-data; name="token"\r\n\r\nx\r\n--',
    "form-data; ",
    "<token><![CDATA[",
    "<input name='token' value='x'> ",
    "<input name='token' value=",
    "<a '",
    '<a "',
    "<token>x</",
    "token\n  x\n",
    "token:\n",
    "token:\n  x\n",
    "token: |\n  x\n",
    "password: a b c d ",
    "password: a b c d\n",
    "?token=a b c",
    "id,token\n",
    "id,token\n1,x\n\n",
    "| id | token |\n",
    "| id | token |\n|--|--|\n| 1 | x |\n\n",
    "token\n---\n",
    "A  TOKEN\n",
    "-[ RECORD 1 ]\ntoken | x\n",
    "curl -u a:b ",
    "mysql -px ",
    "-u a:",
    "Key (token)=(",
    "Key (a, token)=(1, x) already exists ",
    "Duplicate entry 'x' for key 'token' ",
    "entry 'x",
    "password%3D",
    "a%3D",
    "%253D",
    "53D",
    "token%3A%22",
    "%3A%2F%2Fa%40",
    "token=[redacted]",
    "Password：x ",
    "(b'token', b'x')",
    '"name": "token", "value": "x", ',
    "name: token value: '",
    "name: token ",
    "name: token value: ",
    "value: ",
    "name=token&value=x&",
    "'token', 'value': ",
    "token=f(",
    "token=f('",
    "token\\u003d",
    "token&#61;",
    "\x00",
    "token\\",
    "token='\\",
]
READ_AS: list[tuple[str, Callable[[Redactor, str], object]]] = [
    ("text", lambda redactor, text: redactor.text("password=x " + text)),
    ("statement", lambda redactor, text: redactor.statement("select password = " + text)),
]


def executed(call: Callable[[], object]) -> int:
    """Count the instructions of bytecode that our own code executes in a call."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "call":
            if not frame.f_code.co_filename.startswith(str(FOLDER)):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def repeated(piece: str, length: int) -> str:
    return (piece * (length // len(piece) + 1))[:length]


@pytest.mark.parametrize(("how", "read"), READ_AS, ids=["text", "statement"])
@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_text_is_twice_the_work(
    piece: str, how: str, read: Callable[[Redactor, str], object]
) -> None:
    redactor = Redactor(RedactionConfig())
    read(redactor, repeated(piece, 100))
    counts = [executed(lambda n=n: read(redactor, repeated(piece, n))) for n in (400, 800, 1600)]  # type: ignore[misc]
    assert counts[1] <= 2.2 * counts[0] + 1000, counts
    assert counts[2] <= 2.2 * counts[1] + 1000, counts


def test_a_mixture_of_all_pieces_is_linear_too() -> None:
    redactor = Redactor(RedactionConfig())
    mixture = " ".join(PIECES)
    counts = [executed(lambda n=n: redactor.statement("select " + mixture * n)) for n in (1, 2, 4)]  # type: ignore[misc]
    assert counts[1] <= 2.2 * counts[0], counts
    assert counts[2] <= 2.2 * counts[1], counts


def expressions() -> Iterator[tuple[str, str, int]]:
    for file in sorted(FOLDER.rglob("*.py")):
        inside = file.relative_to(FOLDER).with_suffix("")
        module = importlib.import_module(f"otel_audit.redaction.{'.'.join(inside.parts)}")
        for name, value in vars(module).items():
            held = list(value.values()) if isinstance(value, dict) else [value]
            held += [part for item in held if isinstance(item, tuple) for part in item]
            held += [part for item in held if isinstance(item, tuple) for part in item]
            for number, found in enumerate(held):
                if isinstance(found, _LazyPattern):
                    yield f"{file.stem}.{name}[{number}]", found._source, found._flags
                elif isinstance(found, re.Pattern):
                    yield f"{file.stem}.{name}[{number}]", found.pattern, found.flags


@pytest.mark.parametrize(("name", "source", "flags"), list(expressions()), ids=lambda value: str(value)[:40])
def test_no_expression_has_repeats_that_share_characters(name: str, source: str, flags: int) -> None:
    assert problems(source, flags) == []


def test_every_expression_of_the_package_is_among_those_looked_at() -> None:
    written = sum(
        len(re.findall(r"(?:[=:] |\()pattern\(", file.read_text("utf-8"))) for file in FOLDER.rglob("*.py")
    )
    assert len(list(expressions())) == written


@pytest.mark.parametrize(
    "source", [*key_patterns(), *harmless_key_patterns(), *(source for source, _ in text_patterns())]
)
def test_the_collector_has_no_expression_that_needs_to_go_back(source: str) -> None:
    # Its engine is linear by construction; it refuses what would not be.
    assert not re.search(r"\(\?<?[=!]|\(\?>|\\[1-9]|[*+?}]\+", source)


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        (r"(a+)+b", {"exponential", "quadratic"}),
        (r"(?:\w+\s*)+:", {"exponential", "quadratic"}),
        (r"(?:ab|[a-c]+d)*e", {"exponential", "quadratic"}),
        (r"(a*)*", {"exponential"}),
        (r";(?:\w+x)+", {"exponential"}),
        (r"x\d+\d*;", {"quadratic"}),
        (r"\[p [\s\S]*?\]", {"quadratic"}),
        (r"\beyJ[\w-]{8,}+\.", {"quadratic"}),
        (r"(?:\w+, )+", set()),
        (r"(\w++), (\d+)", set()),
        (r"(?<!\w)\w+@", set()),
        (r"\bDE\d{20}\b", set()),
        (r"'(?:[^'\\]|\\.)*+'", {"quadratic"}),
        (r"'(?:[^'\\]|\\.)*+(?:'|\Z)", {"quadratic"}),  # it may end behind a backslash
        (r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)", set()),
    ],
)
def test_repeats_that_may_take_long_are_recognized(source: str, kinds: set[str]) -> None:
    assert {problem.kind for problem in problems(source)} == kinds


@pytest.mark.parametrize("setting", ["values", "names", "allow"])
def test_an_own_pattern_that_can_take_exponential_time_is_refused_by_name(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"redaction\.{setting}\[1\].*exponential.*possessive"):
        Redactor(RedactionConfig(**{setting: ["fine", r"(\w+\s*)+:"]}))  # type: ignore[arg-type]


# --- the budget ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text", "statement"])
@pytest.mark.parametrize("piece", ["token: hunter2 ", "select 'hunter2' as password, ", "say hunter2 token "])
def test_what_was_not_searched_is_left_out_and_said(name: str, piece: str) -> None:
    redactor = Redactor(RedactionConfig())
    text = "select 1; password=x " + repeated(piece, 1_000_000)
    found = getattr(redactor, name)(text)
    assert len(found) < 2 * budget.CHARACTERS
    note = re.search(r"\[redacted\] \((\d+) more characters were not searched", found[-120:])
    assert note is not None
    assert int(note[1]) > 500_000


def test_a_secret_across_the_bound_does_not_show_its_beginning() -> None:
    redactor = Redactor(RedactionConfig())
    for offset in range(1, 40, 3):
        text = "password=x" + " " * (budget.CHARACTERS - 10 - offset) + "4111 1111 1111 1111 token=hunter2"
        found = redactor.text(text)
        assert "4111" not in found
        assert "hun" not in found


def test_names_and_tokens_are_bounded_as_characters_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "TOKENS", 10)
    redactor = Redactor(RedactionConfig())
    assert redactor.text("a=1 " * 9 + "token=hunter2").endswith("token=[redacted]")
    found = redactor.text("a=1 " * 20 + "token=hunter2")
    assert found.startswith("a=1 " * 10 + "[redacted] (")
    assert "hunter2" not in found
    statement = redactor.statement("SELECT a, b, c, d, e, f, 'hunter2' AS token FROM u")
    assert statement.startswith("SELECT a, b, c, d, e[redacted] (")
    assert "hunter2" not in statement
    assert sql.names_sensitive("SELECT a, b, c, d, e, f, token", redactor.is_secret)


def test_clean_text_of_any_length_stays_whole() -> None:
    redactor = Redactor(RedactionConfig())
    text = "nothing to hide in here " * 100_000
    assert redactor.text(text) is text


def test_quoted_forms_are_decoded_two_layers_deep_and_searched_as_text_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import msgspec

    redactor = Redactor(RedactionConfig())
    decoded: list[str] = []
    real = msgspec.json.decode
    monkeypatch.setattr(msgspec.json, "decode", lambda text: decoded.append(text) or real(text))
    text = '{"password":"hunter2"}'
    for _ in range(6):
        text = msgspec.json.encode({"a": text}).decode()
    found = redactor.text(text)
    assert "hunter2" not in found
    assert len(decoded) == budget.LAYERS


# --- instructions ----------------------------------------------------------------------------------------

_CHILD = """
import json, os, sys
from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor

redactor = Redactor(RedactionConfig(values=[r"patient-\\d+"]))

def redact(piece, length):
    for start in ("password=x ", "select password = "):
        text = start + (piece * (length // len(piece) + 1))[:length]
        redactor.text(text)
        redactor.statement(text)

pieces, lengths = json.loads(sys.argv[1])
for piece in pieces:
    redact(piece, 100)
for piece in pieces:
    for length in lengths:
        child = os.fork()  # it has imported and compiled everything, and is counted by itself
        if not child:
            if length:
                redact(piece, length)
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps([child, piece, length]))
"""


@pytest.mark.attack
@pytest.mark.timeout(3600)
def test_twice_the_text_is_twice_the_instructions_of_the_processor() -> None:
    if shutil.which("valgrind") is None:
        pytest.fail("valgrind counts the instructions; scripts/packages installs it")
    lengths = (0, 3_000, 6_000, 12_000)
    counted = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run(
        [*counted, sys.executable, "-c", _CHILD, json.dumps([PIECES, lengths])],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "0", "PYTHONPATH": str(FOLDER.parents[1])},
    )
    by_process = {
        int(process): int(count.replace(",", ""))
        for process, count in re.findall(r"==(\d+)== I\s+refs:\s+([\d,]+)", done.stderr)
    }
    counts: dict[str, list[int]] = {}
    for line in done.stdout.splitlines():
        process, piece, _ = json.loads(line)
        counts.setdefault(piece, []).append(by_process[process])
    assert len(counts) == len(PIECES)
    steep = []
    for piece, (base, *found) in counts.items():
        one, two, four = (count - base for count in found)
        print(f"{one:14,} {two:14,} {four:14,} instructions at n, 2n, 4n: {piece!r}")
        if two > 2.2 * one + 1_000_000 or four > 2.2 * two + 1_000_000:
            steep.append(piece)
    assert steep == []
