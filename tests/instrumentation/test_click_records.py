"""Commands of Click and Typer on record: what was typed, how it ended, what was printed."""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import wrapt
from click.testing import CliRunner, Result
from opentelemetry.sdk.trace import TracerProvider
from typer.testing import CliRunner as TyperRunner

import otel_audit
from otel_audit.audit_record import Actor, AuditRecord, Target
from otel_audit.config.model import RedactionConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.testing import CapturedAudit
from tests.runs.conftest import Recorded, audit, printed, recorded

__all__ = ["audit", "printed", "recorded"]


class Harbour(enum.Enum):
    NORTH = "north"


@click.group()
@click.option("--region")
@click.option("--fail", is_flag=True)
def fleet(region: str, fail: bool) -> None:
    if fail:
        raise click.ClickException("no fleet")


@fleet.command("scrap-old")
@click.argument("ships", nargs=-1)
@click.option("--years", default=20)
@click.option("--dry", is_flag=True)
@click.option("--harbour", type=click.Choice([h.value for h in Harbour]))
@click.option("--list", "path", type=click.Path(path_type=Path))
@click.option("--password")
@click.option("-p", "--pin", prompt=True, hide_input=True, default="")
@click.option("--note", multiple=True)
@click.option("--exit", "code", type=int)
@click.pass_context
def scrap(ctx: click.Context, /, **given: Any) -> None:
    click.echo("scrapping")
    click.echo("to stderr", err=True)
    otel_audit.record("ship.scrap", "SCRAP", target=Target("Ship", "7"))
    if given["code"] is not None:
        ctx.exit(given["code"])


@fleet.command("confess")
def confess() -> None:
    click.echo("half a question ?\npassword=correct-horse-7\nand its end")


def call(*arguments: str, command: click.Command = fleet, pin: str = "4711") -> Result:
    return CliRunner().invoke(command, arguments, prog_name="fleet", input=f"{pin}\n")


def run(audit: CapturedAudit, name: str = "fleet scrap-old") -> AuditRecord:
    return audit.one(event_name="command.run", target=f"command/{name}")


def test_a_command_has_a_record_of_its_start_and_one_of_its_end(audit: CapturedAudit) -> None:
    done = call("scrap-old", "--years", "3", "ann", "bob")
    assert done.exit_code == 0, done.output
    start, scrapped, end = list(audit)
    assert [r.event_name for r in (start, scrapped, end)] == ["command.start", "ship.scrap", "command.run"]
    assert start.target == end.target == Target("command", "fleet scrap-old")
    assert {r.actor for r in (start, scrapped, end)} == {Actor("fleet scrap-old", "system")}
    assert {r.request.id for r in (start, scrapped, end)} == {end.request.id}
    assert (start.action, end.action, end.outcome, end.error) == ("EXECUTE", "EXECUTE", "success", "")
    assert end.request.view == f"{__name__}.scrap"
    assert end.attributes["process.exit.code"] == 0
    assert end.attributes["duration"] >= 0
    assert start.attributes["arguments"] == end.attributes["arguments"]
    assert "output" not in end.attributes  # by a rule only
    assert end.log == start.log == "activity"


def test_arguments_are_those_given_in_any_way(audit: CapturedAudit, tmp_path: Path) -> None:
    listed = str(tmp_path / "ships.txt")
    call("--region", "eu", "scrap-old", "--dry", "--note", "a", "--note", "b", "--list", listed, "ann", "bob")
    assert run(audit).attributes["arguments"] == [
        "--region=eu",
        "ann",
        "bob",
        "--dry",
        f"--list={listed}",
        "--pin=[redacted]",
        "--note=a",
        "--note=b",
    ]


@pytest.mark.parametrize(
    "typed",
    [
        ["--password", "hunter2hunter2"],
        ["--password=hunter2hunter2"],
        ["--pin", "hunter2hunter2"],
        ["-p", "hunter2hunter2"],
        ["--note", "token=hunter2hunter2"],
        ["--note", '{"password": "hunter2hunter2"}'],
        ["https://ann:hunter2hunter2@example.com/"],
        ["Authorization: Bearer hunter2hunter2"],
    ],
)
def test_secrets_among_the_arguments_are_removed(audit: CapturedAudit, typed: list[str]) -> None:
    call("scrap-old", *typed, pin="hunter2hunter2")
    assert run(audit).attributes["arguments"] != []
    audit.assert_no_secrets("hunter2hunter2")


def test_a_pin_typed_at_a_hidden_prompt_is_not_on_record(audit: CapturedAudit) -> None:
    call("scrap-old", pin="471147114711")
    audit.assert_no_secrets("471147114711")


@pytest.mark.parametrize(("code", "outcome"), [(0, "success"), (3, "failure")])
def test_a_command_that_exits_says_with_what(audit: CapturedAudit, code: int, outcome: str) -> None:
    done = call("scrap-old", "--exit", str(code))
    assert done.exit_code == code
    end = run(audit)
    assert (end.attributes["process.exit.code"], end.outcome) == (code, outcome)
    assert end.error == ("Exit" if code else "")


