"""Values that are of the right type each, but make no sense: alone, or together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from otel_audit.config.model import AuditConfig, CaptureSection, capture_sections
from otel_audit.config.sections.redaction import PLACES

_FUNCTION: Final = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*"
_NO_KEY: Final = "hmac needs a key: set redaction.hmac_key (OTEL_AUDIT_REDACTION_HMAC_KEY)"


def contradictions(config: AuditConfig, given: set[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return the key and the message of everything wrong; ``given`` are the keys somebody wrote."""
    yield from _redaction(config)
    yield from _context(config)
    yield from _requests(config)
    if config.policy:
        from otel_audit.config.policy_checks import policy_problems

        yield from policy_problems(config.policy)
    yield from _hosts(config.outgoing.ignore_hosts, ("outgoing", "ignore_hosts"))
    functions: list[tuple[tuple[str, ...], str, str]] = [
        (("tenant_from",), config.tenant_from, "shop.tenants:current_tenant"),
        (("context", "actor_from"), config.context.actor_from, "shop.accounts:current_user"),
    ]
    for place, function, example in functions:
        if function and not re.fullmatch(_FUNCTION, function):
            yield (
                place,
                (f"{function!r} names no function: write package.module:function, such as {example!r}"),
            )
    key = config.redaction.hmac_key
    for address, section in ((config.sink.endpoint, "sink"), (config.store.url, "store")):
        name = "endpoint" if section == "sink" else "url"
        yield from (((section, name), problem) for problem in address_problems(address))
    if config.spool.segment_bytes > config.spool.max_bytes:
        place = ("spool", "max_bytes" if ("spool", "max_bytes") in given else "segment_bytes")
        yield (
            place,
            (
                f"spool.segment_bytes ({config.spool.segment_bytes}) is larger than spool.max_bytes "
                f"({config.spool.max_bytes}): not even one segment would fit"
            ),
        )
    for name, capture in capture_sections(config).items():
        for path, problem in _of_capture(name, capture, given, hmac=bool(key)):
            yield (name, *path), problem


def _of_capture(
    name: str, section: CaptureSection, given: set[tuple[str, ...]], *, hmac: bool
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find what makes no sense in what one database instrumentor is told, by the key within its section."""
    for pattern, model in section.model.items():
        for field, strategy in model.fields.items():
            if strategy == "hmac" and not hmac:
                yield ("model", pattern, "fields", field), _NO_KEY
    if section.max_bulk_rows > section.max_bulk_ids:
        yield (
            ("max_bulk_ids" if (name, "max_bulk_ids") in given else "max_bulk_rows",),
            (
                f"{name}.max_bulk_rows ({section.max_bulk_rows}) is larger than {name}.max_bulk_ids "
                f"({section.max_bulk_ids}); above the first only ids are recorded, above the second "
                "only the count"
            ),
        )
    for setting in ("models", "reads"):
        for pattern in getattr(section, setting):
            problems = model_pattern_problems(pattern, tables=name == "sqlalchemy")
            yield from (((setting,), problem) for problem in problems)


def _redaction(config: AuditConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    places = [(("redaction", place), getattr(config.redaction, place)) for place in PLACES]
    for path, rules in [(("redaction",), config.redaction), *places]:
        for name in ("names", "values", "allow"):
            for pattern in getattr(rules, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    yield (*path, name), f"{pattern!r} is not a regular expression: {error}"
    key = config.redaction.hmac_key
    if key and len(key) < 16:
        yield ("redaction", "hmac_key"), f"has {len(key)} characters; at least 16 are required"
    if not key and config.redaction.unknown_user_names == "hmac":
        yield ("redaction", "unknown_user_names"), _NO_KEY


def _hosts(entries: Sequence[str], key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not entries:
        return
    from otel_audit.config.host_patterns import host_problem

    yield from ((key, problem) for entry in entries if (problem := host_problem(entry)))


def _context(config: AuditConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    if not (config.context.propagate_to or config.context.audience or config.context.keys):
        return
    from otel_audit.config.context_keys import key_problem

    for name in ("propagate_to", "audience"):
        yield from _hosts(getattr(config.context, name), ("context", name))
    for number, (key_id, secret) in enumerate(config.context.keys.items(), 1):
        problem = key_problem(key_id, secret, number)
        if problem:
            yield ("context", "keys"), problem


def _requests(config: AuditConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    for entry in config.requests.ignore_addresses:
        try:
            ip_network(entry, strict=False)
        except ValueError:
            yield (
                ("requests", "ignore_addresses"),
                f"{entry!r} is neither an address nor a network: write '10.0.0.7' or '192.168.0.0/16'",
            )


def address_problems(address: str) -> Iterator[str]:
    """Say what keeps a text from being the address of a sink or store."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        yield f"{_without_credentials(address)!r} is not a URL: {_reason(error)}"
        return
    del port
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield (
            "must be a http:// or https:// URL with a host, such as http://127.0.0.1:4318, "
            f"not {_without_credentials(address)!r}"
        )


def _without_credentials(address: str) -> str:
    from otel_audit.config.showing import without_credentials  # few processes have a message to write

    return without_credentials(address)


def _reason(error: ValueError) -> str:
    """Return why a text is no URL, without the part of it that urllib quotes."""
    said = str(error)
    if said.startswith("Port could not"):
        return "its port is not a number"
    return "its host is not valid" if "'" in said else said


def model_pattern_problems(pattern: str, *, tables: bool = False) -> Iterator[str]:
    """Say what keeps a text from being a pattern of models; ``tables``: or the name of a table."""
    bare = pattern.removeprefix("!")
    if not bare.strip() or bare != bare.strip():
        yield f"{pattern!r} is not a model pattern: write app_label.Model, such as 'shop.Order' or 'shop.*'"
    elif "." not in bare and bare != "*" and not tables:
        yield f"{pattern!r} has no app label: write {pattern + '.*'!r}, or 'app_label.{bare}'"
