"""The settings of the model as a flat list: name, type, default, description, variable.

Everything that talks *about* settings (environment, errors, reference, template, ``config show``) reads this
list, so that the model stays the only place where one is written down.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import msgspec

from otel_audit.config.model import Age, AuditConfig, Strategy
from otel_audit.config.sources import ENVIRONMENT_PREFIX
from otel_audit.named_tuples import NamedTuple


class Setting(NamedTuple):
    """One value a user can set, or tables of the same settings (``sections``): named, or ``listed``."""

    path: tuple[str, ...]
    type: Any
    default: Any
    description: str
    secret: bool
    sections: tuple[Setting, ...] = ()
    listed: bool = False

    @property
    def key(self) -> str:
        """The dotted name, as in ``spool.fsync``."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + "_".join(self.path).upper()

    @property
    def expected(self) -> str:
        """Say in words what may be written."""
        if self.sections:
            return "a list of tables" if self.listed else "a table that contains tables"
        return (
            f"a table with {entry} for each name" if (entry := self.entry_expected) else _expected(self.type)
        )

    @property
    def entry_expected(self) -> str:
        """Say what each value of a free table may be; empty if the setting is not a table."""
        kind = plain_type(self.type)
        if self.sections or typing.get_origin(kind) is not dict:
            return ""
        return _expected(typing.get_args(kind)[1])


class Section(NamedTuple):
    """One table of the file and its settings; the first has the empty name.

    Of tables that may be repeated (``[[policy]]``), ``settings`` is the one setting that is their list.
    A table within a table has a dotted name (``redaction.headers``), and follows it.
    """

    name: str
    description: str
    settings: tuple[Setting, ...]

    @property
    def listed(self) -> bool:
        """Whether the table may be repeated."""
        return len(self.settings) == 1 and self.settings[0].listed


@cache
def sections() -> tuple[Section, ...]:
    """List the tables of the model in order, top level first."""
    top: list[Setting] = []
    nested: list[Section] = []
    for field, hint, default in _members(AuditConfig):
        kind, meta = _unwrap(hint)
        description = (meta.description if meta else "") or ""
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            nested.append(Section(field, description, tuple(_settings(kind, (field,)))))
            nested += _tables_within(kind, field)
            continue
        setting = _setting((field,), hint, default)
        if setting.listed:  # its tables come behind all that stands at the top level
            nested.append(Section(field, "", (setting,)))
        else:
            top.append(setting)
    return (Section("", "", tuple(top)), *nested)


@cache
def settings() -> dict[str, Setting]:
    """Every setting by its dotted name."""
    return {setting.key: setting for section in sections() for setting in section.settings}


def _tables_within(kind: type[msgspec.Struct], name: str) -> Iterator[Section]:
    for field, hint, _ in _members(kind):
        inner, meta = _unwrap(hint)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            description = (meta.description if meta else "") or ""
            yield Section(f"{name}.{field}", description, tuple(_settings(inner, (name, field))))


def _settings(kind: type[msgspec.Struct], path: tuple[str, ...]) -> Iterator[Setting]:
    # In TOML what comes after a table within a section would belong to the table.
    found = [
        _setting((*path, field), hint, default)
        for field, hint, default in _members(kind)
        if not isinstance(default, msgspec.Struct)
    ]
    yield from sorted(found, key=lambda setting: bool(setting.sections))


def _setting(path: tuple[str, ...], hint: Any, default: Any) -> Setting:
    kind, meta = _unwrap(hint)
    nested: tuple[Setting, ...] = ()
    if typing.get_origin(kind) is dict:
        member = typing.get_args(kind)[1]
        if isinstance(member, type) and issubclass(member, msgspec.Struct):
            nested = tuple(_settings(member, (*path, "<name>")))
    listed = _listed(kind)
    if listed is not None:
        nested = tuple(_settings(listed, path))
    extra = (meta.extra if meta else None) or {}
    description = (meta.description if meta else "") or ""
    return Setting(path, hint, default, description, bool(extra.get("secret")), nested, listed is not None)


def _listed(kind: Any) -> type[msgspec.Struct] | None:
    """Return the class of the tables of a list; None if it is a list of something else, or none."""
    member = typing.get_args(kind)[0] if typing.get_origin(kind) is list else None
    return member if isinstance(member, type) and issubclass(member, msgspec.Struct) else None


def _members(kind: type[msgspec.Struct]) -> Iterator[tuple[str, Any, Any]]:
    for field in msgspec.structs.fields(kind):
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        yield field.name, field.type, default


def _unwrap(hint: Any) -> tuple[Any, msgspec.Meta | None]:
    """Take the outermost description and the type inside every ``Annotated``."""
    meta: msgspec.Meta | None = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, *metas = typing.get_args(hint)
        for each in metas:  # nested Annotated are flattened, the outermost last
            if isinstance(each, msgspec.Meta) and (meta is None or each.description):
                meta = each
    return hint, meta


def plain_type(hint: Any) -> Any:
    """Return the type inside ``Annotated``, without ``None``."""
    kind, _ = _unwrap(hint)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind, _ = _unwrap(next(member for member in typing.get_args(kind) if member is not type(None)))
    return kind


def _members_of_union(hint: Any) -> tuple[Any, ...]:
    kind, _ = _unwrap(hint)
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()


def _bounds(hint: Any) -> str:
    hint = next(iter(_members_of_union(hint)), hint)
    if typing.get_origin(hint) is not typing.Annotated:
        return ""
    low = high = None
    for meta in typing.get_args(hint)[1:]:
        low = meta.ge if getattr(meta, "ge", None) is not None else low
        high = meta.le if getattr(meta, "le", None) is not None else high
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""


def _expected(hint: Any) -> str:
    kind = plain_type(hint)
    origin = typing.get_origin(kind)
    one_or_more = any(typing.get_origin(each) is list for each in _members_of_union(hint))
    if one_or_more and origin is not list:
        return (
            _expected(kind) + ", or a list of such"
            if origin is Literal
            else "a pattern or a list of patterns"
        )
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(kind))
    if origin is list:
        member = typing.get_args(kind)[0]
        if typing.get_origin(member) is Literal:
            return f"a list of {_expected(member).removeprefix('one of ').replace(', ', ' and ')}"
        return "a list of strings"
    if kind is bool:
        return "true or false"
    if kind is int:
        return "an integer" + _bounds(hint)
    if kind is float:
        return "a number" + _bounds(hint)
    if hint == Strategy:
        return "one of drop, mask, hmac, keep, keep_last, keep_last:N"
    if hint == Age:
        return "an age such as 90d, 18mo or 7y, or forever"
    if typing.get_origin(hint) is typing.Annotated:
        for meta in typing.get_args(hint)[1:]:
            if getattr(meta, "pattern", None):
                return f"text that matches {meta.pattern}"
    return "text"
