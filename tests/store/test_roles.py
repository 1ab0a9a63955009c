"""Who may do what: the statements, as an administrator reads them."""

from __future__ import annotations

import re

import pytest

from otel_audit.errors import ConfigurationError
from otel_audit.store import schema
from otel_audit.store.layout import Layout
from otel_audit.store.roles import roles


def rights(role: str, layout: Layout | None = None, tenants: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what a role may do, by table."""
    found = {}
    for sql in roles(layout or Layout(), tenants):
        granted = re.fullmatch(rf"GRANT(?: ON CLUSTER 'main')? (.+) ON (\S+) TO {re.escape(role)}", sql)
        if granted:
            found[granted[2]] = granted[1]
    return found


def test_a_writer_can_insert_and_ask_for_columns_and_nothing_else() -> None:
    found = rights("otel_writer")
    assert set(found) == {f"otel.{table}" for table in schema.WRITABLE if table != schema.TRACE_TIMES}
    assert set(found.values()) == {"INSERT, SHOW COLUMNS"}
    assert set(rights("otel_writer", Layout("otel", "main")).values()) == {"INSERT, SHOW COLUMNS", "INSERT"}


def test_on_a_cluster_a_writer_is_answered_when_the_shard_has_the_rows() -> None:
    given = roles(Layout("otel", "main"))
    [settings] = [sql for sql in given if sql.startswith("ALTER ROLE otel_writer")]
    assert "distributed_foreground_insert = 1 CONST" in settings
    assert "async_insert = 0 CONST" in settings


def test_a_reader_reads_and_changes_nothing() -> None:
    found = rights("otel_reader")
    assert set(found.values()) == {"SELECT"}
    assert {"otel.audit_events", "otel.audit_trail", "otel.otel_traces", "system.parts"} <= set(found)
    assert not {f"otel.{schema.landing(log.name)}" for log in schema.LOGS} & set(found)


def test_a_tenant_sees_its_records_only_and_no_spans() -> None:
    given = roles(Layout(), ["acme"])
    assert set(rights("`otel_tenant_acme`", tenants=("acme",))) == {
        *(f"otel.{schema.events(log.name)}" for log in schema.LOGS),
        *(f"otel.{log.name}_trail" for log in schema.LOGS),
    }
    policies = [sql for sql in given if "ROW POLICY" in sql]
    for log in schema.LOGS:
        [own] = [sql for sql in policies if f"otel.{schema.events(log.name)} " in sql and "acme" in sql]
        assert own.endswith("FOR SELECT USING tenant = 'acme' TO `otel_tenant_acme`")


def test_a_tenant_added_alone_opens_nothing_to_the_others() -> None:
    """No policy speaks of all users, so none is widened by a list that a name is missing from."""
    given = roles(Layout(), ["globex"])
    assert not [sql for sql in given if "TO ALL" in sql or ("OR REPLACE" in sql and "ROLE" in sql)]
    everything = [sql for sql in given if "USING 1" in sql]
    assert everything
    assert all(sql.endswith("TO otel_reader, otel_migrator") for sql in everything)


def test_on_a_cluster_rows_are_kept_from_a_tenant_where_they_lie_too() -> None:
    given = roles(Layout("otel", "main"), ["acme"])
    for log in schema.LOGS:
        for table in (schema.events(log.name), f"{schema.events(log.name)}_local"):
            assert [sql for sql in given if "USING tenant" in sql and f" ON otel.{table} " in sql]


def test_without_tenants_there_is_no_policy() -> None:
    assert not [sql for sql in roles(Layout()) if "POLICY" in sql]


@pytest.mark.parametrize("tenant", ["", "a'b", "a`b", "a b", "ü" * 101])
def test_a_tenant_whose_name_cannot_name_a_role_is_refused(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used in a role name"):
        roles(Layout(), [tenant])
