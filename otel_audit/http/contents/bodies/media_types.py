"""What a Content-Type header says: media type, charset, boundary, and how a body of that type is shown."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from otel_audit.config.globs import Globs, Matcher, matcher
from otel_audit.named_tuples import NamedTuple

Kind: TypeAlias = Literal["json", "form", "multipart", "markup", "text", "binary"]

_MAX_HEADER: Final = 1024
_PARAMETER: Final = re.compile(r";[ \t]*([\w\-*]{1,64})[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*+)\"?|([^\s;]*+))")
_CHARSET: Final = re.compile(r"[A-Za-z0-9_.:\-]{1,40}")
# Of all that Python can decode: what documents are written in, and has ASCII in it. Some of the others take
# quadratic time. By EBCDIC or UTF-16, a secret in ASCII would become letters that no rule knows, and that
# anybody can turn back.
_WRITTEN_IN: Final = re.compile(
    r"(?:utf-8|utf-8-sig|ascii|iso8859-\d+|cp(?:125\d|437|720|737|775|8[56]\d|874|932|949|950|1125)|koi8-[ru]"
    r"|mac-?\w+|latin-?1|shift_jis\w*|euc_\w+|iso2022_\w+|gb\w+|big5\w*|johab|tis-620|hz)"
)
_BY_ESCAPES: Final = ("iso2022_", "hz")
"""Charsets whose texts are valid UTF-8, too, and say something else as that."""
_KINDS: Final[dict[str, Kind]] = {
    "application/json": "json",
    "application/x-json": "json",
    "text/json": "json",
    "application/csp-report": "json",
    "application/x-www-form-urlencoded": "form",
    "application/xml": "markup",
    "text/xml": "markup",
    "text/html": "markup",
}
_TEXTS: Final = frozenset(
    f"application/{name}"
    for name in (
        *("graphql", "javascript", "jsonl", "json-seq", "ndjson", "sql", "toml", "yaml"),
        *("x-javascript", "x-jsonl", "x-ndjson", "x-toml", "x-yaml"),
    )
)
_MOST_UNREADABLE: Final = 0.1
_SAMPLE: Final = 1024


class MediaType(NamedTuple):
    """A media type in lower case (``application/json``; empty if unknown), and the parameters used here."""

    name: str
    charset: str = ""
    boundary: str = ""

    @property
    def kind(self) -> Kind:
        """How a body of this type is shown; ``binary`` is not."""
        name = self.name
        if name in _KINDS:
            return _KINDS[name]
        if name.startswith("multipart/"):
            return "multipart" if self.boundary else "binary"
        if name.endswith("+json"):
            return "json"
        if name.endswith("+xml"):
            return "markup"
        return "text" if name.startswith("text/") or name in _TEXTS else "binary"


@lru_cache(maxsize=256)
def media_type(header: str) -> MediaType:
    """Read a Content-Type header."""
    header = header[:_MAX_HEADER]
    name, _, _ = header.partition(";")
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        found.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3])
    return MediaType(name.strip().lower()[:128], found.get("charset", ""), found.get("boundary", "")[:200])


def is_shown(name: str, content_types: Sequence[str] | None) -> bool:
    """Say whether bodies of a media type may be shown: all, or those of patterns such as ``text/*``."""
    return content_types is None or (bool(content_types) and bool(_listed(tuple(content_types))(name)))


@lru_cache(maxsize=64)
def _listed(content_types: tuple[str, ...]) -> Matcher:
    return matcher(Globs.of(map(str.lower, content_types)))


def decoded(content: bytes, charset: str = "") -> str | None:
    """Return content as text, whatever charset it claims or has; None if it is none.

    What cannot be decoded becomes U+FFFD. Content with a compressed or binary beginning is no text.
    """
    if content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"%PDF-", b"\x89PNG")):
        return None
    claimed = _codec(charset)
    first = claimed if claimed.startswith(_BY_ESCAPES) else ""
    for codec in dict.fromkeys((_by_zeros(content), first, "utf-8", claimed)):
        if codec:
            try:
                return content.decode(codec).removeprefix("\ufeff")
            except (UnicodeError, LookupError):
                continue
    text = content.decode(claimed or "utf-8", "replace").removeprefix("\ufeff")
    sample = text[:_SAMPLE]
    return None if sample.count("\ufffd") > _MOST_UNREADABLE * len(sample) else text


@lru_cache(maxsize=64)
def _codec(charset: str) -> str:
    """Return Python's name of a charset; empty if it has none, or one that no document is written in."""
    if not _CHARSET.fullmatch(charset):
        return ""
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError, UnicodeError):
        return ""
    return name if _WRITTEN_IN.fullmatch(name) else ""


def _by_zeros(content: bytes) -> str:
    """Recognize UTF-16 and UTF-32 by their mark or their zeros: to other charsets, they hide every name."""
    head = content[:64]
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" not in head:
        return ""
    even, odd = head[::2].count(0), head[1::2].count(0)
    pairs = len(head) // 2
    if pairs and not (even and odd) and max(even, odd) > pairs // 2:
        return "utf-16-be" if even else "utf-16-le"
    if even and odd and head.count(0) > len(head) // 2:
        return "utf-32-be" if head[:1] == b"\0" else "utf-32-le"
    return ""
