"""Run the shop under otel-audit, act one afternoon in it over HTTP, and read the trail.

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
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from tour import expectations, relay, story
from tour.processes import SHOP, DemoFailed, Processes, command, free_port, listening

PEOPLE = {"ana": "magenta", "ben": "cyan", "mia": "green", "stranger": "red"}
PATIENCE = 15.0
console = Console(highlight=False)


class Ports:
    """Where everything listens: the standard ports, or free ones where those are taken."""

    def __init__(self) -> None:
        taken: set[int] = set()
        self.shop = free_port(8000, taken)
        self.http = free_port(4318, taken)
        self.grpc = free_port(4317, taken)
        self.clickhouse = free_port(8123, taken)


def environment(ports: Ports, state: Path, collector: relay.Relay | None = None) -> dict[str, str]:
    """Return all that is set for the demo; in a project of one's own the defaults do."""
    direct = {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SHOP_DATABASE": f"sqlite://{state / 'shop.sqlite3'}",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports.http}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_AUDIT_CONFIG": str(SHOP / "otel-audit.toml"),
        "OTEL_AUDIT_SPOOL_DIRECTORY": str(state / "spool"),
        "OTEL_AUDIT_SINK_ENDPOINT": f"http://127.0.0.1:{ports.http}/v1/audit",
        "OTEL_AUDIT_STORE_URL": f"http://127.0.0.1:{ports.clickhouse}",
        "OTEL_AUDIT_SERVER_DATA": str(state / "store"),
        "OTEL_AUDIT_SERVER_HTTP_PORT": str(ports.http),
        "OTEL_AUDIT_SERVER_GRPC_PORT": str(ports.grpc),
        "OTEL_AUDIT_SERVER_CLICKHOUSE_PORT": str(ports.clickhouse),
        # The visitors of the demo come through a reverse proxy, which they play themselves.
        "OTEL_AUDIT_CONTEXT_TRUSTED_PROXIES": "1",
    }
    return direct if collector is None else direct | collector.environment(direct["OTEL_AUDIT_STORE_URL"])


def start(processes: Processes, ports: Ports, collector: relay.Relay | None = None) -> None:
    """Start the store, the Collector if there is one, and the shop, as their users would."""
    python, instrument = sys.executable, command("opentelemetry-instrument")
    typed("otel-audit serve")
    serve = processes.spawn("serve", [command("otel-audit"), "serve"])
    if collector is not None:
        typed("otelcol-audit --config config.yaml")
        processes.start("otelcol-audit", collector.arguments, collector.healthy)
    typed("python manage.py migrate")
    processes.run("migrate", [python, "manage.py", "migrate", "--verbosity=0"])
    typed("opentelemetry-instrument python manage.py seed")
    processes.run("seed", [instrument, python, "manage.py", "seed"])
    typed("opentelemetry-instrument gunicorn shop.wsgi --workers 2")
    processes.start(
        "gunicorn",
        [
            *(instrument, command("gunicorn"), "shop.wsgi", "--workers=2"),
            *(f"--bind=127.0.0.1:{ports.shop}", "--no-control-socket"),
        ],
        lambda: listening(ports.shop),
    )
    processes.wait("serve", serve, lambda: listening(ports.clickhouse) and listening(ports.http))
    console.print()


def typed(line: str) -> None:
    """Print a command as its user would have typed it."""
    console.print(f"  [dim]$[/] {line}")


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

    def wait_for_spans(self, trace_id: str) -> None:
        """Wait until the spans of a trace are there, too: they go another way, and need not arrive at all."""
        deadline = time.monotonic() + PATIENCE
        asked = [command("otel-audit"), "trace", "--json", trace_id]
        while '"charge the card"' not in self._processes.capture(asked) and time.monotonic() < deadline:
            time.sleep(0.2)

    def show(self, title: str, *arguments: str) -> None:
        """Show a command and what it prints, as it prints it."""
        console.print()
        console.print(Rule(f"[bold]{title}[/]", style="dim", align="left"))
        console.print(f"[dim]$[/] [bold]{shlex.join(('otel-audit', *arguments))}[/]\n")
        sys.stdout.flush()
        self._processes.show([command("otel-audit"), *arguments])


def told(who: str, what: str) -> None:
    """Print one step of the story."""
    console.print(f"  [{PEOPLE[who]}]{who:>8}[/]  {what}")


def wait_for_the_trail(trail: Trail, numbers: story.Numbers) -> list[str]:
    """Wait until all that must be on record is; give what is missing when patience is over."""
    deadline = time.monotonic() + PATIENCE
    while (missing := expectations.missing(trail.ask, numbers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return missing


def tell(trail: Trail, numbers: story.Numbers, since: str) -> None:
    """Show the trail: all of it, one record, one trace, one order."""
    order = f"shop.Order/{numbers.kept}"
    trail.show("The trail", "query", "--since", since, "--limit", "100", "--oldest-first")
    moved = trail.newest("--target", order, "--field", "address", "--action", "UPDATE")
    trail.show("One record in full: the new address", "show", moved["id"])
    bought = trail.newest("--target", order, "--action", "CREATE")
    trail.wait_for_spans(bought["trace_id"])
    trail.show("One trace: the checkout of that order", "trace", bought["trace_id"])
    trail.show("The history of that order", "history", order)
    trail.show("The history of a price, the sale included", "history", expectations.ASSAM)


def tell_of_the_way(collector: relay.Relay) -> list[str]:
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
    console.print(
        f"  The shop   http://127.0.0.1:{ports.shop}/   (ana, ben or mia; password {story.PASSWORD})"
    )
    console.print("  Ask it     in another terminal:\n")
    if ports.clickhouse != 8123:
        console.print(f"    export OTEL_AUDIT_STORE_URL=http://127.0.0.1:{ports.clickhouse}")
    program = Path(command("otel-audit"))
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    for arguments in (
        "tail -f",
        "query --actor ana --outcome failure",
        "query --target shop.Card --action READ --since '10 minutes ago'",
        "query --field price --json",
        "history shop.Product/5",
    ):
        console.print(f"    {shown} {arguments}")


def play(once: bool, collector_binary: str | None = None) -> int:
    """Run the whole demo; give the exit status."""
    began = time.monotonic()
    state = Path(tempfile.mkdtemp(prefix="otel-audit-demo-"))
    ports = Ports()
    collector = None if collector_binary is None else relay.Relay(collector_binary, state)
    try:
        with Processes(environment(ports, state, collector), state) as processes:
            console.print("[bold]Kettle & Leaf[/], a tea shop, under otel-audit", end="")
            console.print(f"   [dim]shop :{ports.shop}, OTLP :{ports.http}, store :{ports.clickhouse}[/]\n")
            start(processes, ports, collector)
            trail = Trail(processes)
            since = f"{datetime.now().astimezone():%H:%M:%S}"
            numbers = story.act(f"http://127.0.0.1:{ports.shop}", told)
            missing = wait_for_the_trail(trail, numbers)
            tell(trail, numbers, since)
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
