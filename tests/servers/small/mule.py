"""A mule of uWSGI: creates a group and waits."""

from __future__ import annotations

import time

import django

django.setup()

from tests.servers.small.urls import make_group  # noqa: E402

make_group()
while True:
    time.sleep(1)
