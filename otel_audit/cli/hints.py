"""Why nothing was found: words of the question that occur nowhere in the trail, or records in another log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from otel_audit.config.nearest import nearest
from otel_audit.store.filters import EVERY_LOG, Filters, logs_meant
from otel_audit.store.query import AuditStore, Vocabulary


def unknown_words(store: AuditStore, filters: Filters) -> Iterator[str]:
    """Return a sentence for each name in the filters that no record has, with those that exist."""
    if store.newest() is None:
        yield "The trail is empty; `otel-audit doctor` tells what is missing."
        return
    log = logs_meant(filters)
    kind = filters.target.partition("/")[0] if filters.target else None
    known_type = kind if kind and "*" not in kind else None
    if known_type and not _occurs(store, "target", known_type, log, None):
        yield _sentence("target", known_type, store.vocabulary("target", log=log))
        known_type = None
    field = filters.field.partition("=")[0].strip() if filters.field else None
    asked: list[tuple[Vocabulary, str | None]] = [
        ("field", field),
        ("actor", filters.actor),
        ("tenant", filters.tenant),
        ("service", filters.service),
        ("route", filters.route),
        ("slug", filters.slug),
        ("view", filters.view),
        ("address", filters.address),
        ("on_behalf_of", filters.on_behalf_of),
    ]
    if isinstance(log, str):
        logs = [each.strip() for each in log.split(",")]
        asked += [("log", each) for each in logs if each != EVERY_LOG and not each.startswith("!")]
    if isinstance(filters.action, str):
        asked += [("action", each.strip().upper()) for each in filters.action.split(",")]
    for name, word in asked:
        if word and not _occurs(store, name, word, log, known_type):
            words = store.vocabulary(name, target=known_type if name == "field" else None, log=log)
            yield _sentence(name, word, words, known_type if name == "field" else None)


def _occurs(
    store: AuditStore,
    name: Vocabulary,
    word: str,
    log: str | Sequence[str] | None,
    kind: str | None,
) -> bool:
    """Say whether any record has this word: a vocabulary lists only the frequent ones."""
    if name == "log":
        return bool(store.query(log=word, limit=1, parts=()))
    asked = Filters(log=log, target=kind if name == "field" else None)
    return bool(store.find(msgspec.structs.replace(asked, **{name: word}), limit=1, parts=()))


def other_logs(store: AuditStore, filters: Filters) -> Iterator[str]:
    """Say so if the question has an answer in a log that was not asked."""
    if logs_meant(filters) is None:
        found = store.find(msgspec.structs.replace(filters, log=EVERY_LOG), limit=1, parts=("log",)).entries
        if found:
            yield (
                f"The log {found[0].log!r} has matching records: use --log {found[0].log}, or --log '*' for "
                "all logs."
            )


def _sentence(name: str, word: str, words: list[str], kind: str | None = None) -> str:
    place = f"of {kind} " if kind else ""
    known = nearest(word, words) or (f"; there are {', '.join(words[:12])} …" if words else "")
    return f"No record {place}has the {name} {word!r}{known}"
