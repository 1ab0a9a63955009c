"""Records without sensitive values: part by part, and most of them with one look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from otel_audit.audit_record import AuditRecord, Bulk, Change, Column, Target
from otel_audit.config.model import Place
from otel_audit.large_values import digest_of_text
from otel_audit.long_texts import JSON_LENGTH, head_of, rest_of
from otel_audit.redaction.named_values import may_be_apart, may_be_held
from otel_audit.redaction.names import SECRETS
from otel_audit.redaction.strategies import OMIT
from otel_audit.redaction.text.patterns import SMALLEST_CARD, is_uuid
from otel_audit.redaction.text.suspicions import WORDS_LENGTH, are_too_short
from otel_audit.redaction.text.together import SEAM, any_may_hold_secret
from otel_audit.redaction.value_redactor import MAX_DEPTH, ValueRedactor

SECRET_KEY: Final = "keep_last:4"  # noqa: S105
"""The strategy of a key that is a secret: rows can still be told apart."""
_SESSIONS: Final = frozenset({"Session", "Sessions", "session", "sessions"})
_SECRET_ID_LENGTH: Final = 16
_LARGEST_KEY_LENGTH: Final = 19  # of 64 bits
_SHORT: Final = 512
"""Characters of a text that is looked at together with others."""
_REMEMBERED: Final = 32
_TEXTS_AT_ONCE: Final = 64
_HARMLESS: Final = frozenset({bool, float, type(None), UnsetType})
_FLAT: Final = _HARMLESS | {int, str}
_STRUCTURES: Final = frozenset({dict, list})
_TEXTS: Final = (
    *("event_name", "message", "error", "reason", "tenant", "system"),
    *("event_type", "event_code", "slug", "code"),
)
_CONTEXT_TEXTS: Final = (
    ("request", ("path", "route", "view", "id", "parent")),
    ("source", ("user_agent",)),
    ("actor", ("id", "name", "on_behalf_of", "on_behalf_of_name", "roles")),
    ("origin", ("actor", "name", "request")),
    ("database", ("query",)),
)


class RecordRedactor:
    """Redacts records, by the rules of a :class:`ValueRedactor`."""

    def __init__(self, redactor: ValueRedactor, places: Mapping[Place, ValueRedactor] | None = None) -> None:
        self._redactor = redactor
        self._places = places or {}

    def record(
        self, record: AuditRecord, strategies: Mapping[str, str], key: Sequence[str] | None = None
    ) -> AuditRecord:
        """Return a record without sensitive values; the same object if it holds none.

        ``strategies`` and ``key`` as in :meth:`otel_audit.redaction.redactor.Redactor.record`.
        """
        if self._places and record.attributes:
            placed = self._placed(record.attributes)
            if placed:
                return self._by_place(record, placed, strategies, key)
        return self._everywhere(record, strategies, key)

    def _placed(self, attributes: Mapping[str, Any]) -> dict[str, ValueRedactor]:
        """Return what redacts each attribute that shows a place with rules of its own."""
        from otel_audit.redaction.places import place_of  # only where a place has rules of its own

        return {
            name: self._places[place]
            for name in attributes
            if (place := place_of(name)) is not None and place in self._places
        }

    def _by_place(
        self,
        record: AuditRecord,
        placed: Mapping[str, ValueRedactor],
        strategies: Mapping[str, str],
        key: Sequence[str] | None,
    ) -> AuditRecord:
        """Redact some attributes by the rules of their places, and all else by those that hold everywhere."""
        others = {name: value for name, value in record.attributes.items() if name not in placed}
        made = self._everywhere(msgspec.structs.replace(record, attributes=others), strategies, key)
        shown = {
            self._redactor.text(name): redactor.field(name, record.attributes[name])
            for name, redactor in placed.items()
        }
        return msgspec.structs.replace(made, attributes={**made.attributes, **shown})

    def _everywhere(
        self, record: AuditRecord, strategies: Mapping[str, str], key: Sequence[str] | None
    ) -> AuditRecord:
        if not self._redactor.has_own_values and self._is_clean(record, strategies, key):
            return record
        replaced = self._texts(record, _TEXTS)
        for name, members in _CONTEXT_TEXTS:
            part = getattr(record, name)
            if part is not None and (found := self._texts(part, members)):
                replaced[name] = msgspec.structs.replace(part, **found)
        if record.target is not None and (target := self._target(record.target, key)) is not record.target:
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
        if record.attributes:
            attributes = self._with_clean_names(self._image(record.attributes, strategies))
            if attributes is not record.attributes:
                replaced["attributes"] = attributes
        if record.fields:
            _keep_changed(replaced, "fields", record.fields, [self._redactor.text(f) for f in record.fields])
        if record.bulk is not None:
            identifier = self._identifiers("" if record.target is None else record.target.type, key)
            bulk = self._bulk(record.bulk, strategies, identifier)
            if bulk is not record.bulk:
                replaced["bulk"] = bulk
        return msgspec.structs.replace(record, **replaced) if replaced else record

    def shortened(self, record: AuditRecord, strategies: Mapping[str, str], limit: int) -> AuditRecord:
        """Return a record whose texts have at most ``limit`` characters; the same object if none is longer.

        Not those of sensitive fields: what becomes of them is decided by the whole value.
        """
        replaced: dict[str, Any] = {}

        def short(name: str, value: Any) -> Any:
            if type(value) is not str or len(value) <= limit or not self._may_be_cut(name, strategies):
                return value
            if value[:1] in "{[" and len(value) <= JSON_LENGTH:
                return value  # redaction reads a whole document
            return head_of(value, limit) + rest_of(
                len(value),
                digest=self._redactor.digest(digest_of_text(value)) if self._redactor.has_key else "",
            )

        def cut_cells(name: str, cells: list[Any] | UnsetType) -> list[Any] | UnsetType:
            if not isinstance(cells, list):
                return cells
            kinds = set(map(type, cells))
            if str not in kinds:
                return cells
            texts = cells if len(kinds) == 1 else [cell for cell in cells if type(cell) is str]
            if max(map(len, texts)) <= limit:
                return cells
            cut = [short(name, cell) for cell in cells]
            return cells if all(new is old for new, old in zip(cut, cells, strict=True)) else cut

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
                column
                if old is column.old and new is column.new
                else Column(column.field, old, new, column.type)
                for column in record.bulk.columns
                for old, new in [(cut_cells(column.field, column.old), cut_cells(column.field, column.new))]
            ]
            if any(new is not old for new, old in zip(columns, record.bulk.columns, strict=True)):
                replaced["bulk"] = msgspec.structs.replace(record.bulk, columns=columns)
        return msgspec.structs.replace(record, truncated=True, **replaced) if replaced else record

    def _may_be_cut(self, name: str, strategies: Mapping[str, str]) -> bool:
        strategy = strategies.get(name)
        if strategy is None:
            return self._redactor.names.decide(name) in ("clean", "allowed")
        return strategy == "keep"

    def _texts(self, part: msgspec.Struct, members: Sequence[str]) -> dict[str, Any]:
        """Return the members that change, redacted."""
        return {
            member: redacted
            for member in members
            if (text := getattr(part, member)) and (redacted := self._redactor.text(text)) is not text
        }

    def _is_clean(
        self, record: AuditRecord, strategies: Mapping[str, str], key: Sequence[str] | None
    ) -> bool:
        """Tell in one go that nothing in a record is sensitive; False is only a doubt.

        Most records are clean, and one look at all texts together costs a fraction of one at each.
        """
        target = record.target
        if record.bulk is not None or (
            target is not None and (self._has_secret_key(target) if key is None else any(key))
        ):
            return False
        changes, image, attributes = record.changes, record.image, record.attributes
        names = [*[change.field for change in changes], *image]
        names += attributes if strategies else _not_masked(attributes, self._redactor.mask)
        names += record.fields
        values = [*image.values(), *attributes.values()]
        for change in changes:
            values += (change.old, change.new)
        request, actor = record.request, record.actor
        texts = [record.message, record.error, record.reason, record.source.user_agent]
        texts += (request.path, request.route, request.view, record.database.query)
        if not is_uuid(request.id):  # each request has another, and no rule changes one
            texts.append(request.id)
        if request.parent and not is_uuid(request.parent):
            texts.append(request.parent)
        texts += (record.event_name, record.tenant, record.system, record.event_type, record.code)
        if record.slug or record.event_code:
            texts += (record.slug, record.event_code)
        texts += (actor.id, actor.name)
        if actor.on_behalf_of or actor.on_behalf_of_name or actor.roles:
            texts += (actor.on_behalf_of, actor.on_behalf_of_name, actor.roles)
        if record.origin is not None:
            texts += msgspec.structs.astuple(record.origin)
        if target is not None:
            texts += (target.type, target.id)
        for related in record.related:
            if self._has_secret_key(related):
                return False
            texts += (related.type, related.id)
        return self.are_clean(names, values, texts, strategies)

    def are_clean(
        self, names: list[str], values: list[Any], texts: list[str], strategies: Mapping[str, str]
    ) -> bool:
        """Tell in one go that nothing in portable values, names of values and texts is sensitive.

        False is only a doubt; own patterns of values are not asked. The lists may be added to.
        """
        for name, strategy in list(strategies.items()):  # a field may get one while others are written
            if strategy != "keep" and name in names:
                return False
        if not _take_apart(values, names, texts, 0, self._redactor.mask):
            return False
        if not self._redactor.clean_names.issuperset(names) and not self._are_clean(names):
            return False
        known = self._redactor.clean_texts
        if known.issuperset(texts):
            return True
        unknown = set(texts) - known
        if self._redactor.suspects(SEAM.join(unknown)):
            return False
        if (
            len(unknown) <= _REMEMBERED
        ):  # of a body, each has others: they would only drive out what comes again
            self._redactor.remember_clean((), unknown)
        return True

    def _are_clean(self, names: list[str]) -> bool:
        if any(self._redactor.names.decide(name) != "clean" for name in names):
            return False
        # What stands in place of a name may be anything: `context(**{"password=x": 1})`.
        if self._redactor.suspects("\n".join(names)) and any(
            self._redactor.text(name) is not name for name in names
        ):
            return False
        self._redactor.remember_clean(names, ())
        return True

    def _target(self, target: Target, key: Sequence[str] | None = None) -> Target:
        identifier = self._identifiers(target.type, key)(target.id)
        type_ = self._redactor.text(target.type)
        return target if identifier is target.id and type_ is target.type else Target(type_, identifier)

    def _with_clean_names(self, attributes: dict[str, Any]) -> dict[str, Any]:
        names = [self._redactor.text(name) for name in attributes]
        if all(new is old for new, old in zip(names, attributes, strict=True)):
            return attributes
        changed: dict[str, Any] = {}
        for name, value in zip(names, attributes.values(), strict=True):
            unique, number = name, 2
            while unique in changed:  # two names that differed in their secret only
                unique, number = f"{name} ({number})", number + 1
            changed[unique] = value
        return changed

    def identifier(self, identifier: str, key: Sequence[str]) -> str:
        """Return what may be shown of one id, by the strategies of its parts."""
        return self._identifiers("", key)(identifier)

    def _identifiers(self, type_: str, key: Sequence[str] | None) -> Callable[[str], str]:
        """Return what redacts the ids of objects of one type."""
        if key is None:
            name = type_.rpartition(".")[2]
            if self._redactor.builtin and name in _SESSIONS:
                return self._session_key
            return self._secret_key if self._redactor.names.decide(name) in SECRETS else self._redactor.text
        if not any(key):
            return self._redactor.text
        if len(key) == 1:
            return lambda identifier: self._part(identifier, key[0])
        return lambda identifier: self._composite(identifier, key)

    def _has_secret_key(self, target: Target) -> bool:
        """Say whether the id of a target may be a secret by what it is of."""
        return (
            len(target.id) >= _SECRET_ID_LENGTH
            and self._identifiers(target.type, None) != self._redactor.text
        )

    def _session_key(self, identifier: str) -> str:
        # Sessions of a therapist or a chat have UUIDs; Django's have 32 letters and digits.
        if is_uuid(identifier):
            return self._redactor.text(identifier)
        return self._secret_key(identifier)

    def _secret_key(self, identifier: str) -> str:
        """Redact what is as long as a secret, unless it is the number of a row."""
        if len(identifier) < _SECRET_ID_LENGTH or (
            identifier.isdecimal() and len(identifier) <= _LARGEST_KEY_LENGTH
        ):
            return self._redactor.text(identifier)
        return self._part(identifier, SECRET_KEY)

    def _part(self, identifier: str, strategy: str) -> str:
        if not identifier or strategy == "keep":
            return identifier
        if not strategy:
            return self._redactor.text(identifier)
        # An id can be hidden, not left out: each row of a bulk record has one.
        return str(self._redactor.strategies.apply("mask" if strategy == "drop" else strategy, identifier))

    def _composite(self, identifier: str, key: Sequence[str]) -> str:
        """Redact the parts of a composite key, which is written as a JSON list."""
        if not identifier:
            return identifier
        try:
            parts = msgspec.json.decode(identifier)
        except ValueError:
            parts = None
        if not isinstance(parts, list) or len(parts) != len(key):
            return self._part(identifier, "mask")
        redacted = [
            self._part(part if isinstance(part, str) else str(part), strategy)
            if strategy or isinstance(part, str)
            else part
            for part, strategy in zip(parts, key, strict=True)
        ]
        return identifier if redacted == parts else msgspec.json.encode(redacted).decode()

    def _change(self, change: Change, strategy: str | None) -> Change:
        field = self._redactor.text(change.field)
        old = self._redactor.field(change.field, change.old, strategy)
        new = self._redactor.field(change.field, change.new, strategy)
        if old is change.old and new is change.new and field is change.field:
            return change
        return Change(field, old, new)  # without a type: it told what the original text was

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

    def _bulk(self, bulk: Bulk, strategies: Mapping[str, str], identifier: Callable[[str], str]) -> Bulk:
        columns = [self._column(column, strategies.get(column.field)) for column in bulk.columns]
        keys = self._keys(bulk.keys, identifier)
        if keys is bulk.keys and all(new is old for new, old in zip(columns, bulk.columns, strict=True)):
            return bulk
        return msgspec.structs.replace(bulk, columns=columns, keys=keys)

    def _keys(self, keys: list[str], identifier: Callable[[str], str]) -> list[str]:
        if identifier == self._redactor.text and not self._redactor.has_own_values:
            doubted = self._suspected(keys)
            if not doubted:
                return keys
            redacted = [identifier(key) if key in doubted else key for key in keys]
        else:
            redacted = [identifier(key) for key in keys]
        return keys if all(new is old for new, old in zip(redacted, keys, strict=True)) else redacted

    def _column(self, column: Column, strategy: str | None) -> Column:
        field = self._redactor.text(column.field)
        old = self._cells(column.field, column.old, strategy)
        new = self._cells(column.field, column.new, strategy)
        if old is column.old and new is column.new and field is column.field:
            return column
        return Column(field, old, new)

    def _cells(self, name: str, cells: list[Any] | UnsetType, strategy: str | None) -> list[Any] | UnsetType:
        if not isinstance(cells, list):
            return cells
        if strategy in ("drop", OMIT):
            return UNSET
        changed: list[Any] | None = None
        for index in self._doubtful(name, cells, strategy):
            cell = cells[index]
            redacted = self._redactor.field(name, cell, strategy)
            if redacted is not cell:
                if changed is None:
                    changed = list(cells)
                changed[index] = redacted
        return cells if changed is None else changed

    def _doubtful(self, name: str, cells: list[Any], strategy: str | None) -> Sequence[int]:
        """Return where cells stand that must be looked at one by one: where the name says nothing, few."""
        redactor = self._redactor
        if strategy is not None:
            return () if strategy == "keep" else range(len(cells))
        decision = redactor.names.decide(name)
        if decision == "allowed":
            return ()
        if decision != "clean" or redactor.has_own_values:
            return range(len(cells))
        kinds = set(map(type, cells))
        alike = len(kinds) == 1
        kinds -= _HARMLESS
        if int in kinds:
            numbers = cells if alike else [cell for cell in cells if type(cell) is int]
            if max(numbers) < SMALLEST_CARD:
                kinds.discard(int)
        texts: set[str] = set()
        if str in kinds:
            kinds.discard(str)
            texts = self._suspected(set(cells) if alike else {cell for cell in cells if type(cell) is str})
        if kinds and kinds <= _STRUCTURES and self._are_clean_structures(cells):
            kinds = set()
        if not kinds and not texts:
            return ()
        return [
            index
            for index, cell in enumerate(cells)
            if type(cell) in kinds or (type(cell) is str and cell in texts)
        ]

    def _suspected(self, texts: Collection[str]) -> set[str]:
        """Return those of many texts that a rule may match; most often a few looks find none."""
        redactor = self._redactor
        found: set[str] = set()
        unknown = short = [text for text in texts if text not in redactor.clean_texts]
        longest = max(map(len, unknown), default=0)
        if longest > _SHORT:
            longest = _SHORT
            short = [text for text in unknown if len(text) <= _SHORT]
            found.update(text for text in unknown if len(text) > _SHORT and redactor.suspects(text))
        looked = () if redactor.builtin and are_too_short(short) else short
        at_once = min(_TEXTS_AT_ONCE, WORDS_LENGTH // (longest + len(SEAM)))
        for start in range(0, len(looked), at_once):
            some = looked[start : start + at_once]
            if any_may_hold_secret(some) if redactor.builtin else redactor.names.has_own:
                found.update(filter(redactor.suspects, some))
        if not found and len(short) <= _TEXTS_AT_ONCE:
            redactor.remember_clean((), short)
        return found

    def _are_clean_structures(self, cells: list[Any]) -> bool:
        """Tell in one go that no structure of a column holds anything sensitive; False is only a doubt."""
        names: set[str] = set()
        texts: set[str] = set()
        structures = [cell for cell in cells if type(cell) in _STRUCTURES]
        if not _take_many_apart(structures, names, texts, self._redactor.mask):
            return False
        return self._are_clean(sorted(names)) and not self._suspected(texts)


def _not_masked(values: Mapping[str, Any], mask: str) -> Iterable[str]:
    """Return the names whose values were not redacted before, as those of a body are."""
    if mask in values.values():
        return [name for name, value in values.items() if value != mask]
    return values


def _take_apart(values: Iterable[Any], names: list[str], texts: list[str], depth: int, mask: str) -> bool:
    """Add the texts among values, and all names and texts of their structures, to lists.

    False if one must be looked at by itself.
    """
    for value in values:
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind is int:
            if value >= SMALLEST_CARD:
                return False
        elif kind is dict or kind is list:
            if depth >= MAX_DEPTH or may_be_apart(value):
                return False
            if kind is dict:
                names += _not_masked(value, mask)
                parts = value.values()
            elif any(type(part) is str and part[:1] == "-" for part in value):
                return False  # a command line, where what is an option says what comes next
            else:
                parts = value
            if not _take_apart(parts, names, texts, depth + 1, mask):
                return False
        elif kind not in _HARMLESS:
            return False
    return True


def _take_many_apart(structures: list[Any], names: set[str], texts: set[str], mask: str) -> bool:
    """Do :func:`_take_apart` for many structures level by level, in as many steps as for one."""
    level = structures
    for _ in range(MAX_DEPTH + 1):
        kinds = set(map(type, level))
        alike = len(kinds) == 1
        if str in kinds:
            texts.update(level if alike else [value for value in level if type(value) is str])
        if int in kinds:
            numbers = level if alike else [value for value in level if type(value) is int]
            if max(numbers) >= SMALLEST_CARD:
                return False
        kinds -= _FLAT
        if not kinds:
            return True
        if not kinds <= _STRUCTURES:
            return False
        below: list[Any] = []
        if dict in kinds:
            mappings = level if alike else [value for value in level if type(value) is dict]
            found = set().union(*mappings)
            if may_be_held(found):
                return False
            below += chain.from_iterable(map(dict.values, mappings))
            names |= found if mask not in below else {n for each in mappings for n in _not_masked(each, mask)}
        if list in kinds:
            sequences = level if alike else [value for value in level if type(value) is list]
            items = list(chain.from_iterable(sequences))
            # A command line, where what is an option says what comes next; pairs of a name and a value.
            if any(item[:1] == "-" for item in items if type(item) is str) or (
                list in map(type, items) and any(map(may_be_apart, sequences))
            ):
                return False
            below += items
        level = below
    return False


def _keep_changed(replaced: dict[str, Any], name: str, old: list[Any], new: list[Any]) -> None:
    if any(after is not before for after, before in zip(new, old, strict=True)):
        replaced[name] = new
