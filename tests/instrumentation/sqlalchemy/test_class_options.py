"""``__audit__`` on a mapped class: each option does what the same key of the configuration does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from otel_audit.capture import opt_in
from otel_audit.config.model import AuditConfig, ModelConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.sqlalchemy.told import told

OPTIONS: dict[str, Any] = {
    "ignore": {"ignore": ["weight"]},
    "snapshot": {"snapshot": True},
    "exact": {"old_values": "exact"},
    "off": {"old_values": "off"},
    "mask": {"fields": {"label": "mask"}},
    "drop": {"fields": {"label": "drop"}},
    "last": {"fields": {"label": "keep_last:2", "weight": "mask"}},
    "encrypted": {"encrypted": ["lab*"]},
    "all": {
        "ignore": ["weight"],
        "snapshot": True,
        "old_values": "exact",
        "fields": {"label": "keep_last:2"},
    },
}


@pytest.fixture
def driver() -> str:
    """One database: what is said of a class is decided before any is asked."""
    return "sqlite"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests said, and afterwards what this one says."""
    monkeypatch.setattr(opt_in._State, "problems", {})


def made(said: Any = None) -> Any:
    """Map a class that says something of its audit; ``None``: nothing."""

    class GantryBase(DeclarativeBase):
        pass

    class Gantry(GantryBase):
        __tablename__ = "gantry"
        __audit__ = said

        id = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
        label = mapped_column(sa.String(30))
        weight = mapped_column(sa.Integer)

    return Gantry


def recorded(engine: sa.Engine, model: Any, config: AuditConfig) -> list[dict[str, Any]]:
    """Write with a stale session and a fresh one; return the records without what is each time another."""
    model.metadata.drop_all(engine)
    model.metadata.create_all(engine)
    with audited(SQLAlchemyAuditInstrumentor(), config) as audit:
        write(engine, model)
        model.registry.dispose()
        return [comparable(record) for record in audit]


def write(engine: sa.Engine, model: Any) -> None:
    with Session(engine) as session:
        session.add(model(id=1, label="first-AB", weight=1))
        session.commit()
    with Session(engine, expire_on_commit=False) as stale, Session(engine) as other:
        old = stale.get_one(model, 1)
        stale.commit()  # what it has loaded stays
        other.get_one(model, 1).label = "second-CD"
        other.commit()
        old.label = "third-EF"
        stale.commit()
        old.weight = 2
        stale.commit()
        stale.execute(sa.update(model).values(label="fourth-GH", weight=3))
        stale.delete(old)
        stale.commit()


def comparable(record: Any) -> dict[str, Any]:
    told_of: dict[str, Any] = msgspec.to_builtins(record)
    kept = ("action", "target", "outcome", "changes", "image", "old_values", "bulk", "completeness")
    if "bulk" in told_of:
        told_of["bulk"].pop("id")  # of the statement
    return {name: told_of.get(name) for name in kept}


def configured(**options: Any) -> AuditConfig:
    model = {"tests.Gantry": ModelConfig(**options)} if options else {}
    return AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["tests.Gantry"], model=model))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_option_does_what_the_configuration_does(
    make_engine: Callable[..., sa.Engine], options: Mapping[str, Any]
) -> None:
    engine = make_engine()
    by_class = recorded(engine, made(options), AuditConfig())
    assert by_class
    assert by_class == recorded(engine, made(), configured(**options))
    assert by_class != recorded(engine, made(), configured()), "without the option it is another record"


@pytest.fixture
def nothing_configured(make_engine: Callable[..., sa.Engine]) -> Callable[[Any], CapturedAudit]:
    """Return what writes with a class that alone says what is recorded, and returns the records."""

    def wrote(said: Any) -> CapturedAudit:
        engine, model = make_engine(), made(said)
        model.metadata.create_all(engine)
        with audited(SQLAlchemyAuditInstrumentor(), AuditConfig()) as audit:
            write(engine, model)
        model.registry.dispose()
        return audit

    return wrote


def test_ignored_fields_alone_make_no_record(nothing_configured: Callable[[Any], CapturedAudit]) -> None:
    rows = told(nothing_configured({"ignore": ["weight"]}))
    updates = [row[3] for row in rows if row[0] == "UPDATE"]
    assert [set(changes) for changes in updates] == [{"label"}, {"label"}, {"label", "weight"}]


def test_a_snapshot_has_the_whole_row(nothing_configured: Callable[[Any], CapturedAudit]) -> None:
    audit = nothing_configured({"snapshot": True})
    images = [record.image for record in audit.find(action="UPDATE") if record.bulk is None]
    assert images[2] == {"id": 1, "label": "third-EF", "weight": 2}


@pytest.mark.parametrize(
    ("old_values", "expected"),
    [
        ("exact", ("second-CD", "third-EF")),
        ("as_loaded", ("first-AB", "third-EF")),
        ("off", "third-EF"),
    ],
)
def test_old_values_are_those_of_the_row_or_of_the_object(
    nothing_configured: Callable[[Any], CapturedAudit], old_values: str, expected: Any
) -> None:
    updates = nothing_configured({"old_values": old_values}).find(action="UPDATE")
    assert told(updates)[1][3] == {"label": expected}


def test_fields_are_redacted_as_the_class_says(nothing_configured: Callable[[Any], CapturedAudit]) -> None:
    audit = nothing_configured({"fields": {"label": "keep_last:2", "weight": "mask"}})
    audit.assert_no_secrets("first-AB", "second-CD", "third-EF", "fourth-GH")
    changes = told(audit)[0][3]
    assert changes["label"].endswith("AB")
    assert changes["weight"] == "[redacted]"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"ignroe": ["weight"]}, "'ignroe' is not an option; did you mean 'ignore'?"),
        ({"snapshots": True}, "'snapshots' is not an option; did you mean 'snapshot'?"),
        ({"old_value": "exact"}, "'old_value' is not an option; did you mean 'old_values'?"),
        ({"exclude": ["weight"]}, "'exclude' is not an option; valid are changes, reads"),
        ({"old_values": "exakt"}, "old_values must be one of as_loaded, exact, off, not 'exakt'"),
        ({"fields": {"label": "masc"}}, "did you mean 'mask'?; the field is masked"),
        ("yes", "it must be True, False or a dict of options, not 'yes'"),
    ],
)
def test_what_is_written_wrongly_is_named_once_with_its_class_and_costs_no_statement_and_no_record(
    nothing_configured: Callable[[Any], CapturedAudit],
    caplog: pytest.LogCaptureFixture,
    said: Any,
    problem: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        audit = nothing_configured(said)
    [named] = [message for message in caplog.messages if "__audit__" in message]
    assert named.startswith(f"__audit__ of {__name__}.made.<locals>.Gantry: ")
    assert problem in named
    assert opt_in.problems() == [named]
    assert [row[0] for row in told(audit)] == ["CREATE", "UPDATE", "UPDATE", "UPDATE", "UPDATE", "DELETE"]
