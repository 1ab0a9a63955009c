"""What is wrapped takes every call that Django's own function takes, whatever its parameters are named."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import pytest
import wrapt
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection, transaction
from django.db.models.sql import InsertQuery, UpdateQuery
from django.db.models.sql.constants import MULTI, ROW_COUNT, SINGLE
from django.test import Client

from otel_audit.config.model import AuditConfig, DjangoConfig
from otel_audit.instrumentation import patching
from otel_audit.instrumentation.django import DjangoAuditInstrumentor
from otel_audit.instrumentation.django.patches import reads_table
from otel_audit.instrumentation.django.reads.wrappers import ReadCapture
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.clinic.models import Ward
from tests.instrumentation.django.project import Instrumented
from tests.startup.agent import CONFIG, run

Parameter = inspect.Parameter
NAMES = (
    *("self", "cls", "command", "connection", "cursor", "compiler", "handler", "instance", "iterable"),
    *("block", "collector", "wrapped", "original", "owner", "provider", "method", "processor", "func"),
    *("args", "kwargs", "options", "request", "sender", "signal", "name", "target", "run", "plain"),
)


def wrapped() -> list[tuple[str, Any, str]]:
    """List what the table wraps in this version of Django: target, its class or module, and the name."""
    instrumentor = DjangoAuditInstrumentor()
    config = AuditConfig(django=DjangoConfig(models=["*"], reads=["*"]))
    parts = instrumentor.parts(config, None)
    [reads] = [part for part in parts if isinstance(part, ReadCapture)]
    table = [*instrumentor.patches(parts), *reads_table(reads)]
    found = [(patch.target, *patching._resolve(patch.target)) for patch in table]
    return [
        each
        for each in dict(zip((e[0] for e in found), found, strict=True)).values()
        if hasattr(each[1], each[2])
    ]


WRAPPED = wrapped()


@pytest.mark.parametrize(("owner", "name"), [each[1:] for each in WRAPPED], ids=[each[0] for each in WRAPPED])
def test_a_wrapper_has_no_parameter_name_that_django_has_not(
    instrumented: Instrumented, owner: Any, name: str
) -> None:
    """So that no keyword of the caller can meet a parameter of ours, and each of Django's is accepted."""
    plain = list(inspect.signature(inspect.getattr_static(owner, name)).parameters.values())
    with instrumented(reads=["*"]):
        wrapper = inspect.signature(inspect.getattr_static(owner, name), follow_wrapped=False)
    ours = list(wrapper.parameters.values())
    by_name = {
        each.name for each in ours if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    assert by_name <= {each.name for each in plain[1:]}
    assert {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} <= {each.kind for each in ours}
    given = [each for each in plain[1:] if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    wrapper.bind(object(), *given, **dict.fromkeys(set(NAMES) - {each.name for each in given}))
    wrapper.bind(object(), **dict.fromkeys([each.name for each in given]) | dict.fromkeys(NAMES))


def test_djangos_parameters_may_be_given_by_name(instrumented: Instrumented) -> None:
    """As Django allows, also where its own code never does."""
    fields = {field.name: field for field in Ward._meta.concrete_fields}
    with instrumented(models=["clinic.*"], reads=["clinic.*"]) as audit:
        insert = InsertQuery(Ward)
        insert.insert_values([fields["name"]], [Ward(name="Ann")])
        assert insert.get_compiler("default").execute_sql(returning_fields=[fields["id"]])
        update = UpdateQuery(Ward)
        update.add_update_values({"name": "Bea"})
        assert update.get_compiler("default").execute_sql(result_type=ROW_COUNT) == 1
        query = Ward.objects.values_list("name").query
        assert list(query.get_compiler("default").execute_sql(result_type=MULTI, chunk_size=5)) == [
            [("Bea",)]
        ]
        assert query.get_compiler("default").execute_sql(result_type=SINGLE) == ("Bea",)
        ward = Ward.objects.get()
        ward.refresh_from_db(using="default", fields=["name"])
        with transaction.atomic():
            sid: Any = connection.savepoint()
            connection.savepoint_commit(sid=sid)
            sid = connection.savepoint()
            connection.savepoint_rollback(sid=sid)
        connection.set_autocommit(autocommit=True, force_begin_transaction_with_broken_autocommit=False)
        with connection.cursor() as cursor:
            cursor._execute(sql="SELECT 1", params=None)  # as an execute_wrapper's last one may
            assert cursor.fetchone() == (1,)
            cursor._execute(params=[], sql="select 2")
            assert cursor.fetchone() == (2,)
        delete = Ward.objects.all()
        assert delete._raw_delete(using="default") == 1
    assert [record.action for record in audit.records if record.action != "READ"] == [
        "CREATE",
        "UPDATE",
        "DELETE",
    ]


def test_another_agents_wrapper_below_ours_gets_its_instance(
    instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents wrap with wrapt, which finds the instance only where it is looked up on the class."""
    seen: dict[str, Any] = {}

    def watch(target: str, owner: Any, name: str) -> None:
        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            seen.setdefault(target, instance)
            return wrapped(*args, **kwargs)

        plain = inspect.getattr_static(owner, name)
        monkeypatch.setattr(owner, name, wrapt.FunctionWrapper(plain, wrapper))

    for target, owner, name in WRAPPED:
        watch(target, owner, name)
    before = {target: vars(owner)[name] for target, owner, name in WRAPPED}
    with instrumented(models=["clinic.*"], reads=["clinic.*"]):
        with transaction.atomic():
            ward = Ward.objects.create(name="Ann")
            with transaction.atomic():
                ward.save()
        ward.refresh_from_db()
        assert Client().get("/nowhere/").status_code == 404
        list(Ward.objects.raw("SELECT * FROM clinic_ward"))
        Ward.objects.filter(pk=ward.pk).delete()
        Group.objects.create(name="a")
        Group.objects.all().delete()  # not audited: what is may be deleted by a statement of ours
        call_command(Greedy(stdout=io.StringIO()))
        with connection.cursor() as cursor:
            cursor.executemany("UPDATE clinic_ward SET name = %s", [["b"], ["c"]])
        connection.close()
    assert {target: vars(owner)[name] for target, owner, name in WRAPPED} == before
    never: tuple[str, ...] = (
        "savepoint_rollback",
        "set_autocommit",
        "rollback",
        "Command.handle",
        "apply_migration",
        "populate",
    )
    never += ("ASGIHandler.__call__", "create_test_db", "destroy_test_db")
    missed = [target for target in before if target not in seen and not target.endswith(never)]
    assert missed == []
    assert all(instance is not None for instance in seen.values())


class Greedy(BaseCommand):
    """Takes options of every name."""

    def handle(self, *args: Any, **options: Any) -> str:
        return ",".join(sorted(name for name in NAMES if name in options))


def test_a_command_may_have_options_of_any_name(audit: CapturedAudit) -> None:
    # `self`, `name` and `args` cannot: execute(), call_command() and the parsed arguments have them.
    names = sorted(set(NAMES) - {"self", "name", "args"})
    command = Greedy(stdout=io.StringIO())
    command.stealth_options = tuple(names)
    assert call_command(command, **dict.fromkeys(names, "x")) == ",".join(names)


def test_the_shell_runs_a_command_line_under_the_agent(tmp_path: Path) -> None:
    (tmp_path / "project_settings.py").write_text(
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['django.contrib.contenttypes']\nDATABASES = {}\n"
    )
    program = """
        import sys
        from django.core.management import execute_from_command_line
        line = "import otel_audit.startup as s; print(s.is_running())"
        execute_from_command_line(["manage.py", "shell", "--command", line])
    """
    done = run(tmp_path, program, config=CONFIG, environ={"DJANGO_SETTINGS_MODULE": "project_settings"})
    assert done.status == 0, done.errors
    assert "True" in done.output.splitlines()
