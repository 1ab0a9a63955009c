"""Count the instructions of parts of a process that runs under valgrind.

:func:`count` starts the process with the library that :func:`build` makes; :class:`Counter` counts in it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_LIBRARY: Final = "BENCH_COUNTER"
_NAME: Final = re.compile(r"^desc: Trigger: Client Request: (.*)$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)


def missing() -> str:
    """Return what this machine lacks to count, empty if nothing."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed; scripts/packages installs it"
    if shutil.which("gcc") is None:
        return "gcc is not installed; scripts/packages installs it"
    return ""


def build(directory: Path) -> Path:
    """Compile the library in ``directory``; it needs the header that comes with valgrind."""
    library = directory / "counter.so"
    source = Path(__file__).with_name("counter.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def count(
    library: Path, directory: Path, arguments: list[str], env: Mapping[str, str]
) -> dict[str, list[int]]:
    """Run Python with ``arguments`` under valgrind; return the counts of its parts, by name."""
    command = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"]
    command.append(f"--callgrind-out-file={directory}/counts")
    # Else sets and dictionaries of texts have another order, and other collisions, in each process.
    fixed = {"PYTHONHASHSEED": "0", _LIBRARY: str(library)}
    subprocess.run([*command, sys.executable, *arguments], check=True, env={**env, **fixed})
    counts: dict[str, list[int]] = {}
    dumps = [path for path in directory.glob("counts.*") if path.suffix[1:].isdigit()]
    for path in sorted(dumps, key=lambda path: int(path.suffix[1:])):
        text = path.read_text("utf-8", "replace")
        path.unlink()
        name, total = _NAME.search(text), _TOTAL.search(text)
        if name is not None and total is not None:
            counts.setdefault(name[1], []).append(int(total[1]))
    return counts


class Counter:
    """Counts calls in this process; without valgrind it calls only."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[_LIBRARY])

    def __call__(self, name: str, call: Callable[[], object]) -> None:
        """Call, and count what it took under ``name``."""
        # A full collection in the middle would be counted, and would be many times what is measured.
        gc.collect()
        gc.freeze()
        self._library.counter_start()
        call()
        self._library.counter_stop(name.encode())
