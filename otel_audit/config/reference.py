"""``docs/configuration.md``, written from the model: ``python -m otel_audit.config.reference > docs/…``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from otel_audit.config.catalog import Setting, sections
from otel_audit.config.template import toml

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m otel_audit.config.reference`; change otel_audit/config/sections/ instead. -->

Settings are read from the first of these that exists:

1. the file that `OTEL_AUDIT_CONFIG` names,
2. the nearest `otel-audit.toml`, or `pyproject.toml` with a `[tool.otel_audit]` table, from the working
   directory upward (in one directory, `otel-audit.toml` takes precedence),
3. Django's setting `OTEL_AUDIT`, a dict of the same sections.

The options of OpenTelemetry's declarative configuration (`OTEL_CONFIG_FILE`) override them, and the variables
`OTEL_AUDIT_<SECTION>_<KEY>`, which are listed below, override everything. In a variable, the items of a list
and the `name=value` pairs of a table are separated by commas; both may also be written as JSON. An empty
variable counts as unset.

An unknown key or an invalid value is an error that names the file, the line and the nearest valid key. Sizes
are in bytes, times in seconds. Directories are relative to the configuration file; in variables and in
Django's setting, they are relative to the working directory.

`otel-audit init` writes a commented file with every setting; `otel-audit config show` prints the values in
force and their sources.
"""


def reference() -> str:
    """Write the page."""
    return "\n".join([_INTRODUCTION, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    for section in sections():
        if section.listed:
            yield from _listed(section.settings[0])
            continue
        yield f"## `[{section.name}]`\n" if section.name else "## Top level\n"
        if section.description:
            yield section.description + "\n"
        for setting in section.settings:
            yield from _setting(setting, "###")


def _listed(setting: Setting) -> Iterator[str]:
    yield f"## `[[{setting.key}]]`\n"
    yield f"{setting.description} As a variable: `{setting.variable}`, as JSON.\n"
    for nested in setting.sections:
        yield f"- `{nested.path[-1]}` ({nested.expected.replace(chr(34), '`')}): {nested.description}"
    yield ""


def _setting(setting: Setting, level: str) -> Iterator[str]:
    if setting.sections:
        yield f'{level} `[{setting.key}."<pattern>"]`\n'
        yield f"{setting.description} As a variable: `{setting.variable}`, as JSON.\n"
        for nested in setting.sections:
            yield f"- `{nested.path[-1]}` ({nested.expected}): {nested.description}"
        yield ""
        return
    yield f"{level} `{setting.key}`\n"
    yield setting.description + "\n"
    default = "empty" if setting.default in ("", [], {}) else f"`{toml(setting.default)}`"
    expected = setting.expected.replace('"', "`")
    yield f"{expected[0].upper()}{expected[1:]}; default {default}. Variable `{setting.variable}`.\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
