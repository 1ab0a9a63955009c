"""The smallest site with views that read, stream, wait and fail."""

from __future__ import annotations

from tests.servers.small.settings import *  # noqa: F403

ROOT_URLCONF = "tests.servers.small.recorded_urls"
DATA_UPLOAD_MAX_MEMORY_SIZE = None
