"""`manage.py check` tells whether what counts can count; and a server of several workers is noticed."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.test import Client, override_settings

from otel_audit.contrib.throttling.django.checks import register, unregister
from tests.contrib.throttling.conftest import Throttled

BACKENDS = "django.core.cache.backends."


def found(**options: Any) -> list[Any]:
    return [each for each in checks.run_checks(tags=["otel_audit"]) if str(each.id)[-3:].startswith("03")]


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("locmem.LocMemCache", ["otel_audit.W030"]),
        ("dummy.DummyCache", ["otel_audit.E032"]),
        ("db.DatabaseCache", ["otel_audit.W033"]),
        ("filebased.FileBasedCache", ["otel_audit.W033"]),
        ("redis.RedisCache", []),
        ("memcached.PyMemcacheCache", []),
    ],
)
def test_what_is_told_of_each_of_djangos_caches(
    throttled: Throttled, backend: str, expected: list[str]
) -> None:
    with throttled(), override_settings(CACHES={"default": {"BACKEND": BACKENDS + backend, "LOCATION": "x"}}):
        assert [each.id for each in found()] == expected


def test_how_many_workers_there_are_where_it_was_said(
    throttled: Throttled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with throttled():
        monkeypatch.setenv("WEB_CONCURRENCY", "4")
        [warning] = found()
        assert "limits are 4 times as high" in warning.msg
        monkeypatch.setenv("WEB_CONCURRENCY", "1")
        assert found() == []
        monkeypatch.delenv("WEB_CONCURRENCY")
        with override_settings(DEBUG=True):
            assert found() == []


def test_a_cache_that_is_not_there(throttled: Throttled) -> None:
    from otel_audit.config.model import AuditConfig, ThrottlingConfig

    register(AuditConfig(throttling=ThrottlingConfig(enabled=True, cache="nowhere")))
    try:
        [error] = found()
    finally:
        unregister()
    assert error.id == "otel_audit.E031"
    assert "CACHES has default" in error.msg


def test_what_is_not_installed(throttled: Throttled, monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_audit.contrib.throttling.django import checks as ours

    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    redis = {"default": {"BACKEND": BACKENDS + "redis.RedisCache", "LOCATION": "redis://x"}}
    with throttled():
        assert [each.id for each in found()] == ["otel_audit.E034", "otel_audit.W030"]
        with override_settings(CACHES=redis):
            [error] = found()
            assert "with the package redis, which is not installed" in error.msg


def test_memory_by_name_is_warned_of_and_redis_is_not(throttled: Throttled) -> None:
    with throttled(storage="memory"):
        assert [each.id for each in found()] == ["otel_audit.W030"]
    with throttled(storage="redis://localhost"):
        assert found() == []
    assert found() == []


def test_a_server_of_several_processes_is_told_once(
    throttled: Throttled, caplog: pytest.LogCaptureFixture
) -> None:
    """The server itself says so, with each request; Django's test client says there are several."""
    with throttled():
        for _ in range(3):
            Client().get("/")
    assert caplog.text.count("each process counts requests by itself") == 1
    caplog.clear()
    with throttled():
        Client().get("/", **{"wsgi.multiprocess": False})  # type: ignore[arg-type]
    assert "each process" not in caplog.text
