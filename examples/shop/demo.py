"""Run the shop and its warehouse under otel-audit, act one afternoon in them over HTTP, and read the trail.

``make demo`` runs this. ``make demo DEMO_ONCE=1`` passes ``--once``: it then ends by itself, with exit status
1 if anything that must be on record is not. ``make demo-collector`` passes ``--collector``, which puts the
Collector between the shop and the store. Everything is started as a user would start it, and everything
printed about the trail is printed by the ``otel-audit`` command.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
from rich.markup import escape
from rich.rule import Rule
from tour import deployment, expectations, story
from tour.deployment import Ports, Settings, console
from tour.gateway import Gateway
from tour.processes import DemoFailed, Processes, Service, command
from tour.relay import Relay

PEOPLE = {"ana": "magenta", "ben": "cyan", "tom": "yellow", "mia": "green", "stranger": "red", "cron": "blue"}
PATIENCE = 15.0


class Trail:
    """Asks the trail by the ``otel-audit`` command: as data, and on the screen."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def ask(self, *arguments: str) -> list[expectations.Entry]:
        """Run ``otel-audit query --json``."""
        done = self._processes.capture([command("otel-audit"), "query", "--json", "--limit=500", *arguments])
        return [json.loads(line) for line in done.splitlines()]

    def newest(self, *arguments: str) -> expectations.Entry:
        """Return the newest record of a question that must have an answer."""
        found = self.ask(*arguments)
        if not found:
            raise DemoFailed(f"otel-audit query {shlex.join(arguments)} found nothing.")
        return found[0]

    def trace(self, trace_id: str) -> list[expectations.Entry]:
        """Run ``otel-audit trace --json``."""
        done = self._processes.capture([command("otel-audit"), "trace", "--json", trace_id])
        return [json.loads(line) for line in done.splitlines()]

    def wait_for_spans(self, trace_id: str) -> list[str]:
        """Wait for the spans of a trace, which go another way than records; give what is missing in it."""
        deadline = time.monotonic() + PATIENCE
        while (missing := expectations.missing_in_trace(self.trace(trace_id))) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.2)
        return missing

    def show(self, title: str, *arguments: str, service: Service | None = None) -> None:
        """Show a command and what it prints, as it prints it."""
        console.print()
        console.print(Rule(f"[bold]{title}[/]", style="dim", align="left"))
        line = escape(shlex.join(("otel-audit", *arguments)))
        console.print(f"[dim]$[/] [bold]{line}[/]\n", soft_wrap=True)
        sys.stdout.flush()
        self._processes.show([command("otel-audit"), *arguments], service)


def told(who: str, what: str) -> None:
    """Print one step of the story."""
    console.print(f"  [{PEOPLE[who]}]{who:>8}[/]  {what}")


