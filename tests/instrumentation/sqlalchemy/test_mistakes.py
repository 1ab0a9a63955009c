"""Patterns that name nothing: the log says so once, with file and line, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from otel_audit.config.loader import load
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from tests.audited import audited


class HintBase(DeclarativeBase):
    pass


class Signpost(HintBase):
    __tablename__ = "signpost"

    id: Mapped[int] = mapped_column(primary_key=True)


CONFIGURATION = """\
[redaction]
personal_numbers = true
[sqlalchemy]
reads = ["signpost"]
models = [
  "tests.*",
  "tests.mistaken.Signpost",
  "tests.Singpost",
  "!nothing.*",
  "signposts",
]
[sqlalchemy.model."9999.8*"]
ignore = ["note"]
"""


@pytest.fixture
def driver() -> str:
    return "sqlite"


def configured(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Write a configuration and have it found."""
    file = folder / "otel-audit.toml"
    file.write_text(text)
    monkeypatch.setenv("OTEL_AUDIT_CONFIG", str(file))
    return file


def test_each_is_named_once_with_its_place_and_what_was_perhaps_meant(
    make_engine: Callable[..., sa.Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = configured(tmp_path, monkeypatch, CONFIGURATION)
    engine = make_engine()
    HintBase.metadata.create_all(engine)
    with audited(SQLAlchemyAuditInstrumentor(), load().config) as audit:
        assert not said(caplog), "nothing is known before the application writes"
        for _ in range(2):
            with Session(engine) as session:
                session.add(Signpost())
                session.commit()
    assert [record.event_name for record in audit] == ["tests.signpost.create"] * 2
    patterns_are = (
        "write package.Class as in shop.Order, the path of a class, or the name of a table, with * and ?"
    )
    wanted = [
        (7, "models", "tests.mistaken.Signpost", f"write '{__name__}.Signpost' if that is meant"),
        (8, "models", "tests.Singpost", "write 'tests.Signpost' if that is meant"),
        (
            *(10, "models", "signposts"),
            "write 'signpost' if that is meant; statements as text that name such a table are recorded",
        ),
        (12, "model", "9999.8*", patterns_are),
    ]
    assert said(caplog) == [
        f"{file}:{line}: sqlalchemy.{setting} has the pattern {pattern!r}, which matches no mapped class "
        f"and no table that was there at the first write; {hint}"
        for line, setting, pattern, hint in wanted
    ]


unkeyed = sa.Table("unkeyed_reading", HintBase.metadata, sa.Column("value", sa.Integer))


def test_a_table_without_a_key_is_named_once_with_the_place_that_chose_it(
    make_engine: Callable[..., sa.Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = '[sqlalchemy]\nmodels = [\n  "signpost",\n  "unkeyed_*",\n]\n'
    file = configured(tmp_path, monkeypatch, text)
    engine = make_engine()
    HintBase.metadata.create_all(engine)
    with audited(SQLAlchemyAuditInstrumentor(), load().config) as audit:
        for value in range(2):
            with engine.begin() as connection:
                connection.execute(unkeyed.insert().values(value=value))
        assert len(audit.records) == 2
    [message] = [message for message in caplog.messages if "primary key" in message]
    assert message == (
        f"{file}:4: sqlalchemy.models: unkeyed_reading has neither a primary key nor foreign keys: "
        "its rows are recorded by their number only; declare a primary key, in the class by `primary_key` of "
        "__mapper_args__, or exclude it: '!unkeyed_reading'"
    )


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "which matches no mapped class" in message]
