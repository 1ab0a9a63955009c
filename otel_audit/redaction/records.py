"""Records without sensitive values: part by part, and most of them with one look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from otel_audit.record import AuditRecord, Bulk, Change, Column, Target
from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.long_texts import JSON_LENGTH, head_of, rest_of
from otel_audit.redaction.patterns import SMALLEST_CARD

if TYPE_CHECKING:
    from otel_audit.redaction.redactor import Redactor

_UUID = pattern(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SECRET_ID_LENGTH: Final = 16
_SIMPLE: Final = frozenset({str, int, bool, float, type(None), UnsetType})
_TEXTS: Final = ("message", "error", "reason")
_CONTEXT_TEXTS: Final = (
    ("request", ("path", "route", "view", "id")),
    ("source", ("user_agent",)),
    ("actor", ("id", "name", "on_behalf_of")),
)


class RecordRedactor:
    """Gives redacted records, by the rules of a :class:`Redactor`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def record(self, record: AuditRecord, strategies: Mapping[str, str]) -> AuditRecord:
        """Give a record without sensitive values; the same object if it holds none.

        ``strategies`` maps the names of fields to strategies; it decides before the rules do.
        """
        if not self._redactor.has_own_values and self._is_clean(record, strategies):
            return record
        replaced: dict[str, Any] = {}
        for name in _TEXTS:
            text = getattr(record, name)
            if text and (redacted := self._redactor.text(text)) is not text:
                replaced[name] = redacted
        for name, members in _CONTEXT_TEXTS:
            part = getattr(record, name)
            found = {
                member: redacted
                for member in members
                if (text := getattr(part, member)) and (redacted := self._redactor.text(text)) is not text
            }
            if found:
                replaced[name] = msgspec.structs.replace(part, **found)
        if record.target is not None and (target := self._target(record.target)) is not record.target:
            replaced["target"] = target
        if record.related:
            _keep_changed(
                replaced, "related", record.related, [self._target(item) for item in record.related]
            )
        if record.changes:
            changes = [self._change(change, strategies.get(change.field)) for change in record.changes]
            _keep_changed(replaced, "changes", record.changes, changes)
        if record.image and (image := self._image(record.image, strategies)) is not record.image:
            replaced["image"] = image
        if (
            record.attributes
            and (attributes := self._image(record.attributes, strategies)) is not record.attributes
        ):
            replaced["attributes"] = attributes
        if record.bulk is not None and (bulk := self._bulk(record.bulk, strategies)) is not record.bulk:
            replaced["bulk"] = bulk
        return msgspec.structs.replace(record, **replaced) if replaced else record

    def shortened(self, record: AuditRecord, strategies: Mapping[str, str], limit: int) -> AuditRecord:
        """Give a record whose texts have at most ``limit`` characters; the same object if none is longer.

        Not those of sensitive fields: what becomes of them is decided by the whole value.
        """
        replaced: dict[str, Any] = {}

        def short(name: str, value: Any) -> Any:
            if type(value) is not str or len(value) <= limit or not self._may_be_cut(name, strategies):
                return value
            if value[:1] in "{[" and len(value) <= JSON_LENGTH:
                return value  # redaction reads a whole document
            return head_of(value, limit) + rest_of(value, self._redactor.strategies.digest(value))

        def cut_cells(name: str, cells: list[Any] | UnsetType) -> list[Any] | UnsetType:
            return [short(name, cell) for cell in cells] if isinstance(cells, list) else cells

        changes = [
            Change(change.field, old, new, change.type)
            if old is not change.old or new is not change.new
            else change
            for change in record.changes
            for old, new in [(short(change.field, change.old), short(change.field, change.new))]
        ]
        _keep_changed(replaced, "changes", record.changes, changes)
        for part in ("image", "attributes"):
            values = getattr(record, part)
            cut = {name: short(name, value) for name, value in values.items()}
            if any(cut[name] is not value for name, value in values.items()):
                replaced[part] = cut
        if record.bulk is not None:
            columns = [
                Column(
                    column.field,
                    cut_cells(column.field, column.old),
                    cut_cells(column.field, column.new),
                    column.type,
                )
                for column in record.bulk.columns
            ]
            if columns != record.bulk.columns:
                replaced["bulk"] = msgspec.structs.replace(record.bulk, columns=columns)
        return msgspec.structs.replace(record, truncated=True, **replaced) if replaced else record

    def _may_be_cut(self, name: str, strategies: Mapping[str, str]) -> bool:
        strategy = strategies.get(name)
        if strategy is None:
            return self._redactor.names.decide(name) in ("clean", "allowed")
        return strategy == "keep"

    def _is_clean(self, record: AuditRecord, strategies: Mapping[str, str]) -> bool:
        """Tell in one go that nothing in a record is sensitive; False is only a doubt.

        Most records are clean, and one look at all texts together costs a fraction of one at each.
        """
        target = record.target
        if (
            record.bulk is not None
            or record.related
            or (target is not None and len(target.id) >= _SECRET_ID_LENGTH)
        ):
            return False
        changes, image, attributes = record.changes, record.image, record.attributes
        names = [*[change.field for change in changes], *image, *attributes]
        if not self._are_clean(names) or (strategies and not strategies.keys().isdisjoint(names)):
            return False
        values = [*image.values(), *attributes.values()]
        for change in changes:
            values += (change.old, change.new)
        kinds = set(map(type, values))
        if not kinds <= _SIMPLE:
            return False
        if int in kinds and max([value for value in values if type(value) is int]) >= SMALLEST_CARD:
            return False
        request, actor = record.request, record.actor
        values += (record.message, record.error, record.reason, record.source.user_agent)
        values += (request.path, request.route, request.view, request.id)
        values += (actor.id, actor.name, actor.on_behalf_of, "" if target is None else target.id)
        known = self._redactor.clean_texts
        texts = {value for value in values if type(value) is str and value not in known}
        if self._redactor.suspects("\n".join(texts)):
            return False
        self._redactor.remember_clean((), texts)
        return True

    def _are_clean(self, names: list[str]) -> bool:
        if self._redactor.clean_names.issuperset(names):
            return True
        if any(self._redactor.names.decide(name) != "clean" for name in names):
            return False
        self._redactor.remember_clean(names, ())
        return True

    def _target(self, target: Target) -> Target:
        identifier = target.id
        # The primary key of `authtoken.Token` and `sessions.Session` is the secret itself.
        name = target.type.rpartition(".")[2]
        if (
            self._redactor.builtin
            and (name == "Session" or self._redactor.is_secret(name))
            and len(identifier) >= _SECRET_ID_LENGTH
            and not (identifier.isdecimal() or _UUID.fullmatch(identifier))
        ):
            return Target(target.type, str(self._redactor.strategies.apply("keep_last:4", identifier)))
        redacted = self._redactor.text(identifier)
        return target if redacted is identifier else Target(target.type, redacted)

    def _change(self, change: Change, strategy: str | None) -> Change:
        old = self._redactor.field(change.field, change.old, strategy)
        new = self._redactor.field(change.field, change.new, strategy)
        if old is change.old and new is change.new:
            return change
        return Change(change.field, old, new)  # without a type: it told what the original text was

    def _image(self, image: dict[str, Any], strategies: Mapping[str, str]) -> dict[str, Any]:
        changed: dict[str, Any] | None = None
        for name, value in image.items():
            redacted = self._redactor.field(name, value, strategies.get(name))
            if redacted is not value:
                if changed is None:
                    changed = dict(image)
                if isinstance(redacted, UnsetType):
                    del changed[name]
                else:
                    changed[name] = redacted
        return image if changed is None else changed

    def _bulk(self, bulk: Bulk, strategies: Mapping[str, str]) -> Bulk:
        columns = [self._column(column, strategies.get(column.field)) for column in bulk.columns]
        keys = self._redactor.field("key", bulk.keys)  # type: ignore[arg-type]
        if keys is bulk.keys and all(new is old for new, old in zip(columns, bulk.columns, strict=True)):
            return bulk
        return msgspec.structs.replace(bulk, columns=columns, keys=keys)

    def _column(self, column: Column, strategy: str | None) -> Column:
        old = self._cells(column.field, column.old, strategy)
        new = self._cells(column.field, column.new, strategy)
        if old is column.old and new is column.new:
            return column
        return Column(column.field, old, new)

    def _cells(self, name: str, cells: list[Any] | UnsetType, strategy: str | None) -> list[Any] | UnsetType:
        if not isinstance(cells, list):
            return cells
        if strategy == "drop":
            return UNSET
        redact: Callable[[Any], Any] = lambda cell: self._redactor.field(name, cell, strategy)  # noqa: E731
        redacted = [redact(cell) for cell in cells]
        return cells if all(new is old for new, old in zip(redacted, cells, strict=True)) else redacted


def _keep_changed(replaced: dict[str, Any], name: str, old: list[Any], new: list[Any]) -> None:
    if any(after is not before for after, before in zip(new, old, strict=True)):
        replaced[name] = new
