"""Names apart from their values: in the parts of a form, above a column, in a command's short options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from otel_audit.redaction.lazy import pattern

IsSecret = Callable[[str], bool]

# A line ends as it does on the wire, or as `repr` and JSON write that.
_BREAK: Final = r"(?:\r?\n|\r|(?:\\{1,4}r)?\\{1,4}n)"
_PART = pattern(
    r"form-data;[^\r\n]{0,200}?\bname\*?=(?:\\*[\"'])?(?:[Uu][Tt][Ff]-?8'')?(?P<name>[^;\"'\r\n\\]{1,256}+)"
)
_PART_BODY = pattern(rf"{_BREAK}{_BREAK}")
_PART_END = pattern(rf"{_BREAK}[\x1c-\x1f\x85\u2028\u2029]?--")
_HEADERS_REACH: Final = 1000

# What databases say about the values that a constraint refused.
_KEY = pattern(r"\((?P<columns>(?:[^()\n]++|\([^()\n]*+\)){1,16}+)\)=\(")
_KEY_END = pattern(r"\)(?:[ ](?:already|is|conflicts|exist|must|overlaps)\b|\.?[ \t]{0,16}+(?:\r?\n|\Z))")
_KEY_REACH: Final = 4096
_ENTRY = pattern(
    r"""\b(?:entry|value:?)[ ]'(?P<value>[^\n]{0,1024}?)'[ ]for[ ](?:key|column)[ ](?P<name>[^\n]{1,256})""",
    re.VERBOSE | re.IGNORECASE,
)
_WORD = pattern(r"[\w$]++")
_KEY_COLUMNS: Final = frozenset({"key"})  # Django REST framework's tokens have no other name for theirs

_RULE = pattern(r"[\s|+:=\-─━═│┃║┼╋╬┬┴├┤╪]*+")
_CELL = pattern(r"[^\W\d][\w .\-]{0,63}")
_NAME_ONLY = pattern(r"[\w.\-]{1,64}")
_GAP = pattern(r"[ ]{2,}+|\t")
_BAR: Final = ("|", "│", "┃", "║")
_EXPANDED = pattern(r"^((?P<name>[\w.\-]{1,64})[ ]{0,64}\|[ ])[^\n]++", re.MULTILINE)
# A line of a name and one word, `| password | x |`. With a rule below, these are two names.
_ROW = pattern(
    r"""^[ \t]{0,64}+(?:[|│┃║][ \t]{0,64}+)?+(?P<name>[\w.\-]{1,64}+)[ ]{0,64}+(?:\t{1,8}+|[|│┃║])[ ]{0,64}+
        (?P<value>[^\s|│┃║]++)[ ]{0,64}+[|│┃║]?+[ \t]{0,64}+(?=\r?(?:\n|\Z))(?!\r?\n[|+─━═├┌┼\-]{2})""",
    re.VERBOSE | re.MULTILINE,
)
_MAX_CELLS: Final = 64

_SHORT_OPTION = pattern(
    r"""(?<![^\s"'\[(,])
        (?: (?P<user>-[A-Za-z]{0,8}[uU]|--user|--proxy-user)(?:[ \t]++|=|)
              ["']?[^\s"':=%]++[:%](?P<pair>[^\s"']++)
          | (?P<flag>-[pwa])(?P<gap>[ \t]*+)(?P<value>[^\s\-]\S*+) )""",
    re.VERBOSE,
)
_PROGRAM_REACH: Final = 1000
_PROGRAMS: Final = {
    # option, whether a blank stands before the value: programs
    ("-p", False): ("mysql", "mariadb", "7z", "sshpass"),
    ("-p", True): ("sshpass", "docker login", "podman login", "mongo"),
    ("-w", True): ("ldapsearch", "ldapmodify", "ldapadd", "ldappasswd"),
    ("-a", True): ("redis-cli",),
}
_WITH_USER: Final = ("curl", "wget", "lftp", "smbclient")


def scrub_parts(text: str, is_secret: IsSecret, mask: str) -> str:
    """Replace the bodies of sensitive parts of ``multipart/form-data``, up to the boundary or the end."""
    parts: list[str] = []
    copied = position = 0
    while (match := _PART.search(text, position)) is not None:
        position = match.end()
        if not is_secret(match["name"]):
            continue
        body = _PART_BODY.search(text, position, position + _HEADERS_REACH)
        if body is None:
            continue
        found = _PART_END.search(text, body.end())
        end = len(text) if found is None else found.start()
        if end > body.end() and text[body.end() : end] != mask:
            parts += (text[copied : body.end()], mask)
            copied = end
        position = max(position, end)
    return "".join((*parts, text[copied:])) if parts else text


def scrub_tables(text: str, is_secret: IsSecret, mask: str) -> str:
    """Replace the cells under sensitive names: in tables of a terminal or of Markdown, CSV, columns."""
    if "-[ RECORD " in text:
        text = _EXPANDED.sub(lambda found: found[1] + mask if is_secret(found["name"]) else found[0], text)
    lines = text.splitlines(keepends=True)
    index = 0
    changed = False
    while index + 1 < len(lines):
        table = _table(lines, index, is_secret)
        index += 1
        if table is None:
            continue
        while index < len(lines) and lines[index].strip():
            line = lines[index]
            if not _RULE.fullmatch(line):
                masked = table(line, mask)
                if masked is None:
                    break
                changed |= masked != line
                lines[index] = masked
            index += 1
    return "".join(lines) if changed else text


def scrub_rows(text: str, is_secret: IsSecret, mask: str) -> str:
    """Replace what stands alone beside a sensitive name on a line: ``| password | x |``, or after a tab."""

    def masked(row: re.Match[str]) -> str:
        if not is_secret(row["name"]):
            return row.group()
        start, end = (position - row.start() for position in row.span("value"))
        return row.group()[:start] + mask + row.group()[end:]

    return _ROW.sub(masked, text)


_Table = Callable[[str, str], "str | None"]


def _table(lines: Sequence[str], index: int, is_secret: IsSecret) -> _Table | None:
    """Return how to mask the lines of a table whose head this line is; None if it is none."""
    line, following = lines[index], lines[index + 1]
    before = lines[index - 1] if index else ""
    ruled = (
        following[:1] != "\n"
        and _RULE.fullmatch(following) is not None
        and ("-" in following or "─" in following)
    )
    for delimiter in _BAR:
        if delimiter in line:
            first = ruled or (delimiter in following and delimiter not in before)
            return _delimited(line, delimiter, is_secret) if first else None
    if ruled and (name := line.strip()) and _CELL.fullmatch(name) and is_secret(name):
        return _single
    for delimiter in "\t,;":
        if delimiter in line:
            cells = line.strip().split(delimiter)
            first = delimiter not in before and following.count(delimiter) >= len(cells) - 1
            if first and all(_NAME_ONLY.fullmatch(cell.strip(" \"'")) for cell in cells):
                return _delimited(line, delimiter, is_secret)
    if "  " in line and "  " not in before and (ruled or line.upper() == line):
        return _aligned(line, is_secret)
    return None


def _delimited(head: str, delimiter: str, is_secret: IsSecret) -> _Table | None:
    cells = head.rstrip("\r\n").split(delimiter)
    if len(cells) < 2 or len(cells) > _MAX_CELLS:
        return None
    secret = [
        place
        for place, cell in enumerate(cells)
        if _CELL.fullmatch(name := cell.strip(" \t\"'*`")) and is_secret(name)
    ]
    if not secret:
        return None

    def masked(line: str, mask: str) -> str | None:
        body = line.rstrip("\r\n")
        found = body.split(delimiter)
        if delimiter not in body:
            return None
        if len(found) != len(cells):  # a delimiter in a value: nobody knows in which
            return mask + line[len(body) :]
        for place in secret:
            if inner := found[place].strip():
                found[place] = found[place].replace(inner, mask)
        return delimiter.join(found) + line[len(body) :]

    return masked


def _single(line: str, mask: str) -> str | None:
    inner = line.strip()
    return None if inner[:1] == "(" else line.replace(inner, mask)


def _aligned(head: str, is_secret: IsSecret) -> _Table | None:
    head = head.rstrip("\r\n")
    columns = list(_columns(head))
    if len(columns) < 2 or not all(_CELL.fullmatch(name) for _, _, name in columns):
        return None
    secret = [(start, end) for start, end, name in columns if is_secret(name)]
    if not secret:
        return None

    def masked(line: str, mask: str) -> str | None:
        body = line.rstrip("\r\n")
        parts: list[str] = []
        copied = 0
        for start, end in secret:
            cell = body[start:end]
            if inner := cell.strip():
                parts += (body[copied:start], cell.replace(inner, mask))
                copied = max(start, min(end, len(body)))
        return "".join((*parts, body[copied:], line[len(body) :]))

    return masked


def _columns(head: str) -> Iterator[tuple[int, int, str]]:
    start = len(head) - len(head.lstrip())
    while start < len(head):
        gap = _GAP.search(head, start)
        end = len(head) if gap is None else gap.start()
        following = len(head) if gap is None else gap.end()
        yield start, (following if gap is not None else 10**9), head[start:end].strip()
        start = following


def scrub_constraints(text: str, is_secret: IsSecret, mask: str) -> str:
    """Replace refused values: ``Key (token)=(x) already exists``, ``Duplicate entry 'x' for key 'token'``."""
    if ")=(" in text:
        text = _scrub_keys(text, is_secret, mask)
    if " for key " in text or " for column " in text:
        text = _ENTRY.sub(lambda match: _without_entry(match, is_secret, mask), text)
    return text


def _without_entry(match: re.Match[str], is_secret: IsSecret, mask: str) -> str:
    whole = match.group()
    # The value of a composite key has all columns: `a-b` for key 'u.a_token'.
    if not any(map(is_secret, re.split(r"[^\w]+", match["name"])[:16])):
        return whole
    start, end = (position - match.start() for position in match.span("value"))
    return whole[:start] + mask + whole[end:]


def _scrub_keys(text: str, is_secret: IsSecret, mask: str) -> str:
    parts: list[str] = []
    copied = position = 0
    while (match := _KEY.search(text, position)) is not None:
        position = match.end()
        columns = match["columns"].split(", ")
        secret = [_names_secret(column, is_secret) for column in columns]
        if not any(secret):
            continue
        found = _KEY_END.search(text, position, position + _KEY_REACH)
        end = len(text) if found is None else found.start()
        values = text[position:end].split(", ")
        if len(values) == len(columns) > 1:
            shown = ", ".join(mask if hide else value for hide, value in zip(secret, values, strict=True))
        else:
            shown = mask
        parts += (text[copied:position], shown)
        copied = position = end
    return "".join((*parts, text[copied:])) if parts else text


def _names_secret(column: str, is_secret: IsSecret) -> bool:
    return column in _KEY_COLUMNS or any(map(is_secret, _WORD.findall(column)))


def scrub_options(text: str, mask: str) -> str:
    """Replace what stands in short options: ``curl -u name:x``, ``mysql -px``, ``redis-cli -a x``."""
    parts: list[str] = []
    copied = 0
    for match in _SHORT_OPTION.finditer(text):
        start, end = _option_value(text, match)
        if text.startswith(mask, start):  # it may have blanks
            end = max(end, start + len(mask))
        if start < end and start >= copied and text[start:end] != mask:
            parts += (text[copied:start], mask)
            copied = end
    return "".join((*parts, text[copied:])) if parts else text


def _option_value(text: str, match: re.Match[str]) -> tuple[int, int]:
    begin = max(
        0,
        match.start() - _PROGRAM_REACH,
        text.rfind("\n", max(0, match.start() - _PROGRAM_REACH), match.start()),
    )
    before = text[begin : match.start()]
    if match["user"]:
        if any(program in before for program in _WITH_USER):
            return match.span("pair")
    elif any(program in before for program in _PROGRAMS.get((match["flag"], bool(match["gap"])), ())):
        value = match["value"]
        inner = value.strip("\"',)")
        start = match.start("value") + value.index(inner) if inner else match.end()
        return start, start + len(inner)
    return 0, 0
