"""The command ``otel-audit``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; say how to get it where its packages are missing."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.stderr.write(f"otel-audit: the command line needs {error.name}: pip install 'otel-audit[cli]'\n")
        sys.exit(2)
    from otel_audit.cli.app import run

    run()
