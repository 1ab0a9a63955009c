"""Which counter the configuration names."""

from __future__ import annotations

from typing import Any, Final

from otel_audit.config.model import AuditConfig
from otel_audit.contrib.throttling.counters.memory import MemoryCounter
from otel_audit.contrib.throttling.counters.windows import Counter

_OWN: Final = frozenset({"parser_class", "pool_class", "serializer"})
"""Options of Django's Redis cache that are not those of a connection."""


def counter_of(config: AuditConfig) -> Counter:
    """Make what ``throttling.storage`` names, in this process by default."""
    storage = config.throttling.storage
    if storage in ("", "memory"):
        return MemoryCounter()
    from otel_audit.contrib.throttling.counters.redis_counter import RedisCounter

    return RedisCounter(storage, config.throttling.timeout)


def counter_of_django(config: AuditConfig) -> Counter:
    """Make what ``throttling.storage`` names; by default what counts in the cache of ``throttling.cache``.

    Raises:
        InvalidCacheBackendError: there is no such cache.
    """
    section = config.throttling
    if section.storage:
        return counter_of(config)
    from django.core.cache import caches
    from django.core.cache.backends.locmem import LocMemCache
    from django.core.cache.backends.redis import RedisCache
    from django.utils.connection import ConnectionProxy

    cache = caches[section.cache]
    if isinstance(cache, RedisCache):
        made: Any = cache
        from otel_audit.contrib.throttling.counters.redis_counter import RedisCounter

        options = {name: value for name, value in made._options.items() if name not in _OWN}
        return RedisCounter(made._servers[0], section.timeout, prefix=cache.make_key, options=options)
    from otel_audit.contrib.throttling.counters.cache import CacheCounter

    if isinstance(cache, LocMemCache):  # one for all threads: they have its content in common
        return CacheCounter(cache, instant=True, shared=False)
    return CacheCounter(ConnectionProxy(caches, section.cache), instant=False, shared=True)
