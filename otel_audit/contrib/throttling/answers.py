"""The answer to who was refused, where the application has none of its own: a plain page, or JSON. Pure."""

from __future__ import annotations

import json
from html import escape
from typing import Final

_PAGE: Final = """<!doctype html>
<html lang="{language}">
<head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>{description}</p></body>
</html>
"""


def page(title: str, description: str, language: str = "en") -> str:
    """Return a page of HTML; whatever the texts hold, they are only texts in it."""
    return _PAGE.format(title=escape(title), description=escape(description), language=escape(language))


def data(description: str, retry_after: int) -> str:
    """Return the same for a client that is a program; ``detail`` as Django REST framework names it."""
    answer: dict[str, object] = {"detail": description}
    if retry_after:
        answer["retry_after"] = retry_after
    return json.dumps(answer)


def wants_json(accept: str, content_type: str = "") -> bool:
    """Say whether who sends these headers is a program: it says JSON before HTML, or nothing of HTML."""
    if "json" in accept:
        return "html" not in accept or accept.index("json") < accept.index("html")
    return "json" in content_type and "html" not in accept


def headers(retry_after: int) -> dict[str, str]:
    """Return what the headers say of the refusal; no cache may keep it."""
    found = {"Cache-Control": "no-store"}
    if retry_after:
        found["Retry-After"] = str(retry_after)
    return found
