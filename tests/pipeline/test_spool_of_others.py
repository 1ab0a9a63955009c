"""What lies in a spool and cannot be used costs itself only: others write and send on, and it is named."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit.errors import SpoolError
from otel_audit.pipeline import provider
from otel_audit.pipeline.delivery.drain import drain
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.status import read_status
from tests.pipeline.otlp_sink import Reply, Sink
from tests.pipeline.spooling import audit_config, make_record, run_script, target_ids

NOBODY = 65534
FOREIGN = "01a221d1-2d66-7b32-9201-a657cc958510"
EARLIER = "01a221d1-2d66-7b32-9201-a657cc958511"

Spoil = Callable[[Path], None]


@pytest.fixture
def spool_directory() -> Iterator[Path]:
    """A place any user may enter; pytest's own directories are for one user."""
    with tempfile.TemporaryDirectory(prefix="otel-audit-") as parent:
        Path(parent).chmod(0o755)
        yield Path(parent) / "spool"


def leave_stream(spool: Path, name: str, *numbers: int, segment_bytes: int = 1 << 20) -> Path:
    """Leave what a process that died has written, under a given name."""
    pipeline = AuditPipeline(audit_config(spool, spool_segment_bytes=segment_bytes), ship=False)
    for number in numbers:
        pipeline.logger.emit(make_record(pipeline, number))
    lock = pipeline.spool.lock
    assert lock is not None
    lock.release()
    return lock.path.rename(spool / name)


def in_place_of(path: Path, *, link_to: str = "", directory: bool = False) -> None:
    """Put a link, a directory or a file where ``path`` is."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if link_to:
        path.symlink_to(link_to)
    elif directory:
        path.mkdir()
    else:
        path.write_text("")


def ours(path: Path) -> None:
    """Make a file root's alone."""
    os.chown(path, 0, 0)
    path.chmod(0o700 if path.is_dir() else 0o600)


UNUSABLE: dict[str, Spoil] = {
    "a stream of root": lambda spool: ours(spool / FOREIGN),
    "a lock of root": lambda spool: ours(spool / FOREIGN / "lock"),
    "a segment of root": lambda spool: ours(spool / FOREIGN / "00000001.seg"),
    "a cursor of root": lambda spool: ours(spool / FOREIGN / "cursor"),
    "a lock that is a directory": lambda spool: in_place_of(spool / FOREIGN / "lock", directory=True),
    "a lock that leads nowhere": lambda spool: in_place_of(spool / FOREIGN / "lock", link_to="/nowhere"),
    "a cursor that is a directory": lambda spool: in_place_of(spool / FOREIGN / "cursor", directory=True),
    "a stream that is a file": lambda spool: in_place_of(spool / FOREIGN),
    "a stream that leads nowhere": lambda spool: in_place_of(spool / FOREIGN, link_to="/nowhere"),
    "a stream that leads elsewhere": lambda spool: in_place_of(spool / FOREIGN, link_to="/proc/1"),
}

KEPT_ASIDE: dict[str, Spoil] = {
    "tips of root": lambda spool: ours(spool / "tips"),
    "tips that are a file": lambda spool: in_place_of(spool / "tips"),
    "quarantine of root": lambda spool: ours(spool / "quarantine"),
    "quarantine that is a file": lambda spool: in_place_of(spool / "quarantine"),
    "quarantine that leads nowhere": lambda spool: in_place_of(spool / "quarantine", link_to="/nowhere"),
    "damaged of root": lambda spool: ours(spool / "damaged"),
    "damaged that is a file": lambda spool: in_place_of(spool / "damaged"),
}


