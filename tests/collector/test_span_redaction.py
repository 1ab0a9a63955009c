"""The second line: what leaves a span on its way through the Collector, by the rules the first one has."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_audit.redaction.collector import written_into
from tests.collector.running import COLLECTOR, Collector, kill
from tests.e2e.running import Store, eventually
from tests.redaction import test_names, test_rule_sets, test_text

SECRET_TEXTS = [
    text
    for mark in test_text.test_secrets_in_text_are_replaced_and_the_rest_stays.pytestmark  # type: ignore[attr-defined]
    for text, _ in mark.args[1]
    # What is encoded, or nested, is nothing a regular expression can see; the first line looks twice.
    if not any(
        part in text for part in ("%77", r"\u0061", r"\u003d", "&#", "args=", "PARAMS", "', [", "then(")
    )
]
CLEAN_TEXTS = [
    text
    for mark in test_text.test_a_text_without_a_secret_is_the_same_object.pytestmark  # type: ignore[attr-defined]
    for text in mark.args[1]
    # No check digit here: what looks like a card number goes. And `None` is a value like any other.
    if text and "4111111111111112" not in text and "password=None" not in text
]
STATEMENTS = [
    statement
    for mark in test_text.test_literals_of_sensitive_columns_leave_a_statement.pytestmark  # type: ignore[attr-defined]
    for statement, _ in mark.args[1]
    if not statement.startswith("AUTH ")
]
NEEDLES = (
    "hunter2",
    "ter2",
    "MII",
    "4111 1111",
    "378282",
    "5555-",
    "AKIA",
    "4eC39",
    "dozjgN",
    "abc$",
    "b5c8f6",
    "krfmNl",
)
NAMES = {
    name: f"kept-{number}-ter2" for number, name in enumerate([*test_names.SECRET, *test_names.PERSONAL])
}
# The rules of the Collector normalise nothing.
for name in ("ｐａｓｓｗｏｒｄ", "ﾊﾟｽﾜｰﾄﾞ"):
    del NAMES[name]


class Spans:
    """Sends spans through a Collector, and finds them in the store."""

    def __init__(self, collector: Collector, store: Store) -> None:
        self._collector = collector
        self._store = store

    def through(self, **parts: Any) -> dict[str, Any]:
        """Send one span, give the row it became."""
        trace_id = uuid.uuid4().hex
        resource = parts.pop("resource", {})
        span = {
            "traceId": trace_id,
            "spanId": "00f067aa0ba902b7",
            "name": "GET",
            "kind": 3,
            "startTimeUnixNano": "1795450755443016983",
            "endTimeUnixNano": "1795450755443016999",
            **parts,
        }
        body = {
            "resourceSpans": [
                {"resource": {"attributes": attributes(resource)}, "scopeSpans": [{"spans": [span]}]}
            ]
        }
        answer = httpx.post(f"{self._collector.otlp}/v1/traces", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        sql = f"SELECT * FROM otel.otel_traces WHERE TraceId = '{trace_id}'"
        eventually(lambda: self._store.query(sql), "the span is in the store", 60)
        [row] = self._store.query(sql)
        return row


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    def value(item: Any) -> dict[str, Any]:
        return {"intValue": str(item)} if isinstance(item, int) else {"stringValue": item}

    return [{"key": key, "value": value(item)} for key, item in values.items()]


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spans]:
    directory = tmp_path_factory.mktemp("redaction")
    store = Store(directory)
    collector = Collector(directory, store.url)
    try:
        store.start()
        collector.start()
        yield Spans(collector, store)
    finally:
        kill(collector)
        kill(store)


def test_the_configuration_holds_what_the_rules_say_today() -> None:
    config = (COLLECTOR / "config.yaml").read_text("utf-8")
    assert config == written_into(config), "run `make docs`"


def test_values_beside_the_name_of_a_secret_leave_in_every_spelling(spans: Spans) -> None:
    row = spans.through(attributes=attributes(NAMES))
    kept = {name: value for name, value in row["SpanAttributes"].items() if "ter2" in value}
    assert set(row["SpanAttributes"]) == set(NAMES)
    assert not kept


def test_values_beside_a_name_that_only_resembles_one_stay(spans: Spans) -> None:
    names = [name for name in test_names.CLEAN if name not in test_names.PERSONAL]
    given = {name: f"kept {number}" for number, name in enumerate([*names, *test_names.NOT_PERSONAL])}
    row = spans.through(attributes=attributes(given | {"gen_ai.usage.input_tokens": 17}))
    assert row["SpanAttributes"] == given | {"gen_ai.usage.input_tokens": "17"}


def test_secrets_in_texts_leave_by_their_shape_and_beside_their_names(spans: Spans) -> None:
    given = {f"text.{number}": text for number, text in enumerate(SECRET_TEXTS)}
    row = spans.through(attributes=attributes(given))
    left = {key: text for key, text in row["SpanAttributes"].items() if any(n in text for n in NEEDLES)}
    assert set(row["SpanAttributes"]) == set(given)
    assert not left


def test_ibans_and_card_numbers_leave_however_they_are_written(spans: Spans) -> None:
    cards = (
        "4111 - 1111 - 1111 - 1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "４１１１ １１１１ １１１１ １１１１",
    )
    grouped = [" ".join(iban[at : at + 4] for at in range(0, len(iban), 4)) for iban in test_rule_sets.IBANS]
    given = {
        f"text.{n}": f"to {text} now" for n, text in enumerate([*test_rule_sets.IBANS, *grouped, *cards])
    }
    row = spans.through(attributes=attributes(given))
    assert row["SpanAttributes"] == dict.fromkeys(given, "to [redacted] now")


def test_texts_without_a_secret_stay_as_they_are(spans: Spans) -> None:
    # A hundred of these would pass for IBANs: here is no check.
    uuids = [f"ee{number:06d}-8703-4a00-a905-0d4f7c9e{number:04d}" for number in range(100)]
    uuids += test_rule_sets.UUIDS_LIKE_NUMBERS
    texts = [*CLEAN_TEXTS, *uuids, *(f"/orders/{uuid}/lines" for uuid in uuids)]
    given = {f"text.{number}": text for number, text in enumerate(texts)}
    assert spans.through(attributes=attributes(given))["SpanAttributes"] == given


@pytest.mark.parametrize("key", ["db.statement", "db.query.text"])
def test_no_literal_of_a_statement_is_left(spans: Spans, key: str) -> None:
    for statement in STATEMENTS:
        row = spans.through(attributes=attributes({"db.system.name": "postgresql", key: statement}))
        assert "hunter2" not in row["SpanAttributes"][key], statement


def test_events_resource_name_and_status_are_redacted_as_well(spans: Spans) -> None:
    secret = "password=hunter2"
    row = spans.through(
        name=f"GET /login?{secret}&a=1",
        status={"code": 2, "message": f"refused: {secret}"},
        attributes=attributes({"url.query": f"a=1&{secret}"}),
        events=[
            {
                "timeUnixNano": "1795450755443016990",
                "name": "exception",
                "attributes": attributes({"exception.message": secret, "user.password": "hunter2"}),
            }
        ],
        resource={"service.name": "shop", "deploy.note": secret, "deploy.token": "hunter2"},
    )
    assert "hunter2" not in str(row)
    assert row["SpanName"] == "GET /login?password=[redacted]&a=1"
    assert row["StatusMessage"] == "refused: password=[redacted]"
    assert row["SpanAttributes"]["url.query"] == "a=1&password=[redacted]"
    assert row["Events.Attributes"][0]["exception.message"] == "password=[redacted]"
    assert row["ResourceAttributes"]["service.name"] == "shop"


def test_the_section_is_named_when_a_configuration_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no section between"):
        written_into("processors:\n")
