"""Commands of Click and of Typer name themselves as who acts."""

import sys
import threading
from typing import Any

import click
import pytest
import typer
from click.testing import CliRunner
from typer.testing import CliRunner as TyperRunner

import otel_audit
from otel_audit.audit_record import Actor
from otel_audit.testing import CapturedAudit
from tests.instrumentation.starlette.conftest import audit, instrumented

__all__ = ["audit", "instrumented"]


def note(name: str = "note") -> None:
    otel_audit.record(f"ship.{name}", "NOTE")


@click.group()
def fleet() -> None:
    note("group")


@fleet.command("scrap-old")
@click.option("--years", default=20)
@click.pass_context
def scrap(ctx: click.Context, years: int) -> None:
    note("scrap")
    ctx.invoke(rust)


@fleet.command()
def rust() -> None:
    note("rust")


def test_a_command_of_click_is_who_acts(audit: CapturedAudit) -> None:
    done = CliRunner().invoke(fleet, ["scrap-old"], prog_name="fleet")
    assert done.exit_code == 0, done.output
    note("outside")
    actors = {record.event_name: record.actor for record in audit}
    assert actors["ship.group"] == Actor("fleet", "system")
    assert actors["ship.scrap"] == actors["ship.rust"] == Actor("fleet scrap-old", "system")
    assert actors["ship.outside"].type == "service"
    assert audit.one(event_name="ship.scrap").request.view == f"{__name__}.scrap"


def test_a_command_of_typer_is_who_acts(audit: CapturedAudit) -> None:
    ports = typer.Typer()

    @ports.command()
    def dredge(depth: int = 9) -> None:
        note("dredge")

    @ports.command()
    def close() -> None:
        note("close")

    done = TyperRunner().invoke(ports, ["dredge", "--depth", "7"], prog_name="ports")
    assert done.exit_code == 0, done.output
    record = audit.one(event_name="ship.dredge")
    assert record.actor == Actor("ports dredge", "system")
    assert record.request.view.endswith(".dredge")


def test_a_command_may_say_for_whom_it_acts(audit: CapturedAudit) -> None:
    @click.command()
    def restore() -> None:
        with otel_audit.context(on_behalf_of="alice", reason="she asked"):
            note()

    CliRunner().invoke(restore, prog_name="restore")
    record = audit.one(event_name="ship.note")
    assert (record.actor.id, record.actor.on_behalf_of, record.reason) == ("restore", "alice", "she asked")


def test_a_command_that_fails_fails_as_without_us(audit: CapturedAudit) -> None:
    @click.command()
    def broken() -> None:
        note()
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(broken).exception, ZeroDivisionError)
    note("outside")
    assert audit.one(event_name="ship.outside").actor.type == "service"


def test_threads_of_a_command_are_its_own(audit: CapturedAudit) -> None:
    @click.command()
    def sail() -> None:
        thread = threading.Thread(target=note)
        thread.start()
        thread.join()

    CliRunner().invoke(sail, prog_name="sail")
    assert audit.one(event_name="ship.note").actor == Actor("sail", "system")


@pytest.mark.parametrize("module", ["uvicorn.main", "celery.bin.worker", "fastapi_cli.cli"])
def test_a_command_that_starts_a_server_is_not_who_acts(audit: CapturedAudit, module: str) -> None:
    def main() -> None:
        note()

    main.__module__ = module
    CliRunner().invoke(click.command()(main))
    assert audit.one(event_name="ship.note").actor.type == "service"


def test_what_is_no_command_of_ours_passes(audit: CapturedAudit) -> None:
    class Odd(click.Command):
        def __getattribute__(self, name: str) -> Any:
            if name == "callback" and sys._getframe(1).f_code.co_name == "_named":
                raise RuntimeError("odd")
            return super().__getattribute__(name)

    assert CliRunner().invoke(Odd("odd", callback=note)).exit_code == 0
    audit.one(event_name="ship.note")


def test_click_and_typer_are_left_as_they_were(instrumented: Any) -> None:
    import typer._click.core

    kinds = (click.Context, typer._click.core.Context)
    before = [vars(kind)["invoke"] for kind in kinds]
    with instrumented():
        assert all(vars(kind)["invoke"] is not own for kind, own in zip(kinds, before, strict=True))
    assert [vars(kind)["invoke"] for kind in kinds] == before