def run_as_nobody(spool: Path, sink: Sink) -> dict[str, Any]:
    """Record one change, ship, look and drain as a user who is not root."""
    out = run_script(
        """
        import json, logging
        import otel_audit.pipeline.delivery.rounds, encodings.idna, gzip, pwd
        from otel_audit.pipeline.delivery.drain import drain
        from otel_audit.pipeline.spool.status import read_status
        lines = []
        class Lines(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())
        logging.getLogger("otel_audit").addHandler(Lines())
        spool, endpoint = Path(sys.argv[1]), sys.argv[2]
        config = audit_config(spool, endpoint, on_error="fail_closed")
        pipeline = provider.AuditPipeline(config)
        make_record(pipeline)
        provider.process_identity.get_ready()  # nobody may import from root's Python later
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        pipeline.prepare()
        pipeline.logger.emit(make_record(pipeline, 100))
        pipeline.logger.emit(make_record(pipeline, 101))
        flushed = pipeline.flush(20)
        deadline = time.monotonic() + 20
        while EARLIER in os.listdir(spool) and time.monotonic() < deadline:
            time.sleep(0.02)
        count = pipeline.health.unreadable
        pipeline.shutdown(5)
        status = read_status(spool)
        drained = drain(spool, config, timeout=5)
        print(json.dumps({
            "flushed": flushed,
            "count": count,
            "lines": [line for line in lines if "is skipped" in line],
            "status": status.unreadable,
            "error": status.error,
            "drained": drained.error,
            "left": drained.left.unreadable,
        }))
        """.replace("EARLIER", repr(EARLIER)),
        spool,
        sink.url,
    )
    found: dict[str, Any] = json.loads(out)
    return found


