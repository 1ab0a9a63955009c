"""Run the application beside each neighbour and write what was seen into docs/beside.md: `make beside`.

Each neighbour has a virtual environment under ``.cache/beside``, with the newest versions it allows. It sends
to a server of this process, in whatever format it likes; what is looked for is text in each of them. What
otel-audit sends arrives at the same server as OTLP.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import os
import re
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.beside.application import CANARY, SECRET
from tests.beside.neighbours import NEIGHBOURS, Neighbour

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENTS: Final = ROOT / ".cache" / "beside"
DOCUMENT: Final = ROOT / "docs" / "beside.md"
BEGIN, END = "<!-- written by make beside -->", "<!-- end -->"
SECONDS: Final = 180


class Received:
    """What arrived: requests for audit, and the bytes of everything else, unpacked."""

    def __init__(self) -> None:
        self.records: list[dict[str, str]] = []
        self.telemetry = b""

    def take(self, path: str, body: bytes) -> None:
        """Take one request."""
        if path == "/v1/audit":
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        values = {each.key: each.value.string_value for each in record.attributes}
                        self.records.append(values | {"trace_id": record.trace_id.hex()})
        else:
            self.telemetry += body


@contextlib.contextmanager
def receiving() -> Iterator[tuple[str, Received]]:
    """Receive on a free port."""
    received, lock = Received(), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self._body()
            encoding = self.headers.get("Content-Encoding", "")
            if encoding == "gzip":
                body = gzip.decompress(body)
            elif encoding == "deflate":
                body = zlib.decompress(body)
            with lock:
                received.take(self.path, body)
            answer = b'{"itemsReceived": 1, "itemsAccepted": 1, "errors": [], "rate_by_service": {}}'
            otlp = self.path.startswith("/v1/") and "trace" not in self.headers.get("Content-Type", "")
            answer = b"" if otlp else answer
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf" if otlp else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_PUT = do_GET = _answer  # noqa: N815 - the names that http.server calls

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()


def environment(name: str, neighbour: Neighbour) -> Path:
    """Make the neighbour's virtual environment, once for each list of packages; give its ``bin``."""
    directory = ENVIRONMENTS / name
    wanted = "\n".join(neighbour.packages)
    stamp = directory / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"{name}: installing {', '.join(neighbour.packages)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        pip: list[str | Path] = [
            directory / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "--editable", f"{ROOT}[django]", *neighbour.packages], check=True)
        stamp.write_text(wanted)
    return directory / "bin"


class Outcome(NamedTuple):
    """What was seen of one run."""

    status: int
    errors: str
    records: list[dict[str, str]]
    telemetry: bytes


def run(name: str, neighbour: Neighbour, programs: Path, *, enabled: bool) -> Outcome:
    """Run the application once, with audit or with audit switched off."""
    with receiving() as (url, received), tempfile.TemporaryDirectory() as directory:
        places = {"url": url, "scheme": "http", "host": url.removeprefix("http://")}
        variables = clean(os.environ) | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "DJANGO_SETTINGS_MODULE": "application",
            "PYTHONPATH": str(Path(__file__).parent),
            "OTEL_SERVICE_NAME": "beside",
            "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel",  # no questions to a cloud that is not there
            "AWS_EC2_METADATA_DISABLED": "true",
            "OTEL_AUDIT_ENABLED": str(enabled).lower(),
            "OTEL_AUDIT_DJANGO_MODELS": "auth.Group",
            "OTEL_AUDIT_SINK_ENDPOINT": f"{url}/v1/audit",
            "OTEL_AUDIT_SPOOL_DIRECTORY": f"{directory}/spool",
            **{variable: value.format(**places) for variable, value in neighbour.variables.items()},
        }
        first, *rest = neighbour.command
        done = subprocess.run(
            [programs / first, *rest, Path(__file__).with_name("application.py"), name],
            cwd=directory,
            env=variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Outcome(done.returncode, done.stderr, received.records, received.telemetry)


def clean(variables: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would configure anything."""
    prefixes = ("OTEL_", "DJANGO_", "DD_", "SENTRY_", "LOGFIRE_", "AWS_", "AZURE_", "APPLICATIONINSIGHTS_")
    return {name: value for name, value in variables.items() if not name.startswith(prefixes)}


def seen(on: Outcome, off: Outcome) -> dict[str, bool]:
    """Say what works, by the columns of the table."""
    made = [each for each in on.records if each.get("audit.action") == "CREATE"]
    record = made[0] if len(made) == 1 else {}
    trace_id = record.get("trace_id", "")
    telemetry = on.telemetry
    # Datadog's agent is sent the lower half of a trace id, as a number.
    spelled = [bytes.fromhex(trace_id), trace_id.encode(), _packed(trace_id)] if trace_id else []
    return {
        "records": on.status == 0 and record.get("user.name") == "alice",
        "its telemetry": CANARY.encode() in telemetry and CANARY.encode() in off.telemetry,
        "same trace": any(each in telemetry for each in spelled),
        "actor on spans": b"audit.actor.id" in telemetry,
        "audit event on the span": record.get("audit.record.id", "-").encode() in telemetry,
        "spans redacted": CANARY.encode() in telemetry and SECRET.encode() not in telemetry,
    }


def _packed(trace_id: str) -> bytes:
    return b"\xcf" + bytes.fromhex(trace_id)[8:]  # MessagePack's unsigned 64 bits


def version(programs: Path, package: str) -> str:
    """Return the version of a package that is installed there."""
    name = re.sub(r"\[.*", "", package)
    program = (
        f"from importlib.metadata import version; print(version({name!r}), version('opentelemetry-sdk'))"
    )
    done = subprocess.run([programs / "python", "-c", program], capture_output=True, text=True, check=True)
    own, sdk = done.stdout.split()
    return f"`{name}` {own}, SDK {sdk}"


def main() -> None:
    """Run all, or those that are named."""
    names = sys.argv[1:] or list(NEIGHBOURS)
    unknown = sorted(set(names) - set(NEIGHBOURS))
    if unknown:
        raise SystemExit(f"no neighbour {', '.join(unknown)}; there are {', '.join(NEIGHBOURS)}")
    rows = []
    for name in names:
        neighbour = NEIGHBOURS[name]
        programs = environment(name, neighbour)
        on = run(name, neighbour, programs, enabled=True)
        off = run(name, neighbour, programs, enabled=False)
        found = seen(on, off)
        print(f"{name}:", ", ".join(f"{what} {'yes' if good else 'NO'}" for what, good in found.items()))
        print("".join(f"    {line}\n" for line in on.errors.splitlines()[-12:]), end="", flush=True)
        marks = " | ".join("yes" if good else "**no**" for good in found.values())
        rows.append(
            f"| {neighbour.title}: {version(programs, neighbour.packages[0])} | {neighbour.how} | {marks} |"
        )
    head = f"| beside | started by | {' | '.join(found)} |"
    table = "\n".join([head, "|---" * (len(found) + 2) + "|", *rows])
    if names == list(NEIGHBOURS):
        before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}", "utf-8")
        print(f"written to {DOCUMENT.relative_to(ROOT)}")
    else:
        print(table)


if __name__ == "__main__":
    main()
