"""Models of several databases have tables of one name: text means the one of the database that runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json
import sys

import django
from django.conf import settings


class Router:
    def db_for_write(self, model, **hints):
        FIRST
        return "old" if model._meta.app_label == "legacy" else "default"

    db_for_read = db_for_write

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return (db == "old") == (app_label == "legacy")


databases = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{sys.argv[1]}/{name}.sqlite3"}
    for name in ("default", "old")
}
settings.configure(DATABASES=databases, DATABASE_ROUTERS=[Router()], INSTALLED_APPS=[])
django.setup()

from django.db import connections, models


class Order(models.Model):
    class Meta:
        app_label = "shop"
        db_table = "shop_order"


class OldOrder(models.Model):
    class Meta:
        app_label = "legacy"
        db_table = "shop_order"


from otel_audit.config.model import AuditConfig, DjangoConfig
from otel_audit.instrumentation.django import DjangoAuditInstrumentor
from tests.audited import audited

for name in databases:
    with connections[name].cursor() as cursor:
        cursor.execute("CREATE TABLE shop_order (id integer PRIMARY KEY)")
config = AuditConfig(django=DjangoConfig(models=sys.argv[2].split(",")))
with audited(DjangoAuditInstrumentor(), config) as audit:
    for name in databases:
        with connections[name].cursor() as cursor:
            cursor.execute("INSERT INTO shop_order VALUES (1)")
    print(json.dumps([[r.target.type, r.database.namespace.rpartition("/")[2]] for r in audit]))
"""
NEW, OLD = ["shop.Order", "default.sqlite3"], ["legacy.OldOrder", "old.sqlite3"]


def recorded(tmp_path: Path, models: str, router: str = "pass") -> list[list[str]]:
    """Run it in a process of its own: a model stays in Django's registry."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("FIRST", router), str(tmp_path), models],
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("shop.Order", [NEW]),
        ("legacy.OldOrder", [OLD]),
        ("shop.Order,legacy.OldOrder", [NEW, OLD]),
        ("legacy.OldOrder,shop.Order", [NEW, OLD]),
    ],
)
def test_text_means_the_model_that_a_router_sends_there(
    tmp_path: Path, models: str, expected: list[list[str]]
) -> None:
    assert recorded(tmp_path, models) == expected


def test_a_router_that_fails_costs_no_record(tmp_path: Path) -> None:
    told = recorded(tmp_path, "shop.Order", "raise KeyError(model)")
    assert [database for _, database in told] == ["default.sqlite3", "old.sqlite3"]
