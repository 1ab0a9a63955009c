"""explain: which rule decides what is recorded of a model or a field, and where it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_doctor import make_shop

MODELS = """
import otel_audit
from django.db import models

class Audited(models.Model):
    class Meta:
        abstract = True

    __audit__ = {"ignore": ["seen"]}

class Card(Audited):
    number = models.CharField(max_length=20)
    password = models.CharField(max_length=20)
    seen = models.DateTimeField(null=True)
    changed = models.DateTimeField(auto_now=True)

class Order(models.Model):
    cards = models.ManyToManyField(Card)
    note = models.CharField(max_length=20)

class Express(Order):
    minutes = models.IntegerField()

class Late(Order):
    class Meta:
        proxy = True

otel_audit.audit_models(
    Order, reads=True, fields={"note": "keep_last:2"}
)
"""
CONFIG = """
[django]
old_values = "exact"
models = [
  "shop.Express",
  "!shop.Order_cards",
]

[django.model."shop.Card".fields]
number = "keep_last:4"

[redaction]
personal_numbers = true
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_shop(tmp_path, monkeypatch)
    (tmp_path / "shop" / "models.py").write_text(MODELS)
    (tmp_path / "otel-audit.toml").write_text(CONFIG)
    return tmp_path


def explained(command: Command, name: str) -> dict[tuple[str, str], str]:
    done = command("explain", "model", name, "--json")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    return {
        (line["subject"], line["answer"]): ", ".join(filter(None, (line["rule"], line["place"])))
        for line in lines
    }


def test_each_answer_names_its_rule_and_where_it_stands(command: Command, shop: Path) -> None:
    file = f"{shop}/otel-audit.toml"
    assert explained(command, "shop.card") == {
        ("changes", "recorded"): "__audit__, shop/models.py:9 (shop.models.Audited)",
        ("reads", "not recorded"): "",
        ("old values", "read from the row, locked"): f'old_values = "exact", {file}:3',
        ("row", "what an update writes"): "",
        (
            "number",
            "masked but for its last 4 characters (keep_last:4)",
        ): f'model."shop.Card", {file}:10',
        ("password", "masked: by its name it is a secret"): "built-in rules on names",
        ("seen", "does not count as a change"): "__audit__, shop/models.py:9 (shop.models.Audited)",
        ("changed", "does not count as a change"): "auto_now",
    }
    order = explained(command, "shop.Order")
    assert (
        order["changes", "recorded"] == order["reads", "recorded"] == "audit_models(Order), shop/models.py:28"
    )
    assert "shop/models.py:28" in order["note", "masked but for its last 2 characters (keep_last:2)"]
    express = explained(command, "shop.models.Express")
    assert express["changes", "recorded"] == f"models: 'shop.Express', {file}:5"
    through = explained(command, "shop.Order_cards")
    assert through["changes", "not recorded"] == f"models: '!shop.Order_cards', {file}:6"


def test_one_field_is_explained_alone(command: Command, shop: Path) -> None:
    assert explained(command, "shop.models.Card.seen") == {
        ("changes", "recorded"): "__audit__, shop/models.py:9 (shop.models.Audited)",
        ("seen", "recorded; what looks like a secret in it is removed"): "",
        ("seen", "does not count as a change"): "__audit__, shop/models.py:9 (shop.models.Audited)",
    }


def test_people_read_one_screen(command: Command, shop: Path) -> None:
    done = command("explain", "model", "shop.Late", width=120)
    assert done.status == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.out)
    assert shown.startswith("shop.Order  (shop.models.Order, table shop_order)")
    assert "audit_models(Order), shop/models.py:28" in shown
    assert "note: shop.Late is a proxy: its rows are those of shop.Order" in done.err
    done = command("explain", "model", "shop.Express.minutes")
    assert "note: its columns in the table of shop.Order" not in done.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shop.Crad", "no installed model is 'shop.Crad'; did you mean 'shop.Card'?"),
        ("shop.models.Crad.number", "no installed model is"),
        ("shop.Card.nubmer", "shop.Card has no field 'nubmer'; did you mean 'number'?"),
        ("shop.Express.note", "'note' is a field of shop.Order: ask for shop.Order.note"),
        ("shop.Order.cards", "'cards' is a relation, whose rows are those of shop.Order_cards"),
        ("card", "no installed model is 'card'"),
        ("", "no installed model is ''"),
        ("..", "no installed model is '..'"),
        ("shop.\x1b[31m", "no installed model is"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_nearest(
    command: Command, shop: Path, name: str, message: str
) -> None:
    done = command("explain", "model", name)
    assert done.status == 2
    assert message in done.err
    assert "\x1b" not in done.err


def test_settings_are_found_where_no_variable_names_them(
    command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    done = command("explain", "model", "shop.Card")
    assert done.status == 2
    assert "export the variable" in done.err
    (shop / "manage.py").write_text(
        "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n"
    )
    assert command("explain", "model", "shop.Card").status == 0


def test_an_application_that_cannot_be_loaded_is_the_answer(command: Command, shop: Path) -> None:
    (shop / "shop" / "models.py").write_text("import nothing_of_that_name")
    done = command("explain", "model", "shop.Card")
    assert done.status == 4
    assert "nothing_of_that_name" in done.err
    assert "manage.py check" in done.err


def test_that_nothing_is_recorded_now_is_told(
    command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_AUDIT_ENABLED", "false")
    assert "nothing is recorded now: enabled is false" in command("explain", "model", "shop.Card").err
