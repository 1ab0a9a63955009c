"""An application forks in C in the middle of a transaction."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.running import ROOT, command, run
from tests.pipeline.otlp_sink import Sink
from tests.servers.site import Site

SCRIPT = """
import ctypes, os, django
django.setup()
from django.core.management import call_command
from django.db import transaction
from django.contrib.auth.models import Group
call_command("migrate", verbosity=0)
child = False
with transaction.atomic():
    Group.objects.create(name="before")
    with transaction.atomic():
        pid = ctypes.PyDLL(None).fork()
        child = pid == 0
        Group.objects.create(name="child" if child else "parent")
Group.objects.create(name="child after" if child else "parent after")
try:
    with transaction.atomic():
        Group.objects.create(name="child undone" if child else "parent undone")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
if child:
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_each_process_records_what_it_wrote_itself(tmp_path: Path) -> None:
    """What the transaction held at the fork is the parent's. (In memory: each has a database of its own.)"""
    with Sink() as sink:
        site = Site(tmp_path, sink)
        process = site.start("python", "-c", SCRIPT, environment={"SMALL_DATABASE": ":memory:"})
        assert process.wait() == 0, process.output()
        run(command("otel-audit"), "spool", "drain", environment=site.environment, cwd=ROOT)
        outcomes = sorted(
            (str(change.new), record.outcome)
            for record in site.creations
            for change in record.changes
            if change.field == "name"
        )
        transactions = {
            name.split()[0]: record.database.transaction
            for record in site.creations
            for name in [str(record.changes[-1].new)]
            if record.outcome == "success" and "after" not in name
        }
    assert outcomes == [
        ("before", "success"),
        ("child", "success"),
        ("child after", "success"),
        ("child undone", "failure"),
        ("parent", "success"),
        ("parent after", "success"),
        ("parent undone", "failure"),
    ]
    assert transactions["before"] == transactions["parent"] != transactions["child"]
