"""Management commands on record, by ``call_command`` and as ``manage.py`` runs them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import CommandError, ManagementUtility, call_command
from django.core.management.base import BaseCommand
from django.test import Client

from otel_audit.audit_record import Actor, AuditRecord, Target
from otel_audit.config.model import CommandsConfig, RequestsConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.instrumentation.commands import CommandsAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.project import Instrumented


@contextmanager
def recording(instrumented: Instrumented, **options: Any) -> Iterator[CapturedAudit]:
    rules = [PolicyRule(command="*", level="request_response")] if options.pop("output", True) else []
    requests = options.pop("requests", RequestsConfig())
    commands = CommandsConfig(**{"enabled": True, "flush": 0.0, **options})
    config = {"commands": commands, "policy": rules, "requests": requests}
    with instrumented(models=["clinic.*"], config=config) as captured:
        instrumentor = CommandsAuditInstrumentor()
        instrumentor.instrument(config=captured.pipeline.config)
        try:
            yield captured
        finally:
            instrumentor.uninstrument()


@pytest.fixture
def commands(instrumented: Instrumented) -> Iterator[CapturedAudit]:
    with recording(instrumented) as captured:
        yield captured


def run(audit: CapturedAudit, name: str = "discharge") -> AuditRecord:
    return audit.one(event_name="command.run", target=f"command/{name}")


def manage(*arguments: str) -> None:
    ManagementUtility(["manage.py", *arguments]).execute()


def test_call_command_is_recorded_with_all_that_happened_in_it(commands: CapturedAudit) -> None:
    assert call_command("discharge", "north", write=True, password="hunter2hunter2") == "returned"
    end = run(commands)
    assert {record.request.id for record in commands} == {end.request.id}
    assert {record.actor for record in commands} == {Actor("manage.py discharge", "system")}
    assert [record.event_name for record in commands] == [
        "command.start",
        "clinic.discharge",
        "clinic.ward.create",
        "command.run",
    ]
    assert end.attributes["arguments"] == ["--wards=north", "--password=[redacted]", "--write"]
    assert (end.outcome, end.attributes["process.exit.code"]) == ("success", 0)
    assert end.attributes["output"] == "one\ntwo\nthree\nfour\nreturned\n"
    commands.assert_no_secrets("hunter2hunter2")


def test_what_was_typed_is_what_is_recorded(commands: CapturedAudit) -> None:
    manage("discharge", "--password", "hunter2hunter2", "north", "-v", "2")
    assert run(commands).attributes["arguments"] == ["--password", "[redacted]", "north", "-v", "2"]


@pytest.mark.parametrize("code", [1, 5])
def test_a_command_that_fails_says_with_what(
    commands: CapturedAudit, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        manage("discharge", "--fail", str(code))
    assert caught.value.code == code
    end = run(commands)
    assert (end.outcome, end.error, end.attributes["process.exit.code"]) == ("failure", "CommandError", code)
    commands.assert_no_secrets("hunter2hunter2")


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_exits_says_with_what(commands: CapturedAudit, code: int) -> None:
    with pytest.raises(SystemExit):
        call_command("discharge", exit=code)
    end = run(commands)
    assert (end.outcome, end.attributes["process.exit.code"]) == ("failure" if code else "success", code)


def test_output_into_a_stream_of_the_callers_is_seen_and_arrives(commands: CapturedAudit) -> None:
    out, err = io.StringIO(), io.StringIO()
    call_command("discharge", stdout=out, stderr=err, no_color=True)
    assert (out.getvalue(), err.getvalue()) == ("one\nreturned\n", "three\n")
    assert run(commands).attributes["output"] == "one\ntwo\nthree\nfour\nreturned\n"
    assert vars(out) == vars(err) == {}


def test_colours_reach_the_terminal_and_not_the_record(commands: CapturedAudit) -> None:
    err = io.StringIO()
    call_command("discharge", stderr=err, force_color=True)
    assert run(commands).attributes["output"].splitlines()[2] == "three"


def test_streams_are_as_before(commands: CapturedAudit, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sys.stdout, dict(vars(sys.stdout)), sys.stderr, dict(vars(sys.stderr)))
    call_command("discharge")
    assert (sys.stdout, vars(sys.stdout), sys.stderr, vars(sys.stderr)) == before
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("one\ntwo\nreturned\n", "three\nfour\n")


def test_a_command_inside_a_command_has_it_as_parent(commands: CapturedAudit) -> None:
    call_command("discharge", calls=True)
    outer, inner = run(commands), run(commands, "note")
    assert inner.request.parent == outer.request.id
    assert inner.actor == outer.actor
    assert commands.one(event_name="clinic.command").request.id == inner.request.id
    assert outer.request.parent == ""


def test_a_command_inside_a_request_has_the_request_as_parent(commands: CapturedAudit) -> None:
    Client().get("/commanding/", REMOTE_ADDR="192.0.2.7")
    start, inside, end = list(commands)
    assert [r.event_name for r in (start, inside, end)] == ["command.start", "clinic.command", "command.run"]
    assert start.request == inside.request == end.request
    assert end.request.parent not in ("", end.request.id)
    assert (end.request.route, end.source.id, end.actor.id) == ("commanding/", "192.0.2.7", "anonymous")


def test_a_request_inside_a_command_has_the_command_as_parent(instrumented: Instrumented) -> None:
    with recording(instrumented, requests=RequestsConfig(enabled=True)) as captured:
        call_command("visit")
    command, request = run(captured, "visit"), captured.one(event_name="http.server.request")
    assert request.request.parent == command.request.id != ""
    assert request.request.id != command.request.id
    inner = captured.one(event_name="command.run", target="command/note")
    assert inner.request.parent == request.request.id
    assert command.request.parent == ""


def test_a_command_without_a_record_is_no_parent_of_requests(instrumented: Instrumented) -> None:
    with recording(instrumented, requests=RequestsConfig(enabled=True), exclude=["visit"]) as captured:
        call_command("visit")
    assert captured.one(event_name="http.server.request").request.parent == ""


def test_two_commands_inside_a_request_share_their_parent(commands: CapturedAudit) -> None:
    client = Client()
    client.get("/commanding/")
    client.get("/commanding/")
    ends = commands.find(event_name="command.run")
    assert len({end.request.parent for end in ends}) == len({end.request.id for end in ends}) == 2


def test_an_object_as_an_option_is_not_asked_for_its_text(commands: CapturedAudit) -> None:
    class Ward:
        def __str__(self) -> str:
            raise RuntimeError("not for audit")

        __repr__ = __str__

    class Take(BaseCommand):
        requires_system_checks: list[str] = []
        stealth_options = ("ward", "kinds")

        def handle(self, *args: Any, **options: Any) -> None:
            pass

    call_command(Take(), ward=Ward(), kinds=["a", 2, None, b"x"])
    arguments = run(commands, __name__.rpartition(".")[2]).attributes["arguments"]
    assert arguments == [
        f"--ward=<{Ward.__qualname__}>",
        "--kinds=a",
        "--kinds=2",
        "--kinds=None",
        "--kinds=x",
    ]


def test_by_default_servers_shells_and_tools_have_no_record(instrumented: Instrumented) -> None:
    with recording(instrumented) as commands:
        call_command("check")
        call_command("shell", command="print('x')")
        assert list(commands) == []


def test_a_failure_of_ours_costs_no_command(commands: CapturedAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ours")

    from otel_audit.http.contents import Contents
    from otel_audit.runs.streams import Listening

    monkeypatch.setattr(Contents, "arguments", broken)
    monkeypatch.setattr(Contents, "output", broken)
    monkeypatch.setattr(Contents, "exception", broken)
    end = Listening.end
    monkeypatch.setattr(Listening, "end", lambda self: broken(end(self)))
    assert call_command("discharge") == "returned"
    with pytest.raises(CommandError):
        call_command("discharge", fail=2)
    ends = commands.find(event_name="command.run")
    assert [end.outcome for end in ends] == ["success", "failure"]
    assert ends[1].attributes["process.exit.code"] == 2


def test_the_target_is_the_command(commands: CapturedAudit) -> None:
    call_command("note")
    assert run(commands, "note").target == Target("command", "note")