def wait_for_the_trail(trail: Trail, numbers: story.Numbers) -> list[str]:
    """Wait until all that must be on record is; give what is missing when patience is over."""
    deadline = time.monotonic() + PATIENCE
    while (missing := expectations.missing(trail.ask, numbers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return missing


def restock(processes: Processes, settings: Settings) -> None:
    """Run a management command, as a nightly job would, with a token in its arguments."""
    told("cron", "fills up what is running out, by manage.py restock")
    line = [sys.executable, "manage.py", "restock", "--below=56", f"--supplier-token={story.PASSWORD}"]
    processes.run("restock", [command("opentelemetry-instrument"), *line], settings.shop)


def tell_of_a_call(trail: Trail, gateway: Gateway, settings: Settings) -> None:
    """Show what a call of the shop tells the warehouse, right away: it is accepted for a minute only."""
    call = gateway.newest("DELETE")
    baggage = call.headers.get("baggage")
    if not baggage:
        raise DemoFailed(f"{call.method} {call.path} came without a signed context.")
    trail.show(
        f"Who acts: the baggage of {call.method} {call.path}, signed",
        *("explain", "context", baggage),
        service=settings.fulfilment,
    )


def tell(trail: Trail, numbers: story.Numbers, since: str) -> list[str]:
    """Show the trail: all of it, one record, one trace, one order; give what is missing in the trace."""
    order = f"shop.Order/{numbers.kept}"
    trail.show("The trail", "query", "--since", since, "--limit", "100", "--oldest-first")
    shipment = f"fulfilment.Shipment/{numbers.shipment}"
    moved = trail.newest("--target", shipment, "--field", "address", "--action", "UPDATE")
    trail.show("One record in full: the new address, in the warehouse", "show", moved["id"])
    bought = trail.newest("--target", order, "--action", "CREATE")
    missing = trail.wait_for_spans(bought["trace_id"])
    trail.show("One trace over both services: the checkout of that order", "trace", bought["trace_id"])
    trail.show("The history of that order, in both services", "history", order)
    trail.show("What Celery was asked to do, and whether it has", "tasks", "--since", since)
    restocked = trail.ask("--kind", "command", "--target", "command/restock")
    ended = next(each["id"] for each in restocked if each["event_name"] == "command.run")
    trail.show("The command that filled the shelf up, and what it printed", "show", ended)
    call = ("outgoing", "PUT", f"http://127.0.0.1/orders/{numbers.kept}/shipment")
    trail.show("How much is recorded of a call of the warehouse, and why", "explain", *call)
    trail.show("The history of a price, the sale included", "history", expectations.ASSAM)
    return missing


def tell_of_the_way(collector: Relay) -> list[str]:
    """Show what the Collector says of the records that went through it; give what is wrong with that."""
    console.print()
    console.print(
        Rule("[bold]The way through the Collector, by its own metrics[/]", style="dim", align="left")
    )
    console.print(f"[dim]$[/] [bold]curl {collector.metrics_address}[/]\n")
    deadline = time.monotonic() + PATIENCE
    while (counts := collector.counts()).problems() and time.monotonic() < deadline:
        time.sleep(0.2)
    for what, count in counts._asdict().items():
        console.print(f"  {what:>10}  {count}")
    return counts.problems()


def go_on(ports: Ports) -> None:
    """Say what to try next."""
    console.print()
    console.print(Rule("[bold]Go on[/]", style="dim", align="left"))
    console.print(f"  Shop       http://127.0.0.1:{ports.shop}/   (ana, ben or mia: {story.PASSWORD})")
    console.print(f"  Warehouse  http://127.0.0.1:{ports.warehouse}/docs   (Tom: {story.TOM})")
    console.print("  Ask them   in another terminal:\n")
    if ports.clickhouse != 8123:
        console.print(f"    export OTEL_AUDIT_STORE_URL=http://127.0.0.1:{ports.clickhouse}")
    program = Path(command("otel-audit"))
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    for arguments in (
        "tail -f",
        "query --actor ana --outcome failure",
        "query --service fulfilment --on-behalf-of ana",
        "query --target shop.Card --action READ --since '10 minutes ago'",
        "query --field price --json",
        "history shop.Product/5",
    ):
        console.print(f"    {shown} {arguments}", soft_wrap=True)


def play(once: bool, collector_binary: str | None = None) -> int:
    """Run the whole demo; give the exit status."""
    began = time.monotonic()
    state = Path(tempfile.mkdtemp(prefix="otel-audit-demo-"))
    ports = Ports()
    collector = None if collector_binary is None else Relay(collector_binary, state)
    settings = deployment.settings(ports, state, collector)
    try:
        with ExitStack() as stack:
            processes = stack.enter_context(Processes(settings.common, state))
            console.print("[bold]Kettle & Leaf[/], a tea shop and its warehouse, under otel-audit", end="")
            console.print(
                f"   [dim]shop :{ports.shop}, warehouse :{ports.warehouse}, OTLP :{ports.http}, "
                f"store :{ports.clickhouse}[/]\n"
            )
            gateway = stack.enter_context(deployment.running(processes, ports, settings, collector))
            trail = Trail(processes)
            since = f"{datetime.now().astimezone():%H:%M:%S}"
            numbers = story.act(f"http://127.0.0.1:{ports.shop}", told, f"http://127.0.0.1:{ports.warehouse}")
            tell_of_a_call(trail, gateway, settings)
            restock(processes, settings)
            numbers = numbers._replace(background=True)
            missing = wait_for_the_trail(trail, numbers)
            missing += tell(trail, numbers, since)
            if collector is not None:
                missing += tell_of_the_way(collector)
            for what in missing:
                console.print(f"\n[red]Missing from the trail:[/] {what}")
            if not missing:
                count = len(expectations.expectations(numbers))
                seconds = time.monotonic() - began
                console.print(
                    f"\n[green]All {count} things that must be on record are.[/] It took {seconds:.0f} s."
                )
            if once:
                return 1 if missing else 0
            go_on(ports)
            console.print("\n  [dim]Ctrl-C ends the demo and removes everything it made.[/]")
            while processes.alive():
                time.sleep(0.3)
            raise DemoFailed(processes.obituary())
    finally:
        shutil.rmtree(state, ignore_errors=True)


def main() -> int:
    """Run the demo; clean up however it ends."""
    parser = argparse.ArgumentParser(description="Run the example shop and show its audit trail.")
    parser.add_argument("--once", action="store_true", help="end by itself; status 1 if a record is missing")
    parser.add_argument("--collector", metavar="BINARY", help="put this otelcol-audit before the store")
    options = parser.parse_args()

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        return play(options.once, options.collector)
    except KeyboardInterrupt:
        console.print("\nThe shop is closed.")
        return 0
    except (DemoFailed, RuntimeError, httpx.HTTPError) as error:
        console.print(f"\n[red]The demo failed.[/] {escape(str(error))}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
