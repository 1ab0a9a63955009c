"""Who looked is on record: where the store does not do it itself, the command line does.

`otel-audit serve` records every question. A ClickHouse server does not: there each command that reads the
trail sends a record through the configured sink. It is in the spool before the store is asked, and says how
it ended.
"""

from __future__ import annotations

import getpass
import shlex
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from otel_audit.config.loader import LoadedConfig
from otel_audit.config.model import StoreConfig
from otel_audit.errors import AuditError
from otel_audit.store.schema import ACCESS_LOG

_SECRETS: Final = ("--password", "--token")
_SERVE: Final = "otel-audit"
_PING_SECONDS: Final = 5.0


@contextmanager
def on_record(loaded: LoadedConfig, store: StoreConfig, rows: Callable[[], int]) -> Iterator[None]:
    """Record that the trail is read, unless the store does so itself or no sink is configured.

    Args:
        loaded: the configuration, with the sink.
        store: the store that is asked.
        rows: tells how many rows it has given.

    Raises:
        AuditError: the record cannot be kept and ``on_error`` is ``fail_closed``.
    """
    if not has_sink(loaded) or _records_itself(store):
        yield
        return
    from otel_audit.audit_record import Actor, Target
    from otel_audit.pipeline.provider import AuditPipeline

    pipeline = AuditPipeline(loaded.config)
    pipeline.prepare()
    try:
        record = pipeline.logger.record(
            "audit.store.query",
            "QUERY",
            outcome="unknown",
            log=ACCESS_LOG,
            actor=Actor(getpass.getuser(), "user"),
            target=Target("audit.store", store.database),
            message=shlex.join(["otel-audit", *_shown(sys.argv[1:])])[:4096],
        )
        handle = pipeline.logger.intend([record])
        failed = False
        try:
            yield
        except AuditError:  # nothing found, or an interrupted tail, is an answer
            failed = True
            raise
        finally:
            ended = msgspec.structs.replace(record, attributes={**record.attributes, "rows": rows()})
            pipeline.logger.settle(handle, "failure" if failed else "success", [ended])
    finally:
        pipeline.shutdown()


def has_sink(loaded: LoadedConfig) -> bool:
    """Say whether somebody said where records go: the default is no place to send them to unasked."""
    return any(name.startswith(("sink.", "spool.")) for name in loaded.origins)


def _records_itself(store: StoreConfig) -> bool:
    """Say whether the store is `otel-audit serve`; one that cannot be reached has nothing to record."""
    parts = urllib.parse.urlsplit(store.url)
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/ping"
    try:
        # The configuration has taken nothing but http and https for an address.
        with urllib.request.urlopen(address, timeout=_PING_SECONDS) as answer:  # noqa: S310
            return bool(answer.headers.get("X-ClickHouse-Server-Display-Name") == _SERVE)
    except urllib.error.HTTPError:
        return False
    except (OSError, ValueError):
        return True


def _shown(arguments: Sequence[str]) -> Iterator[str]:
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hide:
            yield "[redacted]"
            hide = False
        elif name in _SECRETS:
            yield f"{name}=[redacted]" if equals else name
            hide = not equals
        else:
            yield argument
