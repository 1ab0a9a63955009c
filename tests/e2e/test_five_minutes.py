"""The five-minute start of the README, in a project that is not ours."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import Visitor
from tests.e2e.running import ROOT, Process, Store, answers, command, eventually, run
from tests.services import free_port


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as `django-admin startproject` makes it, with its tables."""
    run(command("django-admin"), "startproject", "library", str(tmp_path), cwd=tmp_path)
    run(sys.executable, "manage.py", "migrate", "--verbosity=0", cwd=tmp_path)
    return tmp_path


def commands_of(page: str) -> list[str]:
    """Return the `otel-audit` commands of a page's shell blocks, except those already run or until Ctrl-C."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    found = [line for line in lines if line.startswith("otel-audit ")]
    assert {"otel-audit init", "otel-audit serve", "otel-audit doctor", "otel-audit tail -f"} <= set(found)
    return [line for line in found if line.split()[1] not in ("init", "serve") and not line.endswith("-f")]


def substitutes(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands in this project for the examples of the pages."""
    return {
        "shop.Order/7": "auth.User/1",
        "ana": "lee",
        "7d34e9": entry["id"][-8:],
        "4bf92f3577b34da6a3ce929d0e0e4736": entry["trace_id"],
    }


def test_a_fresh_project_has_a_trail_after_init_instrument_and_serve(project: Path) -> None:
    """`otel-audit init`, the models named, the server under `opentelemetry-instrument`: a user is changed in
    the admin, and `otel-audit query` says by whom."""
    store, port = Store(project), free_port()
    environment = {
        **store.environment,
        "DJANGO_SETTINGS_MODULE": "library.settings",
        "OTEL_SERVICE_NAME": "library",
        "OTEL_EXPORTER_OTLP_ENDPOINT": store.sink,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_AUDIT_SINK_ENDPOINT": f"{store.sink}/v1/audit",
        "DJANGO_SUPERUSER_USERNAME": "lee",
        "DJANGO_SUPERUSER_PASSWORD": "turn-the-page-42",
        "DJANGO_SUPERUSER_EMAIL": "lee@library.example",
    }
    instrument, web = command("opentelemetry-instrument"), None

    def audit(*arguments: str, status: int | None = 0) -> str:
        return run(command("otel-audit"), *arguments, environment=environment, cwd=project, status=status)

    try:
        audit("init")
        written = (project / "otel-audit.toml").read_text()
        assert tomllib.loads(written)["django"]["models"], written
        assert "auth.User" in written

        store.process = Process(
            [command("otel-audit"), "serve"], environment, project / "serve.log", cwd=project
        )
        store.process.wait_until(lambda: answers(store.url) and answers(store.sink), "the store is ready")
        run(
            *(instrument, sys.executable, "manage.py", "createsuperuser", "--noinput"),
            environment=environment,
            cwd=project,
        )
        web = Process(
            [
                *(instrument, command("gunicorn"), "library.wsgi"),
                *(f"--bind=127.0.0.1:{port}", "--no-control-socket"),
            ],
            environment,
            project / "web.log",
            cwd=project,
        )
        url = f"http://127.0.0.1:{port}"
        web.wait_until(lambda: answers(f"{url}/admin/login/"), "gunicorn serves the project")
        lee = Visitor("lee", url, "192.0.2.1", "firefox", lambda _who, _what: None)
        lee.login("turn-the-page-42", at="/admin/login/?next=/admin/")
        lee.fill("/admin/auth/user/1/change/", first_name="Lee", last_name="Okafor")
        lee.close()

        eventually(lambda: "Okafor" in audit("query", "--target", "auth.User/1", status=None), "on record")
        history = audit("history", "auth.User/1")
        assert "manage.py createsuperuser" in history
        assert "lee" in history
        assert "turn-the-page-42" not in history
        assert "127.0.0.1" in audit("query", "--target", "auth.User/1"), "no proxy is trusted by default"
        audit("doctor")
        entry = store.ask("--target", "auth.User/1", "--field", "last_name")[0]
        for line in commands_of("README.md") + commands_of("docs/quickstart.md"):
            audit(*(substitutes(entry).get(word, word) for word in shlex.split(line)[1:]))
    finally:
        for process in (web, store.process):
            if process is not None:
                process.kill()
