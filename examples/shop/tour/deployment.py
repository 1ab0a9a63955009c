"""What runs where: the store, the Collector if there is one, the shop and the warehouse."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tour.gateway import Gateway
from tour.processes import FULFILMENT, SHOP, Processes, Service, command, free_port, listening
from tour.relay import Relay

console = Console(highlight=False)


class Ports:
    """Where everything listens: the standard ports, or free ones where those are taken."""

    def __init__(self) -> None:
        taken: set[int] = set()
        self.shop = free_port(8000, taken)
        self.warehouse = free_port(8001, taken)
        self.fulfilment = free_port(0, taken)
        self.http = free_port(4318, taken)
        self.grpc = free_port(4317, taken)
        self.clickhouse = free_port(8123, taken)


class Settings(NamedTuple):
    """All that is set for the demo; in a project of one's own the defaults do."""

    common: dict[str, str]
    shop: Service
    fulfilment: Service


def settings(ports: Ports, state: Path, collector: Relay | None = None) -> Settings:
    """Return the environments of everything, with all files under ``state``."""
    common = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports.http}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_AUDIT_CONFIG": str(SHOP / "otel-audit.toml"),
        "OTEL_AUDIT_SINK_ENDPOINT": f"http://127.0.0.1:{ports.http}/v1/audit",
        "OTEL_AUDIT_STORE_URL": f"http://127.0.0.1:{ports.clickhouse}",
        "OTEL_AUDIT_SERVER_DATA": str(state / "store"),
        "OTEL_AUDIT_SERVER_HTTP_PORT": str(ports.http),
        "OTEL_AUDIT_SERVER_GRPC_PORT": str(ports.grpc),
        "OTEL_AUDIT_SERVER_CLICKHOUSE_PORT": str(ports.clickhouse),
        # The visitors of the demo come through a reverse proxy, which they play themselves.
        "OTEL_AUDIT_CONTEXT_TRUSTED_PROXIES": "1",
        # Both services have it: one signs who acts, the other verifies it.
        "OTEL_AUDIT_CONTEXT_KEYS": f"demo={secrets.token_hex(32)}",
    }
    if collector is not None:
        common |= collector.environment(common["OTEL_AUDIT_STORE_URL"])
    shop = {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SHOP_DATABASE": f"sqlite://{state / 'shop.sqlite3'}",
        "SHOP_BROKER": str(state / "broker"),
        "SHOP_FULFILMENT_URL": f"http://127.0.0.1:{ports.warehouse}",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_AUDIT_SPOOL_DIRECTORY": str(state / "spool"),
        "OTEL_AUDIT_CONTEXT_PROPAGATE_TO": f"127.0.0.1:{ports.warehouse}",
        "OTEL_AUDIT_CONTEXT_QUEUES": "celery",
    }
    fulfilment = {
        "FULFILMENT_DATABASE": f"sqlite+aiosqlite:///{state / 'fulfilment.sqlite3'}",
        "OTEL_SERVICE_NAME": "fulfilment",
        "OTEL_AUDIT_CONFIG": str(FULFILMENT / "otel-audit.toml"),
        "OTEL_AUDIT_SPOOL_DIRECTORY": str(state / "fulfilment-spool"),
        "OTEL_AUDIT_CONTEXT_AUDIENCE": f"127.0.0.1:{ports.warehouse}",
    }
    return Settings(common, Service(SHOP, shop), Service(FULFILMENT, fulfilment))


@contextmanager
def running(
    processes: Processes, ports: Ports, set_: Settings, collector: Relay | None = None
) -> Iterator[Gateway]:
    """Start everything, and run the gateway of the warehouse until the block ends."""
    python, instrument = sys.executable, command("opentelemetry-instrument")
    gateway = Gateway(ports.warehouse, ports.fulfilment)
    typed("otel-audit serve")
    serve = processes.spawn("serve", [command("otel-audit"), "serve"])
    if collector is not None:
        typed("otelcol-audit --config config.yaml")
        processes.start("otelcol-audit", collector.arguments, collector.healthy)
    typed("opentelemetry-instrument uvicorn fulfilment.main:app")
    uvicorn = processes.spawn(
        "uvicorn",
        [instrument, command("uvicorn"), "fulfilment.main:app", f"--port={ports.fulfilment}"],
        set_.fulfilment,
    )
    typed("python manage.py migrate")
    processes.run("migrate", [python, "manage.py", "migrate", "--verbosity=0"], set_.shop)
    typed("opentelemetry-instrument python manage.py seed")
    processes.run("seed", [instrument, python, "manage.py", "seed"], set_.shop)
    typed("opentelemetry-instrument gunicorn shop.wsgi --workers 2")
    gunicorn = processes.spawn(
        "gunicorn",
        [
            *(instrument, command("gunicorn"), "shop.wsgi", "--workers=2"),
            *(f"--bind=127.0.0.1:{ports.shop}", "--no-control-socket"),
        ],
        set_.shop,
    )
    typed("opentelemetry-instrument celery --app shop.tasks worker")
    worker = processes.spawn(
        "celery",
        [instrument, command("celery"), "--app=shop.tasks", "worker", "--concurrency=1", "--loglevel=info"],
        set_.shop,
    )
    processes.wait("gunicorn", gunicorn, lambda: listening(ports.shop))
    processes.wait("celery", worker, lambda: "ready." in processes.last_words("celery"))
    processes.wait("uvicorn", uvicorn, lambda: listening(ports.fulfilment))
    processes.wait("serve", serve, lambda: listening(ports.clickhouse) and listening(ports.http))
    console.print()
    with gateway:
        yield gateway


def typed(line: str) -> None:
    """Print a command as its user would have typed it."""
    console.print(f"  [dim]$[/] {line}")
