"""Which views take logins, passwords and tokens: decided by the words in their names, routes and paths."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from otel_audit.policy.decision import Facts
from otel_audit.redaction.names import is_secret, mentioned_secret, words

_LONGEST: Final = 1024
_LOGIN: Final = re.compile(
    r"(?<![a-z])(?:log_?(?:in|on)|sign_?(?:in|up|on)|(?:re_?)?authenticat(?:e|ion|or)s?|oauth_?2?|sso|saml_?2?"
    r"|oidc|2_?fa|mfa|two_?factor|t?otp|web_?authn|einloggen|anmelden|connexion|iniciar_?sesi[oó]n)(?![a-z])"
)
_NAME: Final = re.compile(r"[\w-]+")
_TAKES_EVERYTHING: Final = re.compile(r"<path:|:path\}|\.[*+]")


def credential_word(facts: Facts, *, complete: bool = True) -> str:
    """Return the word because of which a request or call is one with credentials; empty if it is none.

    A path is asked only where there is no route, or one that takes every path: what stands in a path is data.
    With ``complete`` false, a route that is absent may still come.
    """
    found, asks_path = _of_names(facts.view or "", facts.route or "")
    if not found and facts.path and (complete or facts.route) and asks_path:
        return _of_text(facts.path[:_LONGEST])
    return found


@lru_cache(maxsize=1024)
def _of_names(view: str, route: str) -> tuple[str, bool]:
    """Return the word in a view or route, and whether the path has to be asked as well."""
    found = _of_text(_own_name(view)) or _of_text(route[:_LONGEST])
    return found, not route or _TAKES_EVERYTHING.search(route) is not None


def _own_name(view: str) -> str:
    """Return the name of a view without its module, which names a part of the application."""
    rest, _, last = view[-_LONGEST:].rpartition(".")
    owner = rest.rpartition(".")[2]
    return f"{owner}.{last}" if owner[:1].isupper() else last


@lru_cache(maxsize=2048)
def _of_text(text: str) -> str:
    plain = words(text)
    found = _LOGIN.search(plain)
    if found is not None:
        return found.group()
    # Short words such as `pin` are secrets as a whole name only.
    return mentioned_secret(plain) or next((each for each in _NAME.findall(text) if is_secret(each)), "")
