"""Commands of real processes: killed, ended by signals, printing much, forking."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otel_audit.audit_record import Actor
from tests.runs.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_command_leaves_its_records(project: Project) -> None:
    project.command("sweep", 'self.stdout.write("swept"); print(options["given"])')
    out, err = project.run("sweep", "quay", "--password=hunter2hunter2")
    assert out == "swept\n['quay']\n"
    assert err == ""
    (start,), (end,) = project.records("command.start"), project.records("command.run")
    assert start.request.id == end.request.id
    assert end.actor == Actor("manage.py sweep", "system")
    assert end.attributes["arguments"] == ["quay", "--password=[redacted]"]
    assert end.attributes["output"] == out
    assert (end.outcome, end.attributes["process.exit.code"]) == ("success", 0)
    assert b"hunter2hunter2" not in b"".join(
        f.read_bytes() for f in project.directory.rglob("spool/**/*") if f.is_file()
    )


def test_a_command_that_fails_ends_with_its_status(project: Project) -> None:
    project.command("sweep", 'raise CommandError("dirty", returncode=4)')
    assert project.run("sweep", status=4)[1] == "CommandError: dirty\n"
    (end,) = project.records("command.run")
    assert (end.outcome, end.error, end.attributes["process.exit.code"]) == ("failure", "CommandError", 4)


def test_while_it_runs_it_has_begun_and_what_it_printed_is_on_record(project: Project) -> None:
    project.command(
        "sweep",
        """
        print("first")
        sys.stdin.readline()
        print("second")
        print("third", end="")
        sys.stdin.readline()
        """,
    )
    process = project.start("sweep", stdin=subprocess.PIPE)
    assert process.stdin is not None
    (start,) = project.wait_for("command.start")
    (first,) = project.wait_for("command.output")
    assert first.attributes["output"] == "first\n"
    process.stdin.write(b"\n")
    process.stdin.flush()
    outputs = project.wait_for("command.output", 2)
    process.communicate(b"\n", timeout=60)
    (end,) = project.records("command.run")
    assert outputs[1].attributes["output"].startswith("second\n")
    assert end.attributes["output"] == "first\nsecond\nthird"
    assert {record.request.id for record in project.records()} - {""} == {start.request.id}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_has_a_record(project: Project, how: signal.Signals) -> None:
    project.command("sweep", 'Berth; print("begun"); time.sleep(600)')
    process = project.start("sweep", stdin=subprocess.DEVNULL)
    project.wait_for("command.output")
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == -how
    (end,) = project.records("command.run")
    if how == signal.SIGKILL:
        assert (end.outcome, end.error) == ("unknown", "")
    else:
        assert (end.outcome, end.error) == ("failure", "SIGTERM")
        assert end.attributes["output"] == "begun\n"
    (start,) = project.records("command.start")
    assert start.request.id == end.request.id


def test_a_command_that_is_interrupted_says_so(project: Project) -> None:
    project.command("sweep", 'print("begun"); time.sleep(600)')
    process = project.start("sweep", stdin=subprocess.DEVNULL)
    project.wait_for("command.output")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in err
    (end,) = project.records("command.run")
    assert (end.outcome, end.error) == ("failure", "KeyboardInterrupt")
    assert end.attributes["process.exit.code"] == 130


def test_a_handler_of_the_applications_for_a_signal_decides(project: Project) -> None:
    project.command(
        "sweep",
        """
        def stop(number, frame):
            print("stopping")
            sys.exit(9)
        signal.signal(signal.SIGTERM, stop)
        print("begun", flush=True)
        time.sleep(600)
        """,
    )
    process = project.start("sweep", stdin=subprocess.DEVNULL)
    project.wait_for("command.output")
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (9, b"begun\nstopping\n")
    (end,) = project.records("command.run")
    assert (end.outcome, end.error, end.attributes["process.exit.code"]) == ("failure", "SystemExit", 9)
    assert end.attributes["output"] == "begun\nstopping\n"


def test_a_command_that_leaves_without_a_word_is_unknown(project: Project) -> None:
    project.command("sweep", "os._exit(0)")
    project.run("sweep")
    (end,) = project.records("command.run")
    assert end.outcome == "unknown"


def test_killed_again_and_again_each_run_has_one_record(project: Project) -> None:
    project.command("sweep", 'print("begun"); time.sleep(float(options["given"][0]) / 50); print("done")')
    for step in range(12):
        process = project.start("sweep", str(step), stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        project.wait_for("command.start", step + 1)
        process.kill()
        process.communicate()
    ends = project.records("command.run")
    assert len({end.id for end in ends}) == len({end.request.id for end in ends}) == 12
    starts = {start.request.id for start in project.records("command.start")}
    assert {end.request.id for end in ends} == starts


def test_a_child_that_goes_on_has_a_record_of_its_own(project: Project) -> None:
    project.command(
        "sweep",
        """
        if os.fork():
            os.wait()
            print("parent")
        else:
            print("child")
        """,
    )
    project.run("sweep")
    ends = {end.attributes.get("process.parent_pid", 0) > 0: end for end in project.records("command.run")}
    assert {end.outcome for end in ends.values()} == {"success"}
    assert len(ends) == 2
    assert ends[True].id != ends[False].id
    assert ends[True].request.id == ends[False].request.id
    assert ends[False].attributes["output"] == "parent\n"


@pytest.mark.parametrize("buffered", [True, False])
def test_a_command_that_prints_much_prints_it_all_and_its_end_is_on_record(
    project: Project, buffered: bool
) -> None:
    project.command(
        "sweep",
        """
        for number in range(200_000):
            print("line", number)
        self.stdout.write("last")
        """,
    )
    environment = {} if buffered else {"PYTHONUNBUFFERED": "1"}
    out, _ = project.run("sweep", environment=environment)
    lines = out.splitlines()
    assert len(lines) == 200_001
    assert lines[:2] == ["line 0", "line 1"]
    assert lines[-2:] == ["line 199999", "last"]
    (end,) = project.records("command.run")
    kept = end.attributes["output"].splitlines()
    assert kept[1:][-500:] == lines[-500:]
    assert end.attributes["output.size"] == len(out)


def test_hostile_output_does_no_harm(project: Project) -> None:
    project.command(
        "sweep",
        r"""
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        print("\x1b[2J\x1b]0;owned\x07\x9b31mred\x1b[0m", "half \udcff", "\x00\x08\x7f")
        sys.stdout.write("pass")
        sys.stdout.write("word=hunter2")
        sys.stdout.write("hunter2\n")
        sys.stdout.buffer.write(b"\xff\xfe bytes\n")
        print("between")
        print("tail")
        """,
    )
    process = project.start("sweep")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"half \xff" in out
    (end,) = project.records("command.run")
    shown = end.attributes["output"]
    assert not set(shown) & {chr(code) for code in [*range(9), *range(11, 32), *range(127, 160)]}
    assert "hunter2" not in shown
    assert "red" in shown
    assert shown.endswith("tail\n")


def test_what_a_subprocess_prints_is_not_seen_and_arrives(project: Project) -> None:
    project.command("sweep", 'print("ours", flush=True); os.system("echo theirs")')
    assert project.run("sweep")[0] == "ours\ntheirs\n"
    (end,) = project.records("command.run")
    assert end.attributes["output"] == "ours\n"


def test_an_open_command_keeps_no_segments_back(project: Project) -> None:
    config = project.directory / "otel-audit.toml"
    config.write_text(config.read_text().replace("[spool]", "[spool]\nsegment_bytes = 8192"))
    project.command(
        "sweep",
        """
        import otel_audit
        for round in range(4):
            for number in range(60):
                otel_audit.record("ops.note", "NOTE", attributes={"text": "x" * 500})
            time.sleep(0.5)
        sys.stdin.readline()
        """,
    )
    process = project.start("sweep", stdin=subprocess.PIPE)
    project.wait_for("ops.note", 240)
    from tests.pipeline.spooling import wait_until

    def first_open() -> int:
        from otel_audit.pipeline.spool import directory as layout
        from otel_audit.pipeline.spool.cursor import Position
        from otel_audit.pipeline.spool.reader import StreamReader

        (incarnation,) = layout.list_incarnations(project.directory / "spool")
        reader = StreamReader(incarnation, Position(), lambda: (sys.maxsize, 0))
        last = 0
        for item in reader.items():
            last = item.after.low_segment
        reader.close()
        return last

    wait_until(lambda: first_open() > 5, "the intent was written again")
    process.kill()
    process.communicate()
    (end,) = project.records("command.run")
    assert end.outcome == "unknown"


def test_without_the_section_there_are_no_records_and_the_command_acts(tmp_path: Path) -> None:
    project = Project(tmp_path, enabled=False)
    project.command("sweep", 'import otel_audit; otel_audit.record("ops.note", "NOTE")')
    project.run("sweep")
    assert [record.event_name for record in project.records() if "stream" not in record.event_name] == [
        "ops.note"
    ]
    assert project.records("ops.note")[0].actor.id == "manage.py sweep"


def test_a_plain_script_needs_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "nightly.py").write_text(
        "import os, sys\n"
        "import otel_audit\n"
        'otel_audit.setup(config_file="otel-audit.toml")\n'
        '@otel_audit.job("berths.nightly")\n'
        "def nightly():\n"
        '    otel_audit.record("ops.note", "NOTE")\n'
        "    print('done')\n"
        "    if len(sys.argv) > 1:\n"
        "        os.kill(os.getpid(), 9)\n"
        "nightly()\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    for more, status in (([], 0), (["die"], -9)):
        done = subprocess.run(
            [sys.executable, "nightly.py", *more],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
    runs = project.records("job.run")
    assert sorted(run.outcome for run in runs) == ["success", "unknown"]
    assert {run.actor for run in runs} == {Actor("berths.nightly", "system")}
    assert {run.request.view for run in runs} == {"__main__.nightly"}
    assert {run.request.id for run in runs} == {note.request.id for note in project.records("ops.note")}
