"""Forms by field, of ``a=1&b=2`` and multipart; files by name, size and type, never by content."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_plus

from otel_audit.http.contents.bodies.media_types import MediaType, decoded, media_type
from otel_audit.values import portable

Field: TypeAlias = tuple[str, Any]
File: TypeAlias = tuple[str, str, int | None, str]
"""Name of the field, name of the file, size in bytes if known, media type."""

_MAX_FIELDS: Final = 1000
_MAX_FILE_NAME: Final = 255
_MAX_HEADERS: Final = 4096
_SCANNED: Final = 1024 * 1024
"""Bytes of a multipart body in which the ends of its files are looked for."""
_NAME: Final = re.compile(r";[ \t]*name\*?=(?:\"((?:[^\"\\]|\\.)*+)\"?|([^;\s]*+))", re.IGNORECASE)
_FILE_NAME: Final = re.compile(r";[ \t]*filename\*?=(?:\"((?:[^\"\\]|\\.)*+)\"?|([^;\s]*+))", re.IGNORECASE)
_HEADER: Final = re.compile(r"^([\w\-]{1,64}):[ \t]*([^\r\n]*+)", re.MULTILINE)


def pairs(text: str, *, whole: bool) -> tuple[list[Field], str]:
    """Read ``a=1&b=2``; return the fields, and what was left out in words."""
    parts = text.split("&", _MAX_FIELDS)
    cut = "" if whole else "the end"
    if len(parts) > _MAX_FIELDS or not whole:
        parts.pop()
        cut = cut or "more fields"
    made = []
    for part in parts:
        if part:
            name, _, value = part.partition("=")
            made.append((unquote_plus(name), unquote_plus(value).strip("\r\n")))
    return made, cut


def parts(content: bytes, type_: MediaType, most: int, *, whole: bool) -> tuple[list[Field], list[File], str]:
    """Read a multipart body; return fields, files, and what was left out in words.

    At most ``most`` bytes of each field are read.
    """
    fields: list[Field] = []
    files: list[File] = []
    line = b"--" + type_.boundary.encode("latin-1", "replace")
    end = min(len(content), max(_SCANNED, most))
    whole = whole and end == len(content)
    position = content.find(line, 0, end)
    read = 0
    while position >= 0:
        position += len(line)
        if content[position : position + 2] == b"--":
            return fields, files, ""
        if len(fields) + len(files) >= _MAX_FIELDS or read > most:
            return fields, files, "more fields"
        head_end = content.find(b"\r\n\r\n", position, min(end, position + _MAX_HEADERS))
        if head_end < 0:
            break
        start = head_end + 4
        following = content.find(b"\r\n" + line, head_end + 2, end)
        stop = end if following < 0 else max(start, following)
        head = dict(_headers(content[position:head_end].decode("utf-8", "replace")))
        disposition = head.get("content-disposition", "")
        name = _parameter(_NAME, disposition) or f"part {len(fields) + len(files) + 1}"
        kind = media_type(head.get("content-type", "text/plain"))
        file_name = _parameter(_FILE_NAME, disposition)
        is_text = kind.kind in ("text", "json", "markup", "form") and "content-transfer-encoding" not in head
        if file_name or not is_text:
            files.append((name, file_name, stop - start if following >= 0 or whole else None, kind.name))
        elif following >= 0 or whole:
            value = decoded(content[start : min(stop, start + most)], kind.charset or type_.charset)
            fields.append((name, "" if value is None else value))
            read += stop - start
        position = following + 2 if following >= 0 else -1
    return fields, files, "the end"


def _headers(text: str) -> Iterable[tuple[str, str]]:
    for match in _HEADER.finditer(text):
        yield match[1].lower(), match[2]


def _parameter(of: re.Pattern[str], header: str) -> str:
    found = of.search(header)
    if found is None:
        return ""
    return (found[1] or found[2] or "")[:_MAX_FILE_NAME]


def by_name(fields: Iterable[Field], files: Iterable[File], most: int) -> tuple[dict[str, Any], str]:
    """Return fields and files by name, lists where one has several; and what was left out in words.

    Of all texts together about ``most`` characters are kept.
    """
    made: dict[str, Any] = {}
    for name, value in fields:
        if most <= 0 or len(made) >= _MAX_FIELDS:
            return made, "more fields"
        shown = value if type(value) is str else portable(value)
        _add(made, name, shown)
        most -= len(name) + (len(shown) if type(shown) is str else 8)
    for field, name, size, kind in files:
        if len(made) >= _MAX_FIELDS:
            return made, "more files"
        file: dict[str, Any] = {"file": name[:_MAX_FILE_NAME], "type": kind}
        _add(made, field, file if size is None else {**file, "size": size})
    return made, ""


def _add(made: dict[str, Any], name: str, value: Any) -> None:
    if name not in made:
        made[name] = value
    elif type(made[name]) is list:
        made[name].append(value)
    else:
        made[name] = [made[name], value]
