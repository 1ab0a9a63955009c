"""A call's record is made of parts that are redacted already where they come again; it is the same record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from otel_audit import semconv
from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import OutgoingConfig, PlaceRules, RedactionConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.http.outgoing.calls import Calls
from otel_audit.pipeline import provider
from tests.pipeline.spooling import audit_config, spooled_records

BODY = b'{"lines": [{"id": 7, "password": "hunter2", "note": "a: b"}]}'
JSON = ("Content-Type", "application/json")
TARGETS = [
    ("POST", "shop.example", "/orders?page=2"),
    ("POST", "shop.example", "/orders?token=hunter2&page=2"),
    ("GET", "shop.example", "/a/password=hunter2/b"),
    ("GET", "shop.example", "http://ann:hunter2@shop.example/"),
    ("GET", "4111111111111111.example", "/"),
    ("password=hunter2", "bücher.example", "/ü"),
    ("GET", "shop.example", "/" + "long/" * 60 + "?token=hunter2"),
]
RULES = [
    RedactionConfig(),
    RedactionConfig(names=["status_code", "http\\.client\\.request\\.duration"]),
    RedactionConfig(names=["server.address", "url.full"]),
    RedactionConfig(values=["orders"]),
    RedactionConfig(queries=PlaceRules(names=["page"], allow=["token"])),
    RedactionConfig(enabled=False),
]


def call(calls: Calls, method: str, host: str, target: str, size: str) -> None:
    made = calls.begin(method, "https", host, 0, target)
    assert made is not None
    made.requested([JSON, ("Content-Length", size), ("Authorization", "Bearer hunter2hunter2hunter2")])
    made.sent(BODY)
    made.answered(404, [JSON, ("Set-Cookie", "sessionid=hunter2"), ("Content-Length", str(len(BODY)))])
    made.received(BODY)
    made.end()


def records(directory: Path, rules: RedactionConfig, *hooks: Any, size: str) -> list[dict[str, Any]]:
    """Call all targets twice; return the records without what differs between two calls."""
    config = msgspec.structs.replace(
        audit_config(directory),
        redaction=rules,
        outgoing=OutgoingConfig(enabled=True),
        policy=[PolicyRule(kind="outgoing", method="POST", level="request_response")],
    )
    pipeline = provider.start(config, hooks=hooks, ship=False)
    calls = Calls(config)
    calls.start()
    try:
        for each in (*TARGETS, *TARGETS):
            call(calls, *each, size)
    finally:
        calls.stop()
        provider.stop()
    made = [record for record in spooled_records(pipeline.directory) if record.event_name.startswith("http.")]
    return [_without_times(record) for record in made]


def _without_times(record: AuditRecord) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("id", "timestamp", "observed_timestamp"):
        del shown[name]
    if isinstance(shown["attributes"][semconv.DURATION], float):
        shown["attributes"][semconv.DURATION] = 0.5
    return shown


@pytest.mark.parametrize("size", [str(len(BODY)), "4111111111111111"])
@pytest.mark.parametrize("rules", RULES, ids=repr)
def test_a_call_leaves_the_record_that_the_general_way_makes(
    tmp_path: Path, rules: RedactionConfig, size: str
) -> None:
    short = records(tmp_path / "short", rules, size=size)
    general = records(tmp_path / "general", rules, lambda record: record, size=size)  # hooks see all records
    assert len(short) == 2 * len(TARGETS)
    assert short == general
    if not rules.queries.names:  # a hook sees other attributes before a place is redacted
        names = [list(record["attributes"]) for record in general]
        assert [list(record["attributes"]) for record in short] == names
    assert not rules.enabled or "hunter2" not in str(short) or rules.queries.allow
