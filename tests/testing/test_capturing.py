"""``capture_audit()`` around a block and as a decorator of functions, async functions and methods."""

from __future__ import annotations

import asyncio
import inspect
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import otel_audit
from otel_audit.config.model import AuditConfig
from otel_audit.testing import CapturedAudit, capture_audit


def happened(name: str = "test.happened") -> None:
    otel_audit.record(name, action="EXECUTE")


@capture_audit
def bare(captured: CapturedAudit, number: int) -> tuple[int, list[str]]:
    happened()
    return number, [record.event_name for record in captured]


@capture_audit(AuditConfig(system="tested"))
def configured(*, captured: CapturedAudit) -> str:
    happened()
    return captured.one().system


@capture_audit()
def without_parameter() -> str:
    happened()
    return "done"


@capture_audit
async def asynchronous(captured: CapturedAudit) -> int:
    await asyncio.sleep(0)
    happened()
    return len(captured)


class Methods(unittest.TestCase):
    @capture_audit
    def test_sync(self, captured: CapturedAudit) -> None:
        happened()
        assert len(captured) == 1


class AsyncMethods(unittest.IsolatedAsyncioTestCase):
    @capture_audit()
    async def test_async(self, captured: CapturedAudit) -> None:
        await asyncio.sleep(0)
        happened()
        assert len(captured) == 1


def test_functions_receive_what_was_captured() -> None:
    assert bare(number=7) == (7, ["test.happened"])
    assert configured() == "tested"
    assert without_parameter() == "done"


def test_every_call_captures_anew() -> None:
    assert bare(number=1)[1] == bare(number=2)[1] == ["test.happened"]


def test_async_functions_are_captured_until_they_end() -> None:
    assert inspect.iscoroutinefunction(asynchronous)

    async def both() -> list[int]:
        return [await asynchronous(), await asynchronous()]

    assert asyncio.run(both()) == [1, 1]


@pytest.mark.parametrize(
    "case", [Methods("test_sync"), AsyncMethods("test_async")], ids=lambda case: case.id()
)
def test_methods_of_test_cases_are_captured(case: unittest.TestCase) -> None:
    outcome = unittest.TestResult()
    case.run(outcome)
    assert outcome.wasSuccessful(), outcome.failures + outcome.errors
    assert outcome.testsRun == 1


@capture_audit
@pytest.mark.parametrize("name", ["test.one", "test.two"])
def test_pytest_gives_its_own_fixtures_and_no_other(
    tmp_path: Any, name: str, captured: CapturedAudit
) -> None:
    assert tmp_path.is_dir()
    happened(name)
    assert captured.one().event_name == name


def test_what_is_raised_is_raised_and_nothing_stays_captured() -> None:
    @capture_audit
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), warnings.catch_warnings():
        fails()
    with capture_audit() as captured:
        happened()
    assert len(captured) == 1


def test_blocks_may_be_nested_and_read_after_their_end() -> None:
    capture = capture_audit()
    with capture as outer:
        happened("test.outer")
        with capture as inner:
            happened("test.inner")
        happened("test.outer")
    assert [record.event_name for record in outer] == ["test.outer", "test.outer"]
    assert [record.event_name for record in inner] == ["test.inner"]


def test_what_yields_is_refused() -> None:
    def fixture() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="yields: what is recorded behind its yield"):
        capture_audit(fixture)


def test_classes_are_refused() -> None:
    with pytest.raises(TypeError, match="decorates functions and methods, not class Methods"):
        capture_audit(Methods)
    with pytest.raises(TypeError, match="not str"):
        capture_audit("config")  # type: ignore[call-overload]


def test_a_signature_is_that_of_the_function_without_the_parameter() -> None:
    assert list(inspect.signature(bare).parameters) == ["number"]
    assert bare.__name__ == "bare"


def test_a_capture_without_any_instrumentor_warns_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_audit.testing.capturing.instrumentors", list)
    with pytest.warns(UserWarning, match="recorded nothing") as caught, capture_audit():
        pass
    assert caught[0].filename == __file__
