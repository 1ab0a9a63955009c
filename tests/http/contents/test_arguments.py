"""Command lines, arguments of tasks, exceptions: shown without secrets; nothing that they are is called."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import uuid
from pathlib import Path
from typing import Any, NoReturn

import pytest

from otel_audit.config.model import AuditConfig, PlaceRules, RedactionConfig
from otel_audit.http.contents import Contents

MASK = "[redacted]"
contents = Contents.of(AuditConfig())


def fail(*_: object, **__: object) -> NoReturn:
    raise AssertionError("called for audit")


class Hostile:
    """Everything of it fails."""

    __repr__ = __str__ = __len__ = __iter__ = __eq__ = __bool__ = __getattribute__ = __hash__ = fail


class HostileText(str):
    __slots__ = ()
    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = __eq__ = __hash__ = fail


class HostileDict(dict[str, Any]):
    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = items = keys = values = fail


class HostileList(list[Any]):
    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = fail


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["migrate", "shop", "--fake"], ["migrate", "shop", "--fake"]),
        (["--password", "x1", "--next"], ["--password", MASK, "--next"]),
        (["--password", "-x1y2", "a"], ["--password", MASK, "a"]),
        (["--token=x1 y2", "a"], [f"--token={MASK}", "a"]),
        (["API_KEY=x1", "a"], [f"API_KEY={MASK}", "a"]),
        (["password=x1"], [f"password={MASK}"]),
        (["mysql", "-px1", "-u", "ann"], ["mysql", f"-p{MASK}", "-u", "ann"]),
        (["curl", "-u", "ann:x1", "https://h"], ["curl", "-u", f"ann:{MASK}", "https://h"]),
        (["postgres://ann:x1@db/shop"], [f"postgres://{MASK}@db/shop"]),
        (["--url=https://ann:x1@h"], [f"--url=https://{MASK}@h"]),
        (["-H", "Authorization: Bearer x1y2z3"], ["-H", f"Authorization: {MASK}"]),
        (['{"password": "x1"}'], ['{"password":"[redacted]"}']),
        (["-p", "7"], ["-p", "7"]),
        ([7, None, True], ["7", "None", "True"]),
        (["--token", "--verbose"], ["--token", "--verbose"]),
        (["--token-count=7"], ["--token-count=7"]),
    ],
)
def test_a_command_line_loses_its_secrets(argv: list[Any], shown: list[str]) -> None:
    assert contents.arguments(argv) == shown


def test_options_that_the_command_says_are_secret_lose_their_values() -> None:
    argv = ["-k", "x1", "-kx1", "--code=x1", "-v", "a"]
    assert contents.arguments(argv, secret={"-k", "--code"}) == [
        "-k",
        MASK,
        f"-k{MASK}",
        f"--code={MASK}",
        "-v",
        "a",
    ]


def test_a_value_with_blanks_in_a_short_option_shows_nothing() -> None:
    assert "x1" not in " ".join(contents.arguments(["mysql", "-pab x1 'x1", "shop"]))


def test_long_command_lines_are_cut() -> None:
    shown = contents.arguments(["word " * 9000, *map(str, range(5000))])
    assert len(json.dumps(shown, ensure_ascii=False).encode()) <= 8192
    assert shown[-1].startswith("…")


def test_arguments_that_are_no_text_are_named_by_their_class() -> None:
    assert contents.arguments([Hostile(), HostileText("tea"), b"cup"]) == ["<Hostile>", "tea", "cup"]


def test_arguments_of_a_task_are_shown_without_secrets() -> None:
    shown = contents.parameters(
        (7, "x1", {"token": "x1", "page": 2}),
        {"password": "x1", "to": ["a"]},
        names=("order", "pin", "options"),
    )
    assert shown == {
        "args": [7, MASK, {"token": MASK, "page": 2}],
        "kwargs": {"password": MASK, "to": ["a"]},
    }


def test_plain_values_keep_their_meaning() -> None:
    day = datetime.date(2026, 11, 29)
    number = uuid.UUID(int=7)
    shown = contents.parameters(
        (decimal.Decimal("1.50"), day, number, Colour.RED, b"abc", float("nan"), 2**70, {2, 1}, {3: "c"}), {}
    )
    assert shown["args"] == [
        "1.50",
        "2026-11-29",
        str(number),
        "red",
        "<3 bytes>",
        "nan",
        str(2**70),
        [1, 2],
        {"3": "c"},
    ]


def test_nothing_of_an_argument_is_called() -> None:
    name = f"<{__name__}.Hostile>"
    shown = contents.parameters(
        (Hostile(), HostileText("tea"), HostileDict(a=1), HostileList([Hostile()])), {"b": {"c": Hostile()}}
    )
    assert shown == {"args": [name, "tea", {"a": 1}, [name]], "kwargs": {"b": {"c": name}}}
    assert contents.value(Hostile()) == name


def test_arguments_within_themselves_end() -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    shown = contents.parameters((endless,), {"deep": {"a": endless}})
    assert "…" in json.dumps(shown, ensure_ascii=False)


def test_large_arguments_are_cut() -> None:
    shown = contents.parameters(("word " * 100_000, list(range(100_000))), {str(i): i for i in range(9000)})
    assert 100 < len(json.dumps(shown, ensure_ascii=False).encode()) <= 10_000


def test_arguments_have_rules_of_their_own() -> None:
    redaction = RedactionConfig(arguments=PlaceRules(names=["customer"], allow=["token"]))
    own = Contents.of(AuditConfig(redaction=redaction))
    assert own.arguments(["--customer", "ann", "--token", "a"]) == ["--customer", MASK, "--token", "a"]
    assert own.parameters((), {"customer": "ann", "token": "a"})["kwargs"] == {"customer": MASK, "token": "a"}
    assert own.query("customer=ann") == "customer=ann"


def raised(error: BaseException) -> dict[str, str]:
    try:
        raise error
    except type(error) as caught:
        return contents.exception(caught)


def test_an_exception_is_shown_by_type_message_and_frames() -> None:
    shown = raised(ValueError("no order 7, password=x1y2"))
    assert shown["exception.type"] == "ValueError"
    assert shown["exception.message"] == f"no order 7, password={MASK}"
    assert f'File "{__file__}", line ' in shown["exception.stacktrace"]
    assert shown["exception.stacktrace"].endswith("in raised")


class OwnError(Exception):
    __str__ = __repr__ = fail
    args = __cause__ = __context__ = __traceback__ = property(fail)


def test_nothing_of_an_exception_is_called() -> None:
    shown = raised(OwnError("text", Hostile(), 7))
    assert shown["exception.type"] == f"{__name__}.OwnError"
    assert shown["exception.message"] == f"text, <{__name__}.Hostile>, 7"


def test_what_an_exception_holds_is_shown_as_json() -> None:
    shown = raised(ValueError(["no such order", {"password": "x1y2"}], None, {"n": 7}))
    assert shown["exception.message"] == f'["no such order",{{"password":"{MASK}"}}], {{"n":7}}'
    group = raised(ExceptionGroup("two failed", [ValueError("a"), OSError("b")]))
    assert group["exception.message"] == 'two failed, ["<builtins.ValueError>","<builtins.OSError>"]'


def test_an_error_of_the_system_says_what_and_where() -> None:
    try:
        Path("/no/such/file").read_text("utf-8")
    except OSError as error:
        shown = contents.exception(error)
    assert shown["exception.message"] == "2: No such file or directory"


def test_the_cause_is_named_without_its_secrets() -> None:
    try:
        try:
            raise KeyError("token=x1y2")
        except KeyError as error:
            raise RuntimeError("failed") from error
    except RuntimeError as error:
        shown = contents.exception(error)
    assert shown["exception.stacktrace"].endswith(f"caused by KeyError: token={MASK}")


def test_an_exception_takes_at_most_8_kib() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("é" * 100_000)
        deep(n - 1)

    try:
        deep(400)
    except ValueError as error:
        shown = contents.exception(error)
    assert len(json.dumps(shown, ensure_ascii=False).encode()) <= 8192
    assert shown["exception.stacktrace"].count("in test_an") == 12


def test_an_exception_that_causes_itself_ends() -> None:
    error = ValueError("a")
    error.__cause__ = error
    assert contents.exception(error)["exception.type"] == "ValueError"
