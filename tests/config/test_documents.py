"""What is written from the model: the reference page, the file ``init`` writes, the list of settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from otel_audit.config import AuditConfig, load
from otel_audit.config.catalog import settings
from otel_audit.config.reference import reference
from otel_audit.config.template import template, toml

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_reference_page_is_what_the_model_says() -> None:
    written = "python -m otel_audit.config.reference > docs/configuration.md"
    assert PAGE.read_text("utf-8") == reference(), f"out of date; run {written}"


def test_reference_page_names_every_setting_and_its_variable() -> None:
    page = reference()
    for setting in settings().values():
        assert f"`{setting.key}`" in page or f"[{setting.key}." in page or f"[[{setting.key}]]" in page
        assert f"`{setting.variable}`" in page


def test_every_setting_says_what_it_is_for() -> None:
    for setting in settings().values():
        assert setting.description, setting.key
        assert all(nested.description for nested in setting.sections)


def test_template_as_written_is_the_default_configuration(tmp_path: Path) -> None:
    path = tmp_path / "otel-audit.toml"
    path.write_text(template(), "utf-8")
    loaded = load(path, environ={})
    assert loaded.origins == {}
    assert loaded.config.django == AuditConfig().django


def test_every_commented_setting_holds_when_it_is_uncommented(tmp_path: Path) -> None:
    tables = r"\[(?:django|sqlalchemy)\.model\.|\[throttling\.rules\.|\[\[policy\]\]"
    active = re.sub(rf"(?m)^# (?=[a-z0-9_]+ = |{tables})", "", template())
    path = tmp_path / "otel-audit.toml"
    path.write_text(active, "utf-8")
    assert load(path, environ={}).config.django.model["shop.Customer"].reads is True
    assert load(path, environ={}).config.throttling.rules["login"].by == ["user", "address"]
    values = tomllib.loads(active)
    for setting in settings().values():
        value = values
        for part in setting.path:
            value = value[part]
        if setting.default:  # an empty default stands there as an example
            assert value == setting.default, setting.key


def test_values_of_the_template_are_active(tmp_path: Path) -> None:
    path = tmp_path / "otel-audit.toml"
    path.write_text(template({"django.models": ["shop.*", 'odd"\\.*'], "sink.timeout": 2.5}), "utf-8")
    loaded = load(path, environ={})
    assert loaded.config.django.models == ["shop.*", 'odd"\\.*']
    assert set(loaded.origins) == {"django.models", "sink.timeout"}


@pytest.mark.parametrize(
    "value", [True, 5, 123456, 0.25, "", "\x00\x7f\u2028 ü\"\\\n", ["a", "b"], {"a b": 'x"'}, {}]
)  # fmt: skip
def test_values_written_as_toml_are_read_back(value: object) -> None:
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value
