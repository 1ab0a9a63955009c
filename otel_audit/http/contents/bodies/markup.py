"""XML and HTML, SOAP too, without what stands inside a sensitive element or beside one that names it.

The rules for texts see the text that follows a tag; here, elements are followed to their end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

_TOKEN: Final = re.compile(
    r"""<!--(?:(?!-->)[\s\S])*+
      | <!\[CDATA\[(?P<data>(?:(?!\]\]>)[\s\S])*+)(?:\]\]>|\Z)
      | <(?P<end>/?)(?P<name>[\w:.\-]++)(?P<rest>(?:[^<>"']|"[^"<]*+"|'[^'<]*+'|["'])*+)>
      | (?P<text>[^<]++)
      | <""",
    re.VERBOSE,
)
_NAMING: Final = frozenset({"name", "key", "field", "param", "parameter", "property"})
_MAX_NAME: Final = 128


def scrub(text: str, is_secret: Callable[[str], bool], mask: str) -> str:
    """Return a document without what is inside sensitive elements; attributes are for the rules for texts.

    ``<credentials><user>a</user>…``, ``<member><name>password</name><value><string>x</string>…``.
    """
    parts: list[str] = []
    copied = 0
    names: list[str] = []  # of the elements that are open
    secret: list[bool] = [False]  # whether what is inside each is removed, the document's first
    opened: Counter[str] = Counter()
    for match in _TOKEN.finditer(text):
        kind = "data" if match["data"] is not None else "text" if match["text"] is not None else ""
        if kind:
            start, end = match.span(kind)
            content = text[start:end].strip()
            if not content:
                continue
            if secret[-1]:
                if content != mask:
                    parts += (text[copied:start], mask)
                    copied = end
            elif names and _local(names[-1]) in _NAMING and len(content) <= _MAX_NAME and is_secret(content):
                secret[-2] = True
        elif (name := match["name"]) is not None:
            if match["end"]:
                if opened[name]:
                    while names:
                        last = names.pop()
                        opened[last] -= 1
                        secret.pop()
                        if last == name:
                            break
            elif not match["rest"].endswith("/"):
                names.append(name)
                opened[name] += 1
                secret.append(secret[-1] or is_secret(name))
    return "".join((*parts, text[copied:])) if parts else text


def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()
