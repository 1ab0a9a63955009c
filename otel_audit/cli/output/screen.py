"""Where a command writes: tables for people, one object a line for programs, remarks beside both."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_audit.cli.output.safe import safe_json, safe_lines
from otel_audit.errors import QueryError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_ASCII: Final = str.maketrans("→×…●", ">x~*")
"""Our own signs for an output that shows ASCII only, one for one, so that columns stay aligned."""


class Screen:
    """Standard output and error of one command.

    Args:
        utc: show times in UTC, not in the machine's zone.
        json: write one JSON object per line; remarks still go to standard error.
        csv: write comma-separated values; likewise.
        verbose: leave nothing out of a list.

    ``config_file`` is the one that the command was given.
    """

    def __init__(
        self, *, utc: bool = False, json: bool = False, csv: bool = False, verbose: bool = False
    ) -> None:
        if json and csv:
            raise QueryError("--json and --csv cannot be used together")
        self.zone: datetime.tzinfo | None = datetime.UTC if utc else None
        self.json = json
        self.csv = csv
        self.verbose = verbose
        self.config_file: Path | None = None
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Standard output; loaded when first needed, because a line of JSON does not need it."""
        if self._console is None:
            from rich.console import Console

            # Values are data: no markup, no emoji codes, no colouring of what looks like a number.
            self._console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
            if not self._console.is_terminal and "COLUMNS" not in os.environ:
                self._console.width = 200  # a pipe has no width; a line is for grep, not for the eye
        return self._console

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads it."""
        return self.console.is_terminal

    @property
    def ascii_only(self) -> bool:
        """Whether the output can show ASCII only."""
        return self.console.options.ascii_only

    def print(self, renderable: RenderableType) -> None:
        """Write something for people; lines end where their text ends."""
        with self.console.capture() as captured:
            self.console.print(renderable)
        text = captured.get()
        if not self.is_terminal:
            text = "\n".join(map(str.rstrip, text.split("\n")))
        sys.stdout.write(text.translate(_ASCII) if self.ascii_only else text)

    def line(self, text: str = "") -> None:
        """Write one line of text as it is; what comes from records must be made safe before."""
        sys.stdout.write(text + "\n")

    def object(self, value: Any) -> None:
        """Write one JSON object on one line."""
        sys.stdout.write(safe_json(value) + "\n")
        sys.stdout.flush()

    def remark(self, text: str) -> None:
        """Write beside the result, to standard error."""
        sys.stdout.flush()
        sys.stderr.write(safe_lines(text) + "\n")
        sys.stderr.flush()
