"""One call without the agent: what it starts, what it takes away again, and what happens when it cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_audit
from otel_audit import recording, startup
from otel_audit.config.model import AuditConfig, DjangoConfig, RedactionConfig, SinkConfig, SpoolConfig
from otel_audit.pipeline import provider
from otel_audit.testing import capture_audit


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    return AuditConfig(
        spool=SpoolConfig(directory=str(tmp_path / "spool")),
        sink=SinkConfig(endpoint="http://127.0.0.1:9/v1/audit", shutdown_timeout=0.0),
    )


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "DJANGO_SETTINGS_MODULE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    recording._tell.cache_clear()
    yield
    otel_audit.shutdown()
    startup._state.error = None


def exported(name: str = "x", **attributes: Any) -> Any:
    memory = InMemorySpanExporter()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(memory))
    with tracer_provider.get_tracer("tests").start_as_current_span(name, attributes=attributes):
        pass
    return memory.get_finished_spans()[0]


def test_setup_starts_everything_and_shutdown_takes_everything_away(config: AuditConfig) -> None:
    propagator = get_global_textmap()
    pipeline = otel_audit.setup(config, instrument=False)
    assert pipeline is not None
    assert provider.current() is pipeline
    assert startup.startup_error() is None
    assert startup.why_off() is None
    assert exported(password="hunter2").attributes == {"password": "[redacted]"}
    assert get_global_textmap() is not propagator
    otel_audit.shutdown()
    assert provider.current() is None
    assert exported(password="hunter2").attributes == {"password": "hunter2"}
    assert get_global_textmap() is propagator
    assert startup.why_off() == "audit has been shut down"


def test_setup_again_replaces_what_was_started(config: AuditConfig) -> None:
    first = otel_audit.setup(config, instrument=False)
    second = otel_audit.setup(config, instrument=False)
    assert first is not second
    assert provider.current() is second
    otel_audit.shutdown()
    assert exported(password="hunter2").attributes == {"password": "hunter2"}


def test_the_file_given_is_the_one_that_counts(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text('tenant = "acme"\n[spool]\ndirectory = "s"\n[sink]\nshutdown_timeout = 0.0\n')
    pipeline = otel_audit.setup(config_file=file, instrument=False)
    assert pipeline is not None
    assert pipeline.config.tenant == "acme"


def test_spans_may_be_left_alone_and_still_carry_the_actor(config: AuditConfig) -> None:
    spans = RedactionConfig(spans=False)
    otel_audit.setup(AuditConfig(spool=config.spool, sink=config.sink, redaction=spans), instrument=False)
    with otel_audit.context(actor="7"):
        assert exported(password="hunter2").attributes == {"password": "hunter2", "audit.actor.id": "7"}


def test_switched_off_nothing_starts(config: AuditConfig, caplog: pytest.LogCaptureFixture) -> None:
    assert otel_audit.setup(AuditConfig(enabled=False, spool=config.spool), instrument=False) is None
    assert provider.current() is None
    assert startup.startup_error() is None
    assert "enabled = false" in caplog.text


def test_a_failed_start_is_logged_kept_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "otel-audit.toml").write_text("[redaction]\nnames = ['(']\n")
    assert otel_audit.setup(instrument=False) is None
    assert "redaction" in str(startup.startup_error())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert provider.current() is None
    assert exported(password="hunter2").attributes == {"password": "hunter2"}


def test_a_failed_start_raises_with_fail_closed(tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text('on_error = "fail_closed"\n[redaction]\nnames = ["("]\n')
    with pytest.raises(otel_audit.ConfigurationError, match="redaction"):
        otel_audit.setup(instrument=False)
    assert provider.current() is None


def test_a_failure_of_any_other_kind_is_an_audit_error_with_fail_closed(
    config: AuditConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "start", lambda *_, **__: 1 / 0)
    closed = AuditConfig(on_error="fail_closed", spool=config.spool, sink=config.sink)
    with pytest.raises(otel_audit.AuditError, match="division by zero"):
        otel_audit.setup(closed, instrument=False)
    assert otel_audit.setup(config, instrument=False) is None


def test_a_later_start_that_succeeds_clears_the_error(tmp_path: Path, config: AuditConfig) -> None:
    (tmp_path / "otel-audit.toml").write_text("nonsense = 1\n")
    otel_audit.setup(instrument=False)
    assert startup.startup_error() is not None
    otel_audit.setup(config, instrument=False)
    assert startup.startup_error() is None


def test_the_application_records_what_only_it_knows() -> None:
    with capture_audit() as captured, otel_audit.context(actor="7", reason="asked by phone"):
        made = otel_audit.record(
            "shop.invoice.export",
            "EXPORT",
            target=otel_audit.Target("shop.Invoice", "12"),
            changes=[otel_audit.Change("status", "open", "sent")],
            attributes={"password": "hunter2", "format": "pdf"},
            message="exported token=hunter2",
        )
    found = captured.one(event_name="shop.invoice.export")
    assert found == made
    assert found.actor.id == "7"
    assert found.reason == "asked by phone"
    assert found.attributes == {"password": "[redacted]", "format": "pdf"}
    assert found.message == "exported token=[redacted]"


def test_a_record_that_cannot_be_made_does_not_reach_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with capture_audit() as captured:
        assert otel_audit.record("", "lower case") is None
    assert captured.records == []
    assert "event name" in caplog.text


def test_it_does_with_fail_closed(config: AuditConfig) -> None:
    closed = AuditConfig(on_error="fail_closed", spool=config.spool, sink=config.sink)
    with capture_audit(closed), pytest.raises(otel_audit.InvalidRecord, match="event name"):
        otel_audit.record("", "EXPORT")


def test_recording_without_audit_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    otel_audit.shutdown()
    assert otel_audit.record("shop.x", "EXPORT") is None
    assert otel_audit.record("shop.x", "EXPORT") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_instrumentor_gets_the_running_configuration_with_its_options_over_it(config: AuditConfig) -> None:
    django = DjangoConfig(models=["shop.*"], failures=False)
    otel_audit.setup(AuditConfig(spool=config.spool, sink=config.sink, django=django), instrument=False)
    chosen = startup.for_instrumentor("django", {"models": ["auth.User"]})
    assert chosen is not None
    assert chosen.django == DjangoConfig(models=["auth.User"], failures=False)
    assert startup.for_instrumentor("django", {}).django == django  # type: ignore[union-attr]


def test_an_unknown_option_of_an_instrumentor_names_the_nearest(config: AuditConfig) -> None:
    otel_audit.setup(config, instrument=False)
    with pytest.raises(otel_audit.ConfigurationError, match=r"modles(.|\n)*models"):
        startup.for_instrumentor("django", {"modles": ["shop.*"]})


def test_an_instrumentor_without_audit_is_told_why() -> None:
    otel_audit.shutdown()
    assert startup.for_instrumentor("django", {}) is None
    assert startup.why_off() is not None


def test_the_public_names_are_what_they_say() -> None:
    for name in otel_audit.__all__:
        assert getattr(otel_audit, name) is not None
    assert callable(otel_audit.context)
    assert callable(otel_audit.record)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        otel_audit.nonsense  # noqa: B018