def failing(error: BaseException) -> click.Command:
    @click.command()
    def fleet() -> None:
        raise error

    return fleet


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError("by zero"), 1),
        (click.ClickException("no"), 1),
        (click.UsageError("bad"), 2),
        (click.Abort(), 1),
        (SystemExit(7), 7),
        (SystemExit("no"), 1),
        (KeyboardInterrupt(), 130),
        (BaseException("odd"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_command_raises_passes_unchanged(
    audit: CapturedAudit, error: BaseException, code: int
) -> None:
    command = failing(error)
    with pytest.raises(type(error)) as caught:
        command.invoke(click.Context(command, info_name="fleet"))
    assert caught.value is error
    end = run(audit, "fleet")
    assert (end.outcome, end.error) == ("failure", type(error).__name__)
    assert end.attributes["process.exit.code"] == code
    assert end.attributes["exception.type"].endswith(type(error).__name__)


def test_secrets_of_an_exception_are_removed(audit: CapturedAudit) -> None:
    call(command=failing(ValueError("token=hunter2hunter2")))
    assert "exception.message" in run(audit, "fleet").attributes
    audit.assert_no_secrets("hunter2hunter2")


def test_the_function_of_a_group_has_a_record_only_if_it_fails(audit: CapturedAudit) -> None:
    call("scrap-old")
    assert audit.find(event_name="command.run", target="command/fleet") == []
    call("--fail", "scrap-old")
    failed = run(audit, "fleet")
    assert (failed.outcome, failed.error) == ("failure", "ClickException")
    assert failed.attributes["arguments"] == ["--fail"]


def test_what_is_printed_is_recorded_where_a_rule_says_so(printed: CapturedAudit) -> None:
    done = call("scrap-old")
    assert done.output.endswith("scrapping\nto stderr\n")
    assert run(printed).attributes["output"] == "scrapping\nto stderr\n"
    assert not any("write" in vars(stream) for stream in (sys.stdout, sys.stderr))


def test_what_is_printed_is_redacted_once_and_keeps_the_rest(printed: CapturedAudit) -> None:
    """What stands for a secret may be taken for one again, with what follows."""
    call("confess")
    assert run(printed, "fleet confess").attributes["output"] == (
        "half a question ?\npassword=[redacted]\nand its end\n"
    )


def test_a_command_of_typer_is_recorded_alike(printed: CapturedAudit) -> None:
    ports = typer.Typer()

    @ports.command()
    def dredge(harbour: Harbour, depth: int = 9, token: str = "") -> None:
        typer.echo("dredging")
        print("deeper")
        raise typer.Exit(4)

    @ports.command()
    def close() -> None:
        pass

    given = ["dredge", "north", "--depth", "7", "--token", "hunter2hunter2"]
    done = TyperRunner().invoke(ports, given, prog_name="ports")
    assert done.exit_code == 4, done.output
    end = run(printed, "ports dredge")
    assert end.attributes["arguments"] == ["north", "--depth=7", "--token=[redacted]"]
    assert (end.attributes["process.exit.code"], end.outcome) == (4, "failure")
    assert end.attributes["output"] == "dredging\ndeeper\n"


def test_an_object_of_the_applications_is_not_asked_for_its_text(audit: CapturedAudit) -> None:
    class Ship:
        def __str__(self) -> str:
            raise RuntimeError("not for audit")

        __repr__ = __str__

    class ShipType(click.ParamType[Ship]):
        name = "ship"

        def convert(self, value: Any, param: Any, ctx: Any) -> Ship:
            return Ship()

    @click.command()
    @click.option("--ship", type=ShipType())
    def fleet(ship: Ship) -> None:
        pass

    assert call("--ship", "ann", command=fleet).exit_code == 0
    assert run(audit, "fleet").attributes["arguments"] == ["--ship=<" + Ship.__qualname__ + ">"]


def test_excluded_commands_have_no_record_and_act_all_the_same(recorded: Recorded) -> None:
    with recorded(exclude=["fleet*", "!fleet"]) as audit:
        call("scrap-old")
    scrapped = audit.one()
    assert scrapped.actor == Actor("fleet scrap-old", "system")


def test_a_policy_decides_about_commands_by_name(recorded: Recorded) -> None:
    rules = [
        PolicyRule(command="fleet scrap-old", level="metadata", slug="scrap", stages=["end"]),
        PolicyRule(command="*", level="none"),
    ]
    with recorded(policy=rules) as audit:
        call("scrap-old")
        call(command=failing(ValueError()))
    assert [r.event_name for r in audit] == ["ship.scrap", "command.run"]
    assert run(audit).slug == "scrap"


def test_names_of_its_own_hide_arguments(recorded: Recorded) -> None:
    with recorded(config={"redaction": RedactionConfig(names=["region"])}) as audit:
        call("--region", "hunter2hunter2", "scrap-old")
    audit.assert_no_secrets("hunter2hunter2")


def test_without_its_section_nothing_is_recorded_of_commands(recorded: Recorded) -> None:
    with recorded(enabled=False) as audit:
        call("scrap-old")
        assert [r.event_name for r in audit] == ["ship.scrap"]


@contextlib.contextmanager
def spans_around_commands() -> Iterator[None]:
    """Make a span of each command as opentelemetry-instrumentation-click does: around ``Command.invoke``."""
    tracer = TracerProvider().get_tracer("click")

    def with_span(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        with tracer.start_as_current_span("command"):
            return wrapped(*args, **kwargs)

    plain = click.Command.invoke
    wrapt.wrap_function_wrapper("click.core", "Command.invoke", with_span)
    try:
        yield
    finally:
        click.Command.invoke = plain  # type: ignore[method-assign]


@pytest.mark.parametrize("theirs_first", [True, False])
def test_its_records_are_in_the_trace_that_opentelemetry_makes_of_it(
    recorded: Recorded, theirs_first: bool
) -> None:
    with contextlib.ExitStack() as stack:
        if theirs_first:
            stack.enter_context(spans_around_commands())
        audit = stack.enter_context(recorded())
        if not theirs_first:
            stack.enter_context(spans_around_commands())
        call("scrap-old")
        traces = {record.trace_id for record in audit}
    assert len(traces) == 1
    assert traces != {""}
