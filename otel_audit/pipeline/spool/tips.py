"""Where finished streams ended: kept in the spool until the next stream's start record has named it.

A stream that vanishes as a whole leaves no other trace, so each start record says which stream came before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from otel_audit.pipeline.spool import directory as layout

Tip: TypeAlias = "tuple[str, int, str]"
"""Stream id, last number, last record id."""

_log = logging.getLogger(__name__)


class Tips(msgspec.Struct, frozen=True):
    """The tips of one incarnation's streams by log, and the service they belong to."""

    service: str
    streams: dict[str, Tip]


def leave(directory: Path, incarnation: str, service: str, streams: Mapping[str, Tip]) -> None:
    """Keep the tips of a finished incarnation. A failure is logged: it weakens the proof, loses no record."""
    if not streams:
        return
    place = directory / layout.TIPS
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        temporary = place / f".{incarnation}-{os.getpid()}"
        temporary.write_bytes(msgspec.json.encode(Tips(service, dict(streams))))
        temporary.replace(place / f"{incarnation}.json")
    except OSError as error:
        _log.warning("tip of audit stream %s cannot be written: %s", incarnation, error)


def find(directory: Path, service: str) -> tuple[dict[str, Tip], list[Path]]:
    """Find the newest tip of each log of ``service``, and the files to :func:`forget` once they are named."""
    streams: dict[str, Tip] = {}
    files: list[Path] = []
    try:
        candidates = sorted((directory / layout.TIPS).glob("*.json"), reverse=True)
    except OSError:
        return {}, []
    for path in candidates:
        try:
            tips = msgspec.json.decode(path.read_bytes(), type=Tips)
        except (OSError, msgspec.MsgspecError):
            continue
        if tips.service == service and not tips.streams.keys() & streams.keys():
            streams.update(tips.streams)
            files.append(path)
    return streams, files


def forget(files: list[Path]) -> None:
    """Remove tips a start record names by now."""
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("tip %s cannot be removed: %s", path.name, error)
