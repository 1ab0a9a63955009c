"""docs/events.md says what a record of a task looks like: as one really does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from otel_audit import semconv
from otel_audit.testing import CapturedAudit
from tests.instrumentation.celery.conftest import done, visit
from tests.instrumentation.celery.shop import bill

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text().partition("\n## Tasks\n")[2]
SECTION = re.split(r"\n## ", PAGE)[0]


def test_the_record_of_the_page_is_like_a_real_one(captured: CapturedAudit) -> None:
    with visit("ana"):
        result = bill.apply_async((7,), countdown=0.05)
    done(captured, result)
    real: dict[str, Any] = msgspec.to_builtins(captured.one(event_name="task.run"))
    shown = json.loads(SECTION.partition("```json")[2].partition("```")[0])
    assert set(shown["attributes"]) == set(real["attributes"])
    assert {name: set(shown[name]) for name in ("actor", "target", "request", "origin")} == {
        name: set(real[name]) for name in ("actor", "target", "request", "origin")
    }
    for name in ("event_name", "action", "log", "tenant"):
        assert shown[name] == real[name]


def test_the_page_names_every_attribute_of_tasks() -> None:
    names = {value for name, value in vars(semconv).items() if name.startswith("TASK_")}
    assert len(names) > 10
    assert {name for name in names if name not in SECTION} <= {semconv.TASK_RESULT}


def test_the_page_names_every_event_of_tasks() -> None:
    sources = (Path(__file__).parents[3] / "otel_audit" / "tasks").glob("*.py")
    events = {event for source in sources for event in re.findall(r'"(task\.[a-z]+)"', source.read_text())}
    assert {"task.publish", "task.run", "task.retry"} <= events
    assert all(f"`{event}`" in SECTION for event in events)
