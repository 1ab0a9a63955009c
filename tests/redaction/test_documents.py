"""The page about redaction is run: its configuration, its code, and each name and shape it promises."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from msgspec import UNSET
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_audit.audit_record import AuditRecord, Change
from otel_audit.config import load
from otel_audit.http.contents import Contents
from otel_audit.redaction import Redactor

PAGE = (Path(__file__).parents[2] / "docs" / "redaction.md").read_text("utf-8")


def block(language: str, of: int = 1, number: int = 0) -> str:
    """Return a block of ``of`` that the page has in a language."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == of
    return str(found[number])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("OTEL_", "DJANGO_")):
            monkeypatch.delenv(name)


def test_the_configuration_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text(block("toml", 2), "utf-8")
    loaded = load(environ={"OTEL_AUDIT_REDACTION_HMAC_KEY": "sixteen letters!"})
    assert loaded.notes == []
    redactor = Redactor(loaded.config.redaction)
    fields = loaded.config.django.model["shop.Customer"].fields
    given = {
        "email": "a@b.example",
        "phone": "+49 30 901817",
        "iban": "DE89370400440532013000",
        "notes": "x",
        "tax_id": "12345678",
        "card": "visa",
        "Sesame": "open",
        "about": "KD-12345678 or kd-12345678",
    }
    record = AuditRecord(
        id="r",
        timestamp=1,
        observed_timestamp=1,
        event_name="shop.customer.create",
        action="CREATE",
        changes=[Change(name, new=value) for name, value in given.items()],
    )
    found = {change.field: change.new for change in redactor.record(record, fields).changes}
    assert found.pop("iban").startswith("hmac:")
    assert found == {
        "email": "[redacted]",
        "phone": "[redacted]17",
        "notes": UNSET,
        "tax_id": "12345678",
        "card": "visa",
        "Sesame": "[redacted]",
        "about": "[redacted] or [redacted]",
    }


def test_the_places_of_the_page_have_the_rules_it_says(tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text(block("toml", 2, 1), "utf-8")
    contents = Contents.of(load(environ={}).config)
    assert contents.headers({"X-Api-Key": "a", "Cookie": "b"}) == {"x-api-key": "a", "cookie": "[redacted]"}
    assert contents.query("q=tea&diary=a&x-api-key=b") == "q=[redacted]&diary=a&x-api-key=[redacted]"
    body = contents.body(b'{"diary": "a", "q": "KD-12345678", "x-api-key": "b"}', "application/json", 1000)
    assert body.value == {"diary": "[redacted]", "q": "[redacted]", "x-api-key": "[redacted]"}
    argv = contents.arguments(["--token", "a", "--password", "b"])
    assert argv == ["--token", "a", "--password", "[redacted]"]


def test_the_names_of_the_page_are_judged_as_it_says() -> None:
    decide = Redactor(load(environ={}).config.redaction).names.decide
    rows = dict(re.findall(r"^\| \*\*(.*?)\*\* \| (.*) \|$", PAGE, re.MULTILINE))
    secret, harmless = rows["By name"].split("Names that only describe", 1)
    for name in re.findall(r"`([\w-]+)`", secret):
        assert decide(name) == "secret", name
    for name in re.findall(r"`([\w-]+)`", harmless):
        assert decide(name) == "clean", name
    personal = rows["Numbers of persons and accounts"].split(", in all spellings")[0]
    names = re.findall(r"`(\w+)`", personal)
    assert len(names) == 9
    assert {decide(name) for name in names} == {"personal", "ambiguous"}


def test_the_code_of_the_page_exports_redacted_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    memory: list[InMemorySpanExporter] = []

    def exporter() -> SpanExporter:
        memory.append(InMemorySpanExporter())
        return memory[0]

    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", exporter)
    names: dict[str, object] = {}
    exec(compile(block("python"), "docs/redaction.md", "exec"), names)
    provider = names["provider"]
    with provider.get_tracer("x").start_as_current_span("x", attributes={"password": "hunter2"}):  # type: ignore[attr-defined]
        pass
    provider.force_flush()  # type: ignore[attr-defined]
    [span] = memory[0].get_finished_spans()
    assert dict(span.attributes or {}) == {"password": "[redacted]"}
    provider.shutdown()  # type: ignore[attr-defined]
