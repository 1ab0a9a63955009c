"""A name under one key and its value under another: in structures, in texts, in every kind of record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import otel_audit
from otel_audit.audit_record import AuditRecord, Bulk, Column, Target
from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from otel_audit.testing import capture_audit

SECRET = "hunter2"
SHAPES: dict[str, Any] = {
    "a form as jQuery sends it": [{"name": "user", "value": "lee"}, {"name": "password", "value": SECRET}],
    "Kubernetes": {"env": [{"name": "DB_PASSWORD", "value": SECRET}]},
    "HAR": {"request": {"headers": [{"name": "Authorization", "value": f"Token {SECRET}"}]}},
    "tags of a cloud": {"Tags": [{"Key": "ApiToken", "Value": SECRET}]},
    "a change": {"field": "password", "old": "[set]", "new": SECRET},
    "a change by two names": {"field_name": "token", "old_value": SECRET, "new_value": "y" + SECRET},
    "camel case": {"fieldName": "token", "oldValue": SECRET, "newValue": SECRET},
    "in capitals": {"FIELD_NAME": "token", "OLD_VALUES": [SECRET], "PREVIOUS_VAL": SECRET},
    "before and after": {"property": "secret", "before": SECRET, "after": None},
    "the value first": {"value": SECRET, "name": "password"},
    "more between": {"name": "password", "type": "text", "required": True, "value": SECRET},
    "a value of several": {"name": "token", "values": [SECRET, SECRET]},
    "headers": [["authorization", f"Token {SECRET}"], ["accept", "*/*"]],
    "headers of ASGI": {"headers": [["cookie", f"sid={SECRET}"], ["x-api-key", SECRET]]},
    "one pair": {"params": [["password", SECRET]]},
}
TEXTS = [
    "- name: DB_PASSWORD\n  value: {}\n",
    "name: DB_PASSWORD\nvalue: '{}'\n",
    "name=password&value={}&next=/",
    "sent {{'name': 'password', 'value': '{}'}} at once",
    'sent {{"name": "password", "type": "text", "value": "{}"}} at once',
    'cut off {{"name":"password","value":"{}',
    '"{{\\"name\\": \\"password\\", \\"value\\": \\"{}\\"}}"',
    "[[name]]\nkey = 'token'\nvalue = '{}'",
    "UPDATE settings SET name = 'api_token', value = '{}'",
]
HARMLESS: list[Any] = [
    {"name": "colour", "value": "red"},
    {"name": "password", "label": "Your password"},
    {"name": "password"},
    [["token", 1, 2], ["a", "b", "c"]],
    {"key": 7, "value": "x"},
    [["id", "name"], ["city", "street"]],
]


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionConfig())


def shown(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value), default=str)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_record_shows_the_value(redactor: Redactor, shape: str) -> None:
    """As an attribute, as text of it, in a change, in a row of many; what stands beside stays."""
    value = SHAPES[shape]
    with capture_audit() as audit:
        otel_audit.record(
            "shop.order.export", "EXPORT", attributes={"data": value, "text": json.dumps(value)}
        )
        with otel_audit.context(reason=repr(value)):
            otel_audit.record("shop.order.export", "EXPORT", message=f"sent {json.dumps(value)}")
        otel_audit.record(
            "shop.order.export", "EXPORT", attributes={"ordinary": 1, "nested": [{"deeper": value}]}
        )
    assert len(audit) == 3
    assert SECRET not in shown(audit.records)
    assert "[redacted]" in shown(audit.records[0].attributes)
    bulk = AuditRecord(
        id="1",
        timestamp=1,
        observed_timestamp=1,
        event_name="shop.order.create",
        action="CREATE",
        outcome="success",
        target=Target("shop.Order", ""),
        bulk=Bulk(count=2, keys=["1", "2"], columns=[Column("data", new=[{"a": 1}, value])]),
    )
    assert SECRET not in shown(redactor.record(bulk, {}))


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_shows_the_value(redactor: Redactor, text: str) -> None:
    found = redactor.text(text.format(SECRET))
    assert SECRET not in found
    assert "[redacted]" in found
    assert "DB_PASSWORD" in found or "password" in found or "token" in found


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_what_names_no_secret_stays(redactor: Redactor, value: Any) -> None:
    with capture_audit() as audit:
        otel_audit.record("shop.order.export", "EXPORT", attributes={"data": value})
    assert audit.records[0].attributes == {"data": value}
    assert redactor.text(json.dumps(value)) == json.dumps(value)


def test_the_next_thing_named_keeps_its_value(redactor: Redactor) -> None:
    """A secret by reference has no value; what follows has another name."""
    text = "- name: DB_PASSWORD\n  valueFrom: vault\n- name: COLOUR\n  value: red\n"
    assert redactor.text(text) == text
