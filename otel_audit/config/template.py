"""The commented ``otel-audit.toml`` that ``otel-audit init`` writes: every setting, from the model."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from otel_audit.config.catalog import Setting, sections

_WIDTH: Final = 100
_EXAMPLES: Final = {
    "models": '["shop.*", "auth.User", "!sessions.*"]',
    "reads": '["shop.Customer"]',
    "names": '["iban", "tax_.*"]',
    "values": r"""['\bKD-\d{8}\b']""",
    "allow": '["token_count"]',
    "headers": '{ X-Team = "shop" }',
}


_RULE_EXAMPLE: Final = {
    "path": '"/api/*"',
    "method": '["POST", "PUT", "PATCH", "DELETE"]',
    "level": '"request_response"',
    "slug": '"api"',
}
_NAMES: Final = {"throttling.rules": '"login"'}


def template(values: Mapping[str, Any] | None = None, *, introduction: str = "") -> str:
    """Write the file: what ``values`` sets (by dotted name) is active, all else a comment."""
    given = dict(values or {})
    lines = [
        "# otel-audit: what is recorded, what is sensitive, and where records go.",
        "#",
        "# Every setting is listed, commented out, with its default. `otel-audit config show` prints the",
        "# values in force and their sources. Each can also be a variable: OTEL_AUDIT_<SECTION>_<KEY>.",
    ]
    if introduction:
        lines += ["#", *_comment(introduction)]
    for section in sections():
        if section.listed:
            lines += ["", *_listed(section.settings[0])]
            continue
        if section.name:
            lines += ["", *_comment(section.description), f"[{section.name}]"]
        for setting in section.settings:
            lines += _setting(setting, given)
    return "\n".join(lines) + "\n"


def _setting(setting: Setting, given: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield from _comment(setting.description)
    if setting.sections:
        name = _NAMES.get(setting.key, '"shop.Customer"')
        yield f"# [{'.'.join(setting.path)}.{name}]"
        for nested in setting.sections:
            yield from ("# " + line for line in _comment(f"{nested.description} {_choices(nested)}".strip()))
            yield f"# {nested.path[-1]} = {_model_example(nested)}"
        return
    if choices := _choices(setting):
        yield from _comment(choices)
    name = setting.path[-1]
    if setting.key in given:
        yield f"{name} = {toml(given[setting.key])}"
    elif name in _EXAMPLES and not setting.default:
        yield f"# {name} = {_EXAMPLES[name]}"
    else:
        yield f"# {name} = {toml(setting.default)}"


def _listed(setting: Setting) -> Iterator[str]:
    yield from _comment(setting.description)
    yield f"# [[{setting.key}]]"
    for nested in setting.sections:
        if nested.path[-1] in _RULE_EXAMPLE:
            yield from _comment(nested.description)
            yield f"# {nested.path[-1]} = {_RULE_EXAMPLE[nested.path[-1]]}"


def _choices(setting: Setting) -> str:
    expected = setting.expected
    return f"{expected[0].upper()}{expected[1:]}." if expected.startswith("one of") else ""


def _model_example(setting: Setting) -> str:
    name = setting.path[-1]
    examples = {
        "reads": "true",
        "old_values": '"exact"',
        "ignore": '["last_seen"]',
        "snapshot": "true",
        "encrypted": '["diary"]',
        "number": "5",
        "timeframe": "300",
        "on": '"login_failed"',
        "by": '["user", "address"]',
        "message": '"Too many failed logins"',
        "path": '["/login/"]',
        "method": '["POST"]',
    }
    return examples.get(name, '{ email = "mask", card_number = "keep_last:4" }')


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.split("\n"):
        for line in textwrap.wrap(paragraph, _WIDTH - 2) or [""]:
            yield f"# {line}".rstrip()


def toml(value: Any) -> str:
    """Write a setting's value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= 100_000 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if not value:
        return "{}"
    return "{ " + ", ".join(f"{toml(str(name))} = {toml(item)}" for name, item in value.items()) + " }"