def give_to_nobody(spool: Path) -> None:
    """Make all of it another user's, as the application's is where root looks in."""
    for path in (spool, *spool.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_stream_that_cannot_be_used_costs_nobody_else(spool_directory: Path, sink: Sink, kind: str) -> None:
    """The application writes and sends, what others left is sent, and it is named once, with a remedy."""
    assert os.geteuid() == 0, "only root can leave something of its own to another user: run this as root"
    leave_stream(spool_directory, FOREIGN, 0)
    leave_stream(spool_directory, EARLIER, 1, 2)
    give_to_nobody(spool_directory)
    UNUSABLE[kind](spool_directory)

    found = run_as_nobody(spool_directory, sink)
    assert found["flushed"]
    assert sorted(target_ids(sink.records)) == ["1", "100", "101", "2"]
    assert (found["error"], found["drained"]) == ("", "")
    if kind == "a stream that leads elsewhere" or "leads nowhere" in kind or "is a" in kind:
        remedies = ["check the file and its file system"]
    else:
        remedies = ["belongs to root", "chown -R nobody"]
    lines = [line for line in found["lines"] if FOREIGN in line]
    assert len(lines) == 2, "once by the application, once by the drain"
    assert found["count"] == 1
    for text in (lines[0], *found["status"], *found["left"]):
        assert FOREIGN in text
        assert all(remedy in text for remedy in remedies), text
    assert len(found["status"]) == len(found["left"]) == 1


@pytest.mark.parametrize("kind", KEPT_ASIDE)
def test_a_place_for_what_is_kept_aside_may_be_somebody_else_s(
    spool_directory: Path, sink: Sink, kind: str
) -> None:
    """Damaged segments and refused records find another place, beside it; tips are only a proof."""
    assert os.geteuid() == 0, "only root can leave something of its own to another user: run this as root"
    damaged = leave_stream(spool_directory, EARLIER, 1, 2)
    [segment] = layout.list_segments(damaged)
    content = bytearray(segment.path.read_bytes())
    content[-40] ^= 1
    segment.path.write_bytes(content)
    for name in ("tips", "quarantine", "damaged"):
        (spool_directory / name).mkdir()
    give_to_nobody(spool_directory)
    KEPT_ASIDE[kind](spool_directory)

    def refuse(records: list[Any]) -> Reply:
        targets = {
            pair.value.string_value
            for record in records
            for pair in record.attributes
            if pair.key == "audit.target.id"
        }
        return Reply(400 if "100" in targets else 200)

    sink.respond = refuse
    found = run_as_nobody(spool_directory, sink)
    assert sorted(target_ids(sink.records)) == ["1", "101"]
    assert EARLIER not in os.listdir(spool_directory)
    kept, _ = layout.list_kept(spool_directory, layout.QUARANTINE)
    assert [json.loads(path.read_text())["record"]["target"]["id"] for path in kept] == ["100"]
    kept, _ = layout.list_kept(spool_directory, layout.DAMAGED)
    assert [path.read_bytes() for path in kept] == [bytes(content)]
    assert found["error"] == ""


def test_more_unusable_streams_than_are_shipped_at_once_hold_nobody_up(
    spool_directory: Path, sink: Sink
) -> None:
    """They do not take the places of streams that can be shipped."""
    for number in range(8):
        broken = leave_stream(spool_directory, f"{FOREIGN[:-1]}{number}", 0)
        in_place_of(broken / "cursor", directory=True)
    leave_stream(spool_directory, EARLIER[:-2] + "ff", 1)
    result = drain(spool_directory, audit_config(spool_directory, sink.url), timeout=5)
    assert result.complete
    assert target_ids(sink.records) == ["1"]
    assert len(result.left.unreadable) == 8


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("call", ["scandir", "open", "pread"])
def test_a_disk_that_fails_for_one_stream_fails_for_that_one(
    spool_directory: Path,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    code: int,
) -> None:
    """Whichever call it is that fails: the stream waits whole, and is sent once the disk answers again."""
    leave_stream(spool_directory, FOREIGN, *range(40), segment_bytes=4096)
    leave_stream(spool_directory, EARLIER, 50, 51)
    real = getattr(os, call)
    third = spool_directory / FOREIGN / "00000003.seg"
    failing = True

    def fail(target: Any, *arguments: Any, **options: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        bad = str(third.parent) if call == "scandir" else str(third)
        if failing and path == bad:
            raise OSError(code, os.strerror(code))
        return real(target, *arguments, **options)

    monkeypatch.setattr(os, call, fail)
    config = audit_config(spool_directory, sink.url)
    with caplog.at_level(logging.ERROR, logger="otel_audit"):
        result = drain(spool_directory, config, timeout=5)
    assert {"50", "51"} <= set(target_ids(sink.records))
    assert result.complete
    assert len([line for line in caplog.records if FOREIGN in line.getMessage()]) == 1
    assert [stream.incarnation for stream in result.left.streams] == [FOREIGN]
    if call == "scandir":
        assert os.strerror(code) in result.left.unreadable[0]
    else:
        assert {str(number) for number in range(3)} <= set(target_ids(sink.records)), (
            "what can be read is sent"
        )

    failing = False
    assert drain(spool_directory, config, timeout=5).complete
    assert sorted(map(int, target_ids(sink.records))) == [*range(40), 50, 51]
    assert "audit.spool.damaged" not in sink.events


def test_a_segment_that_is_no_file_is_reported_in_the_trail(spool_directory: Path, sink: Sink) -> None:
    """A link or a directory where a segment stood: what was there is lost and said so, the rest is sent."""
    stream = leave_stream(spool_directory, FOREIGN, *range(80), segment_bytes=4096)
    in_place_of(stream / "00000002.seg", link_to="/nowhere")
    in_place_of(stream / "00000004.seg", directory=True)
    assert drain(spool_directory, audit_config(spool_directory, sink.url), timeout=5).complete
    damage = [record.message for record in sink.records if record.event_name == "audit.spool.damaged"]
    assert len(damage) == 2
    assert "0" in target_ids(sink.records)
    assert "79" in target_ids(sink.records)
    assert read_status(spool_directory).waiting == 0


def test_a_file_system_without_locks_is_found_at_the_start(
    spool_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither flock nor locks of an open file: fail_closed refuses, fail_open says it once."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    with pytest.raises(SpoolError, match=r"without file locks.*set spool\.directory"):
        provider.start(audit_config(spool_directory, on_error="fail_closed"))
    provider.start(audit_config(spool_directory), ship=False)
    provider.stop()
    assert len([line for line in caplog.records if "without file locks" in line.getMessage()]) == 1
    assert os.listdir(spool_directory) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_flock_may_have_other_locks(
    spool_directory: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """They say as well whether a process is alive: its stream is not adopted before it ends."""

    def no_flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    config = audit_config(spool_directory, sink.url, on_error="fail_closed")
    pipeline = AuditPipeline(config, ship=False)
    pipeline.prepare()
    pipeline.logger.emit(make_record(pipeline, 1))
    assert [stream.alive for stream in read_status(spool_directory).streams] == [True]
    assert drain(spool_directory, config, timeout=5).complete
    assert sink.records == []
    pipeline.shutdown(0)
    assert drain(spool_directory, config, timeout=5).complete
    assert target_ids(sink.records) == ["1"]
