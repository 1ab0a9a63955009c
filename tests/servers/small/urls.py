"""``/`` creates a group, ``/linger/`` is slow to answer, and ``/spool/`` has uWSGI's spooler create one."""

from __future__ import annotations

import os
import secrets
import time

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path


def make_group() -> str:
    """Create a group; return its name."""
    from django.contrib.auth.models import Group

    # Letters: a part of some UUIDs passes for the number of a card, and is redacted.
    name = f"{os.getpid()}-{''.join(secrets.choice('ghjkmnpqrstvwxyz') for _ in range(20))}"
    Group.objects.create(name=name)
    connection.close()
    return name


def make(request: HttpRequest) -> HttpResponse:
    """Create a group in this process."""
    return HttpResponse(make_group())


def linger(request: HttpRequest) -> HttpResponse:
    """Create a group, and answer much later."""
    name = make_group()
    time.sleep(60)
    return HttpResponse(name)


def spool(request: HttpRequest) -> HttpResponse:
    """Have uWSGI's spooler create a group."""
    import uwsgi

    uwsgi.spool({b"what": b"group"})
    return HttpResponse("spooled")


urlpatterns = [path("", make), path("linger/", linger), path("spool/", spool)]
