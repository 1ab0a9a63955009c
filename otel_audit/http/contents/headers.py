"""Headers without secrets, by name in lower case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from otel_audit.http.contents.documents import redacted
from otel_audit.large_values import LEFT_OUT
from otel_audit.long_texts import head_of, rest_of
from otel_audit.redaction.named_values import may_be_held
from otel_audit.redaction.text.together import any_may_hold_secret
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import plain_text

_MAX_HEADERS: Final = 128
_MAX_NAME: Final = 128
_MAX_VALUE: Final = 2048
_MAX_ALL: Final = 16 * 1024
_READ: Final = 16 * 1024
_TEXTS: Final = frozenset({str, bytes})
_STR: Final = frozenset({str})


def headers(
    pairs: Iterable[tuple[str | bytes, str | bytes]] | Mapping[str, str], redactor: ValueRedactor
) -> dict[str, str]:
    """Return headers; as for :meth:`otel_audit.http.contents.Contents.headers`."""
    if isinstance(pairs, Mapping):
        pairs = pairs.items()
    if type(pairs) is list and pairs and (quick := _plain(pairs, redactor)) is not None:
        return quick
    given: dict[str, str] = {}
    more = False
    for number, (name, value) in enumerate(islice(pairs, _MAX_HEADERS + 1)):
        if number == _MAX_HEADERS:
            more = True
            break
        key = _known_key(name) if type(name) in _TEXTS and len(name) <= _MAX_NAME else _key(name)
        shown = value if type(value) is str and value.isascii() and len(value) <= _READ else _text(value)
        given[key] = f"{given[key]}, {shown}" if key in given else shown
    clean: dict[str, str] = redacted(given, redactor)
    sizes = list(map(len, clean.values()))
    if not more and sum(sizes) + sum(map(len, clean)) < _MAX_ALL and max(sizes, default=0) <= _MAX_VALUE:
        return clean
    made: dict[str, str] = {}
    room = _MAX_ALL
    for name, value in clean.items():
        text = value if len(value) <= _MAX_VALUE else value[:_MAX_VALUE] + rest_of(len(value))
        room -= len(name) + len(text)
        if room <= 0:
            more = True
            break
        made[name] = text
    if more:
        made[LEFT_OUT] = LEFT_OUT
    return made


def _plain(pairs: list[Any], redactor: ValueRedactor) -> dict[str, str] | None:
    """Return headers of which nothing is to be removed, cut or joined; None if that is not sure at once."""
    try:
        names, values = zip(*pairs, strict=True)
        joined = "".join(values)
    except (TypeError, ValueError):  # no pairs, or no texts
        return None
    if set(map(type, (*names, *values))) != _STR or len(joined) > _MAX_VALUE or not joined.isascii():
        return None
    keys = _keys(names)
    if keys is None or not redactor.clean_names.issuperset(keys):
        return None
    if not redactor.builtin or redactor.has_own_values:
        return None
    if any_may_hold_secret([value for value in values if value not in redactor.clean_texts]):
        return None
    return dict(zip(keys, values, strict=True))


@lru_cache(maxsize=256)
def _keys(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return what some names become if they are few, short and different, and none holds another's value."""
    if len(names) > _MAX_HEADERS or max(map(len, names)) > _MAX_NAME:
        return None
    keys = tuple(map(_key, names))
    if len(set(keys)) < len(keys) or sum(map(len, keys)) >= _MAX_ALL - _MAX_VALUE or may_be_held(keys):
        return None
    return keys


def _key(name: Any) -> str:
    return _text(name)[:_MAX_NAME].lower()


_known_key: Final = lru_cache(maxsize=512)(_key)
"""Names come again; values may be secrets, and are not kept."""


def _text(value: Any) -> str:
    kind = type(value)
    text: str
    if kind is bytes:
        text = value[: _READ + 1].decode("latin-1")
    elif kind is str:
        text = value
    elif issubclass(kind, str):
        text = str.__str__(value)
    else:
        text = str(value) if kind is int else f"<{kind.__qualname__}>"
    if len(text) > _READ:
        text = head_of(text, _READ)
    return plain_text(text)
