"""What a process has cost so far, from Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """Resident memory in bytes: all of it, and without the pages of files that are mapped."""

    resident: int
    anonymous: int


def cpu_seconds(pid: int) -> float:
    """Return the seconds of CPU, user's and system's, a process has used with all its threads."""
    # After the name, which stands in parentheses and may have any character in it: field 3 and what follows.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> Memory:
    """Return the memory a process has now."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    resident, anonymous = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
    return Memory(resident, anonymous)
