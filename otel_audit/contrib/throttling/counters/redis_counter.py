"""Counts in Redis: all windows of a decision in one script, and so in one round trip.

The time is Redis's own, the same for all hosts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_audit.contrib.throttling.counters.windows import Change, Refusal, Window

_SCRIPT: Final = """
local change, now = tonumber(ARGV[1]), tonumber(ARGV[2])
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
local position, longest, counts = -1, 0, {}
for i, key in ipairs(KEYS) do
  local limit, seconds = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
  local number = math.floor(now / seconds)
  local found = redis.call('HMGET', key, 'n', 'c', 'p')
  local begun, current, previous = tonumber(found[1]), tonumber(found[2] or 0), tonumber(found[3] or 0)
  if begun ~= number then
    if begun == number - 1 then previous = current else previous = 0 end
    current = 0
  end
  if change < 0 then
    if current > 0 then current = current - 1 elseif previous > 0 then previous = previous - 1 end
  else
    local elapsed, free, wait = now - number * seconds, limit - 1 - current, 0
    if free < 0 then
      wait = seconds - elapsed + (1 - (limit - 1) / current) * seconds
    elseif previous > 0 then
      wait = (1 - free / previous) * seconds - elapsed
    end
    if wait > longest then position, longest = i - 1, wait end
    if change > 0 then current = current + 1 end
  end
  counts[i] = {number, current, previous, seconds}
end
if change ~= 0 and position < 0 then
  for i, key in ipairs(KEYS) do
    local count = counts[i]
    redis.call('HSET', key, 'n', count[1], 'c', count[2], 'p', count[3])
    redis.call('EXPIRE', key, 2 * count[4])
  end
end
return {position, tostring(longest)}
"""
_HASH: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()  # what Redis calls it by


class RedisCounter:
    """Counts in Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout: seconds that connecting and each answer may take.
        prefix: what keys begin with; a function of each, where Django's cache makes them.
        options: more options of redis-py's connections, which win.
        clock: seconds since the epoch; default Redis's own.
    """

    instant = False
    shared = True

    def __init__(
        self,
        url: str,
        timeout: float,
        *,
        prefix: Callable[[str], str] = "otel-audit:throttling:{}".format,
        options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._clock = clock
        limits = {"socket_timeout": timeout or None, "socket_connect_timeout": timeout or None}
        self._options: dict[str, Any] = {**limits, **(options or {})}
        self._client: Any = None
        self._async_clients: dict[Any, Any] = {}

    def step(self, windows: list[Window], change: Change) -> Refusal | None:
        """Change the count of each window by one, and say if that is refused."""
        from redis import Redis
        from redis.exceptions import NoScriptError

        if self._client is None:
            self._client = Redis.from_url(self._url, retry=_once(), **self._options)
        arguments = self._arguments(windows, change)
        try:
            answer = self._client.evalsha(_HASH, len(windows), *arguments)
        except NoScriptError:  # Redis has been started anew
            answer = self._client.eval(_SCRIPT, len(windows), *arguments)
        return _refusal(answer)

    async def step_async(self, windows: list[Window], change: Change) -> Refusal | None:
        """Do the same on a connection of the running event loop."""
        from redis.exceptions import NoScriptError

        client = self._async_client()
        arguments = self._arguments(windows, change)
        try:
            answer = await client.evalsha(_HASH, len(windows), *arguments)
        except NoScriptError:
            answer = await client.eval(_SCRIPT, len(windows), *arguments)
        return _refusal(answer)

    def _async_client(self) -> Any:
        import asyncio

        from redis.asyncio import Redis

        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            for other in [each for each in self._async_clients if each.is_closed()]:
                del self._async_clients[other]
            client = Redis.from_url(self._url, retry=_once(asynchronous=True), **self._options)
            self._async_clients[loop] = client
        return client

    def _arguments(self, windows: list[Window], change: Change) -> list[Any]:
        arguments: list[Any] = [self._prefix(window.key) for window in windows]
        arguments += [change, -1 if self._clock is None else repr(self._clock())]
        for window in windows:
            arguments += [window.limit, window.seconds]
        return arguments


def _once(*, asynchronous: bool = False) -> Any:
    """Try again once where a connection was found closed, as after a pause; never where time ran out."""
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Closed
    from redis.retry import Retry

    kind = AsyncRetry if asynchronous else Retry
    return kind(NoBackoff(), 1, supported_errors=(Closed,))


def _refusal(answer: Any) -> Refusal | None:
    position, wait = answer
    return None if position < 0 else Refusal(int(position), float(wait))
