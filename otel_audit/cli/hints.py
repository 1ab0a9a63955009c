"""Why nothing was found: words of the question that occur nowhere in the trail."""

from __future__ import annotations

from collections.abc import Iterator

from otel_audit.config.nearest import nearest
from otel_audit.store.filters import Filters
from otel_audit.store.query import AuditStore, Vocabulary


def unknown_words(store: AuditStore, filters: Filters) -> Iterator[str]:
    """Give a sentence for each name in the filters that no record has, with those that exist."""
    if store.newest() is None:
        yield "The trail is empty; `otel-audit doctor` says what is missing."
        return
    kind = filters.target.partition("/")[0] if filters.target else None
    known_type = kind if kind and "*" not in kind else None
    if known_type:
        types = store.vocabulary("target")
        if known_type not in types:
            yield _sentence("target", known_type, types)
            known_type = None
    field = filters.field.partition("=")[0].strip() if filters.field else None
    asked: list[tuple[Vocabulary, str | None]] = [
        ("field", field),
        ("actor", filters.actor),
        ("log", filters.log),
        ("tenant", filters.tenant),
    ]
    if isinstance(filters.action, str):
        asked += [("action", each.strip().upper()) for each in filters.action.split(",")]
    for name, word in asked:
        if word:
            words = store.vocabulary(name, target=known_type if name == "field" else None)
            if word not in words and not (name == "actor" and _is_actor(store, word)):
                yield _sentence(name, word, words, known_type if name == "field" else None)


def _is_actor(store: AuditStore, name: str) -> bool:
    return bool(store.query(actor=name, limit=1))


def _sentence(name: str, word: str, words: list[str], kind: str | None = None) -> str:
    place = f"of {kind} " if kind else ""
    known = nearest(word, words) or (f"; there are {', '.join(words[:12])} …" if words else "")
    return f"No record {place}has the {name} {word!r}{known}"
