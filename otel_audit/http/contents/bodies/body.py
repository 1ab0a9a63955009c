"""One body as a record shows it: JSON stays JSON, forms are shown by field, files by name, size and type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from otel_audit import semconv
from otel_audit.http.contents.bodies import forms, json_documents, markup
from otel_audit.http.contents.bodies.content_encoding import is_plain
from otel_audit.http.contents.bodies.media_types import MediaType, decoded, is_shown, media_type
from otel_audit.http.contents.documents import DOUBT, UNTOUCHED, masked, redacted
from otel_audit.http.contents.shortening import Shortened, shortened_text
from otel_audit.interruptions import faults
from otel_audit.long_texts import head_of
from otel_audit.named_tuples import NamedTuple
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import Portable

LOOK_AHEAD: Final = 16 * 1024
_CONTROL: Final = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])
"""Characters that no text has, and that would hide names from the rules."""
_NAMES: Final = {
    "request": (semconv.REQUEST_SIZE, semconv.REQUEST_BODY, semconv.REQUEST_BODY_CUT),
    "response": (semconv.RESPONSE_SIZE, semconv.RESPONSE_BODY, semconv.RESPONSE_BODY_CUT),
}
_UTF8: Final = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})


class Body(NamedTuple):
    """What a record shows of a body.

    ``value`` is portable and None if nothing of the body is shown; ``size`` is that of the whole body in
    bytes, None if nobody knows it; ``cut`` says in words what is missing and why, empty if nothing is;
    ``type`` is its media type.
    """

    value: Portable
    size: int | None
    cut: str = ""
    type: str = ""

    def attributes(self, which: str) -> dict[str, Any]:
        """Return the attributes of a record that show it; ``which`` is ``request`` or ``response``."""
        size, value, cut = _NAMES[which]
        made: dict[str, Any] = {}
        if self.size is not None:
            made[size] = self.size
        if self.value is not None:
            made[value] = self.value
        if self.cut:
            made[cut] = self.cut
        return made


def body_of(
    content: bytes,
    content_type: str,
    limit: int,
    redactor: ValueRedactor,
    *,
    size: int | None = None,
    whole: bool = True,
    content_types: Sequence[str] | None = None,
    content_encoding: str = "",
) -> Body:
    """Return what may be shown of a body; as for :meth:`otel_audit.http.contents.Contents.body`."""
    if size is None:
        size = len(content) if whole else None
    else:
        whole = whole and size <= len(content)
    type_ = media_type(content_type)
    name = type_.name
    if not content:
        return Body(None, size, "" if size == 0 else "not kept", name)
    if limit <= 0:
        return Body(None, size, "", name)
    if not is_shown(name, content_types):
        return Body(None, size, "content type is not listed", name)
    if not is_plain(content_encoding):
        return Body(None, size, "content encoding", name)
    if type_.kind == "binary":
        return Body(None, size, "not text", name)
    try:
        value, cut = _shown(content, type_, limit, redactor, whole=whole)
    except faults():  # whatever is wrong with it, its record is kept
        return Body(None, size, "cannot be shown", name)
    return Body(value, size, cut, name)


def form_of(
    fields: Iterable[tuple[str, Any]],
    files: Iterable[tuple[str, str, int | None, str]],
    limit: int,
    redactor: ValueRedactor,
    *,
    size: int | None,
    content_type: str,
) -> Body:
    """Return what may be shown of a form that was read already; as for ``Contents.form``."""
    name = media_type(content_type).name
    try:
        made, more = forms.by_name(fields, files, limit + LOOK_AHEAD)
        value, cut = _fitted(redacted(made, redactor), limit, more)
    except faults():
        return Body(None, size, "cannot be shown", name)
    return Body(value, size, cut, name)


def _shown(
    content: bytes, type_: MediaType, limit: int, redactor: ValueRedactor, *, whole: bool
) -> tuple[Portable, str]:
    most = 4 * limit + LOOK_AHEAD
    kind = type_.kind
    if kind == "multipart":
        fields, files, more = forms.parts(content, type_, most, whole=whole)
        made, _ = forms.by_name(fields, files, most)
        if more:
            json_documents.mask_unnamed(made, 1, redactor.mask)
        return _fitted(redacted(made, redactor), limit, more)
    if len(content) > most:
        content, whole = content[:most], False
    if kind == "json":
        if whole and type_.charset.lower() in _UTF8:
            with suppress(ValueError, RecursionError):  # not like this
                return _whole_json(content, limit, redactor)
        text = decoded(content, type_.charset)
        if text is not None and (found := _odd_json(text, limit, redactor, whole=whole)) is not None:
            return found
    else:
        text = decoded(content, type_.charset)
    if text is None:
        return None, "not text"
    text = text.translate(_CONTROL)
    if kind == "form":
        fields, more = forms.pairs(text, whole=whole)
        made, _ = forms.by_name(fields, (), most)
        if more:
            json_documents.mask_unnamed(made, 1, redactor.mask)
        return _fitted(redacted(made, redactor), limit, more)
    if not whole:
        text = head_of(text, len(text))
    if kind == "markup":
        text = markup.scrub(text, redactor.is_secret, redactor.mask)
    shown, cut = shortened_text(redactor.text(text), limit)
    return shown or None, cut if whole or cut else "the end"


def _whole_json(content: bytes, limit: int, redactor: ValueRedactor) -> tuple[Portable, str]:
    value = json_documents.read(content)
    found = masked(value, redactor, json_documents.LEVELS)
    if found == UNTOUCHED and len(content) <= limit:
        return value, ""  # without floats, it is written no longer than it was sent
    cut = ""
    if found == DOUBT:
        cut = json_documents.prune(value)
        value = redacted(value, redactor)
    return _fitted(value, limit, cut)


def _odd_json(text: str, limit: int, redactor: ValueRedactor, *, whole: bool) -> tuple[Portable, str] | None:
    """Return what is shown of an odd document, or of the beginning of one; None if it is no JSON."""
    try:
        value = json_documents.read_either(text)
        cut = json_documents.prune(value)
    except (ValueError, RecursionError) as error:
        if whole and not isinstance(error, RecursionError):
            return None  # it is broken: as text it can be seen how
        beginning = json_documents.Beginning(text)
        try:
            value = json_documents.read_either(beginning.text)
        except (ValueError, RecursionError):
            return None
        json_documents.mask_unnamed(value, beginning.open, redactor.mask)
        cut = "the end"
    return _fitted(redacted(value, redactor), limit, cut)


def _fitted(value: Portable, limit: int, cut: str) -> tuple[Portable, str]:
    short = Shortened(value, limit, whole=not cut)
    return short.value, ", ".join([part for part in (short.cut, cut) if part])
