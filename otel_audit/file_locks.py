"""Locks of files: the one place that looks for them, because Windows has none."""

from __future__ import annotations

from typing import Any

fcntl: Any
"""The module of that name, ``None`` on Windows."""
try:
    import fcntl
except ImportError:
    fcntl = None
