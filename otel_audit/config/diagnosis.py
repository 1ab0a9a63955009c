"""Say what is wrong with a configuration, key by key; runs only after the model has refused it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from otel_audit.config.catalog import Setting, sections, settings
from otel_audit.config.nearest import nearest
from otel_audit.config.showing import described, shown_name
from otel_audit.config.sources import Layer


def diagnose(layer: Layer) -> Iterator[str]:
    """Return one message for each unknown key and bad value of a layer, with its place."""
    by_name = {section.name: section for section in sections()}
    top = {setting.path[-1]: setting for setting in by_name[""].settings}
    valid = [*top, *(name for name in by_name if name and "." not in name)]
    for name, value in layer.values.items():
        path = (name,)
        if name in top:
            yield from _leaf(layer, path, top[name], value)
        elif name not in by_name or not name or "." in name:
            yield _unknown(layer, path, valid)
        elif by_name[name].listed:
            yield from _listed(layer, path, by_name[name].settings[0], value)
        elif not isinstance(value, Mapping):
            yield _no_table(layer, path)
        else:
            yield from _keys(layer, path, by_name[name].settings, value)


def _keys(
    layer: Layer, path: tuple[str, ...], known: Iterable[Setting], values: Mapping[str, Any]
) -> Iterator[str]:
    by_name = {setting.path[-1]: setting for setting in known}
    within = ".".join((*path, ""))
    tables = {
        section.name.removeprefix(within): section
        for section in sections()
        if section.name.startswith(within)
    }
    for name, value in values.items():
        here = (*path, name)
        setting = by_name.get(name)
        if name in tables:
            if isinstance(value, Mapping):
                yield from _keys(layer, here, tables[name].settings, value)
            else:
                yield _no_table(layer, here)
        elif setting is None:
            yield _unknown(layer, here, [*by_name, *tables])
        elif setting.sections:
            yield from _named(layer, here, setting, value)
        else:
            yield from _leaf(layer, here, setting, value)


def _listed(layer: Layer, path: tuple[str, ...], setting: Setting, value: Any) -> Iterator[str]:
    name = path[-1]
    if not isinstance(value, list):
        yield f"{layer.where(path)}: {name} is a list of tables: write [[{name}]] with its keys below"
        return
    for position, table in enumerate(value):
        here = (*path, str(position))
        if not isinstance(table, Mapping):
            problem = f"{described(table)} is not a table: write [[{name}]] with its keys below"
            yield f"{layer.where(here)}: {name}: {problem}"
            continue
        yield from _keys(layer, here, setting.sections, table)
        for nested in setting.sections:
            if nested.default is msgspec.NODEFAULT and nested.path[-1] not in table:
                yield f"{layer.where(here)}: [[{name}]] has no {nested.path[-1]}: write {nested.expected}"


def _no_table(layer: Layer, path: tuple[str, ...]) -> str:
    table = ".".join(path)
    return f"{layer.where(path)}: {table} is a table: write [{table}] with its keys below"


def _named(layer: Layer, path: tuple[str, ...], setting: Setting, value: Any) -> Iterator[str]:
    table = ".".join(path)
    if not isinstance(value, Mapping):
        yield f'{layer.where(path)}: {table} holds tables: write [{table}."shop.Order"] with its keys below'
        return
    for name, section in value.items():
        here = (*path, name)
        if isinstance(section, Mapping):
            yield from _keys(layer, here, setting.sections, section)
        elif any(name == known.path[-1] for known in setting.sections):
            yield f'{layer.where(here)}: {name!r} needs a model: write [{table}."shop.Order"] above it'
        else:
            yield f'{layer.where(here)}: {name!r} is a table: write [{table}."{name}"] with its keys below'


def _unknown(layer: Layer, path: tuple[str, ...], valid: list[str]) -> str:
    name = path[-1]
    parent = ".".join(part for part in path[:-1] if not part.isdecimal())
    brackets = "[[{}]]" if len(path) > 2 and path[-2].isdecimal() else "[{}]"
    place = f"in {brackets.format(parent)}" if parent else "at the top level"
    hint = nearest(name, valid)
    if not hint.startswith("; did"):
        elsewhere = [key for key in settings() if key.rpartition(".")[2] == name]
        if elsewhere:
            hint = f"; did you mean {elsewhere[0]!r}?"
    return f"{layer.where(path)}: unknown key {name!r} {place}{hint}"


def _leaf(layer: Layer, path: tuple[str, ...], setting: Setting, value: Any) -> Iterator[str]:
    if setting.entry_expected and isinstance(value, Mapping):
        for name, item in value.items():
            if not _fits({name: item}, setting):
                yield _bad(layer, (*path, name), setting, item, setting.entry_expected)
    elif not _fits(value, setting):
        yield _bad(layer, path, setting, value, setting.expected)


def _fits(value: Any, setting: Setting) -> bool:
    try:
        msgspec.convert(value, setting.type)
    except msgspec.ValidationError:
        return False
    return True


def _bad(layer: Layer, path: tuple[str, ...], setting: Setting, value: Any, expected: str) -> str:
    key = ".".join(path)
    if path[-2:-1] and path[-2].isdecimal() and path[-1] == setting.path[-1]:
        key = setting.key  # of a table in a list, where its line says which
    if setting.secret and len(path) > len(setting.path):
        key = f"{setting.key}.{shown_name(path[-1])}"
    shown = "this value" if setting.secret else described(value)
    return f"{layer.where(path)}: {key}: {shown} is not {expected}"
