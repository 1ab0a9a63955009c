"""``server.address`` says at which server a change was made, as far as the connection's settings say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils.functional import lazystr

from otel_audit.instrumentation.django.servers import server_address
from otel_audit.semconv import to_attributes
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Supplier


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"HOST": "db.example", "PORT": "6432"}, ("db.example", 6432)),
        ({"HOST": "10.0.0.7", "PORT": 3306}, ("10.0.0.7", 3306)),
        ({"HOST": "::1"}, ("::1", 0)),
        ({"HOST": "localhost", "PORT": ""}, ("localhost", 0)),
        ({"HOST": lazystr("db.example")}, ("db.example", 0)),
        ({"OPTIONS": {"host": "db.example", "port": 5433}}, ("db.example", 5433)),
        ({"HOST": ""}, ("", 0)),
        ({}, ("", 0)),
        ({"HOST": None, "PORT": None, "OPTIONS": None}, ("", 0)),
        ({"HOST": "/var/run/postgresql", "PORT": "5432"}, ("", 0)),
        ({"HOST": Path("/var/run/mysqld.sock")}, ("", 0)),
        ({"HOST": "@abstract"}, ("", 0)),
        ({"HOST": "localhost", "OPTIONS": {"unix_socket": "/tmp/my.sock"}}, ("", 0)),
        ({"HOST": "one.example,two.example", "PORT": "5432,5433"}, ("", 0)),
        ({"HOST": "db.example", "PORT": "many"}, ("db.example", 0)),
        ({"HOST": "db.example", "PORT": "70000"}, ("db.example", 0)),
        ({"HOST": "db.example", "PORT": "-1"}, ("db.example", 0)),
        ({"HOST": "db.example", "PORT": "٥٤٣٢"}, ("db.example", 0)),
        ({"HOST": "db.example", "OPTIONS": 7}, ("", 0)),
    ],
)
def test_the_settings_of_a_connection_name_its_server(
    settings: dict[str, Any], expected: tuple[str, int]
) -> None:
    assert server_address(settings) == expected


def everything(audit: CapturedAudit) -> set[tuple[Any, Any]]:
    found = {
        (attributes.get("server.address"), attributes.get("server.port"))
        for attributes in map(to_attributes, audit)
    }
    assert len(audit) == 6
    audit.clear()
    return found


def work() -> None:
    one = Supplier.objects.create(name="a")
    one.name = "b"
    one.save()
    Supplier.objects.update(name="c")
    assert Supplier.objects.get().name == "c"
    with connection.cursor() as cursor:
        cursor.execute("UPDATE warehouse_supplier SET name = 'd'")
    Supplier.objects.all().delete()


def test_every_record_of_a_database_names_its_server(vendor: str) -> None:
    connection.ensure_connection()
    with auditing(reads=["warehouse.Supplier"]) as audit:
        # What it was connected by, in the tests, is a socket.
        connection.settings_dict.update(HOST="db.example", PORT="6432")
        try:
            work()
        finally:
            connection.settings_dict.update(HOST="", PORT="")
        assert everything(audit) == {(None, None) if vendor == "sqlite" else ("db.example", 6432)}


def test_a_socket_or_a_file_is_no_server(vendor: str) -> None:
    with auditing(reads=["warehouse.Supplier"]) as audit:
        work()
        if not str(connection.settings_dict.get("HOST", "")).startswith("/"):
            assert vendor == "sqlite" or "unix_socket" in connection.settings_dict["OPTIONS"]
        assert everything(audit) == {(None, None)}
