"""G5: what a type encrypts is on no record, neither as text nor as cipher, whatever its column is called."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesEngine, AesGcmEngine, FernetEngine

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited

WORDS = ("attack at dawn", "retreat at dusk", "hold the bridge", "burn the boats", "feed the horses")
KEY = "correct horse battery staple"


class EncryptedString(sa.types.TypeDecorator[str]):
    """Stores a text as a cipher that is another one each time."""

    impl = sa.String(200)
    cache_ok = True
    made: ClassVar[list[str]] = []
    _times: ClassVar[Any] = itertools.count()

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is None:
            return None
        shift = 1 + next(self._times) % 90
        body = bytes([shift, *((byte + shift) % 256 for byte in value.encode())])
        self.made.append(base64.b64encode(body).decode())
        return self.made[-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        if value is None:
            return None
        shift, *body = base64.b64decode(value)
        return bytes((byte - shift) % 256 for byte in body).decode()


class FolderBase(DeclarativeBase):
    """The classes of this file; no name in it says anything of secrets."""


class Folder(FolderBase):
    __tablename__ = "folder"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(sa.String(30))
    note: Mapped[str | None] = mapped_column(EncryptedString)


class Binder(FolderBase):
    __tablename__ = "binder"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(sa.String(30))
    note: Mapped[str | None] = mapped_column(
        StringEncryptedType(sa.Unicode, KEY, AesEngine, "pkcs5", length=250)
    )


class Ringbinder(FolderBase):
    __tablename__ = "ringbinder"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(sa.String(30))
    note: Mapped[str | None] = mapped_column(StringEncryptedType(sa.Unicode, KEY, AesGcmEngine, length=250))


class Envelope(FolderBase):
    __tablename__ = "envelope"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(sa.String(30))
    note: Mapped[str | None] = mapped_column(StringEncryptedType(sa.Unicode, KEY, FernetEngine, length=250))


@pytest.fixture(params=["sqlite", "psycopg", "pymysql"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def audit() -> Iterator[CapturedAudit]:
    """Everything is recorded: rows as a whole, failures, and reads as well."""
    config = AuditConfig(sqlalchemy=SQLAlchemyConfig(models=["*"], reads=["*"], old_values="exact"))
    with audited(SQLAlchemyAuditInstrumentor(), config) as captured:
        yield captured


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    engine = make_engine()
    FolderBase.metadata.create_all(engine)
    return engine


@pytest.fixture
def ciphers(engine: sa.Engine) -> Iterator[list[str]]:
    """What is stored, by every statement of the test: the parameters that the driver is given."""
    sent: list[str] = []

    def noted(*arguments: Any) -> None:
        parameters = arguments[3]
        for each in parameters if isinstance(parameters, list) else [parameters]:
            values = each.values() if isinstance(each, dict) else each
            sent.extend(str(value) for value in values if isinstance(value, str) and len(value) > 15)

    sa.event.listen(engine, "before_cursor_execute", noted)
    yield sent
    sa.event.remove(engine, "before_cursor_execute", noted)


@pytest.mark.parametrize("model", [Folder, Binder, Ringbinder, Envelope])
def test_neither_text_nor_cipher_is_on_record(
    engine: sa.Engine, audit: CapturedAudit, ciphers: list[str], model: Any
) -> None:
    first, second, third, fourth, fifth = WORDS
    with Session(engine) as session:
        session.add_all([model(id=1, title="a", note=first), model(id=2, title="b", note=second)])
        session.commit()
        one = session.get_one(model, 1)
        one.note = third
        session.commit()
        session.execute(sa.insert(model).values(id=3, title="c", note=fourth))
        session.execute(sa.insert(model), [{"id": key, "title": "d", "note": fifth} for key in (4, 5)])
        session.execute(sa.update(model).where(model.id > 2).values(note=first))
        session.execute(sa.update(model).where(model.note == first).values(title="e"))
        session.execute(sa.update(model), [{"id": 4, "note": second}, {"id": 5, "note": third}])
        session.execute(sa.select(model.note, model.id)).all()
        session.commit()
        with pytest.raises(IntegrityError):
            session.execute(sa.insert(model).values(id=1, title="f", note=fourth))
        session.rollback()
        session.add(model(id=2, title="g", note=fifth))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.delete(session.get_one(model, 1))
        session.execute(sa.delete(model).where(model.id > 1))
        session.commit()
    assert len(ciphers) > 10
    audit.assert_no_secrets(*WORDS, *ciphers, *EncryptedString.made)
    created = [change for record in audit.find(action="CREATE") for change in record.changes]
    assert {change.new for change in created if change.field == "note"} == {"[redacted]"}
    assert {record.outcome for record in audit.find(action="CREATE")} == {"success", "failure"}
    assert {"CREATE", "UPDATE", "DELETE", "READ"} == {record.action for record in audit}


@pytest.mark.parametrize("model", [Folder, Binder, Ringbinder, Envelope])
def test_a_change_of_what_is_encrypted_is_recorded_and_only_a_change(
    engine: sa.Engine, audit: CapturedAudit, model: Any
) -> None:
    with Session(engine) as session:
        session.add(model(id=1, title="a", note=WORDS[0]))
        session.commit()
        audit.clear()
        one = session.get_one(model, 1)
        one.note = WORDS[0]
        session.commit()
        assert audit.find(action="UPDATE") == []
        one.note = WORDS[1]
        session.commit()
    record = audit.one(action="UPDATE")
    assert [(change.field, change.old, change.new) for change in record.changes] == [
        ("note", "[redacted]", "[redacted]")
    ]
