"""A secret beside what could be taken for it, or right behind an escape, is found as if it stood alone."""

from __future__ import annotations

import pytest

from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from tests.redaction.leaks import BY_SHAPE

REDACTOR = Redactor(RedactionConfig())
ESCAPES = [r"\n", r"\r\n", r"\t", r"\\n", r"\x1b[31m", "\x1b[1;31m", r"\u00a0", r"\x00", r"\0"]
"""As `repr`, JSON and terminals write what is no character of a name or a token."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('password= token="hunter2" n=3', 'password= [redacted]"[redacted]" n=3'),
        ("token:sessionid='hunter2'", "token:[redacted]'[redacted]'"),
        ("no token given 'password': 'hunter2'", "no token given '[redacted]': '[redacted]'"),
        ("token 'password': 'hunter2'", "token '[redacted]': '[redacted]'"),
        ('token:\n"password": "hunter2"', 'token:\n"[redacted]": "[redacted]"'),
        ("password: abc /login?token=hunter2", "password: [redacted]"),
        ('token%3Dabc; "password": "hunter2"', 'token%3D[redacted] "[redacted]": "[redacted]"'),
        ("password= --token hunter2", "password= --token [redacted]"),
        ("token= curl -u bob:hunter2 https://h", "token= [redacted] bob:[redacted] https://h"),
        ("bearer token='hunter2'", "bearer token='[redacted]'"),
        ("bearer sessionid=hunter2", "bearer sessionid=[redacted]"),
        ("UPDATE u SET a = 'b'; token%3Dhunter2", "UPDATE u SET a = 'b'; token%3D[redacted]"),
    ],
)
def test_a_name_taken_for_a_value_still_has_its_own(text: str, expected: str) -> None:
    assert REDACTOR.text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('password "hunter2": too short', 'password "[redacted]": too short'),
        ("it said password=hunter2: ok", "it said password=[redacted] ok"),
        ('{"a": "Bearer YWJjZGVm1=="}', '{"a": "Bearer [redacted]"}'),
        ("'Bearer YWJjZGVm1=' sent", "'Bearer [redacted]' sent"),
    ],
)
def test_what_only_looks_like_a_name_takes_nothing_along(text: str, expected: str) -> None:
    assert REDACTOR.text(text) == expected


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize(
    "text",
    [
        *("token=hunter2x", "'token': 'hunter2x'", "--token hunter2x", "token%3Dhunter2x", "bearer hunter2x"),
        *("API key: hunter2x", "curl -u bob:hunter2x https://h", "UPDATE u SET token='hunter2x'"),
        *("Authorization: Bearer hunter2x", "postgres://bob:hunter2x@db/x", "pass=hunter2x"),
    ],
)
def test_a_secret_right_behind_an_escape_is_found(escape: str, text: str) -> None:
    for given in (f"a{escape}{text}", f"a{escape}{text}{escape}b", f"x: b'GET /{escape}{text}{escape}'"):
        assert "hunter2x" not in REDACTOR.text(given), given


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("name", BY_SHAPE)
def test_a_token_right_behind_an_escape_is_found(escape: str, name: str) -> None:
    secret = BY_SHAPE[name]
    assert secret not in REDACTOR.text(f"a{escape}{secret}")
    assert secret not in REDACTOR.text(f"a{escape}{secret}{escape}b")


@pytest.mark.parametrize(
    "text",
    [
        r"C:\temp\new\readme.txt said bearer of news",
        r"re \bsecretary\b and \ntoken count\n",
        r"line\nauthor=bob\ncode=7",
        "\x1b[31merror\x1b[0m key of the map",
    ],
)
def test_escapes_alone_change_nothing(text: str) -> None:
    assert REDACTOR.text(text) is text


def test_a_name_of_its_own_behind_a_backslash_counts_as_well() -> None:
    assert REDACTOR.text(r"C:\new\token=hunter2") == r"C:\new\token=[redacted]"


def test_line_breaks_that_a_text_has_stay() -> None:
    text = "a\x1db\x1cc\x1e \\ntoken=hunter2 d\x1f\x85\u2028e"
    assert REDACTOR.text(text) == text.replace("hunter2", "[redacted]")
