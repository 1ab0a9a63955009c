"""Secrets in free text, beside their names, by their shape, in SQL; and texts that must stay as they are."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.config.model import RedactionConfig
from otel_audit.errors import ConfigurationError
from otel_audit.redaction import Redactor
from otel_audit.redaction.text.patterns import UUID, is_card_number, is_uuid
from otel_audit.redaction.text.suspicions import may_hold_secret
from tests.redaction.test_names import SECRET

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"
BASIC = base64.b64encode(b"bob:hunter2").decode()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIhunter2\nabc=\n-----END RSA PRIVATE KEY-----"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionConfig())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2&page=1", "password=[redacted]&page=1"),
        ("/login?user=bob&password=hunter2#top", "/login?user=bob&password=[redacted]#top"),
        ("Login(token=UUID('c0ffee00-aaaa'), x=1)", "Login(token=[redacted], x=1)"),
        ("{'password': Secret('hunter2'), 'user': 'bob'}", "{'password': [redacted], 'user': 'bob'}"),
        ("f(token=first('a', then(\"hunter2\")), user='bob')", "f(token=[redacted], user='bob')"),
        ("password=Secret('hunter2", "password=[redacted]"),
        ("said password=Some(hunter2) next", "said password=[redacted] next"),
        (
            r"user\u003dbob \u0026password\u003dhunter2 end",
            r"user\u003dbob \u0026password\u003d[redacted] end",
        ),
        (
            "(0.001) UPDATE u SET token = 'hunter2'; args=('hunter2', 1); alias=default",
            "(0.001) UPDATE u SET token = '[redacted]'; args=[redacted]; alias=default",
        ),
        (
            "QUERY = 'UPDATE u SET token = %s' - PARAMS = ('hunter2',)",
            "QUERY = 'UPDATE u SET token = %s'[redacted]'",
        ),
        ("('UPDATE u SET token = %s', ['hunter2'])", "('UPDATE u SET token = %s'[redacted]'"),
        ("UPDATE u SET name = %s; args=('hunter2', 1)", "UPDATE u SET name = %s; args=('hunter2', 1)"),
        (f"at https://hooks.slack.com/services/T{'0' * 8}/B{'0' * 8}/{'x' * 24}", "at https://[redacted]"),
        ("password&#61;hunter2 end", "password&#61;[redacted] end"),
        ("password&#x3D;hunter2 end", "password&#x3D;[redacted] end"),
        ("pass%77ord=hunter2", "pass%77ord=[redacted]"),
        (
            "next=%2Flogin%3Fpassword%3Dhunter2%26a%3D1&b=2",
            "next=%2Flogin%3Fpassword%3D[redacted]%26a%3D1&b=2",
        ),
        ("data=%7B%22password%22%3A%22hunter2%22%7D", "data=%7B%22password%22%3A%22[redacted]%22%7D"),
        ("https://s3/x?X-Amz-Signature=hunter2&n=1", "https://s3/x?X-Amz-Signature=[redacted]&n=1"),
        ('{"password": "hunter2", "n": 1}', '{"password":"[redacted]","n":1}'),
        ('{"p\\u0061ssword": "hunter2"}', '{"password":"[redacted]"}'),
        ('{"credentials": {"a": ["hunter2"]}}', '{"credentials":"[redacted]"}'),
        ("{'password': 'hunter2', 'n': 3}", "{'password': '[redacted]', 'n': 3}"),
        ("{'password': b'hunter2'}", "{'password': b'[redacted]'}"),
        ('cut off: {"n": 1, "password": "hunter2', 'cut off: {"n": 1, "password": "[redacted]'),
        ('\\"password\\": \\"hunter2\\" x', '\\"password\\": \\"[redacted]\\" x'),
        ('User(name="bob", password="hunter2", n=3)', 'User(name="bob", password="[redacted]", n=3)'),
        ("password='hun\\'ter2' rest", "password='[redacted]' rest"),
        ("passwords: ['hunter2', 'b'] rest", "passwords: [redacted] rest"),
        ('Cookie: a=b; sessionid=hunter2; m="x"\nHost: h', "Cookie: [redacted]\nHost: h"),
        (
            "curl -H 'Authorization: Bearer hunter2' https://h",
            "curl -H 'Authorization: [redacted]' https://h",
        ),
        ("[('authorization', 'Bearer hunter2')]", "[('authorization', '[redacted]')]"),
        ("mysql --password hunter2 --user bob", "mysql --password [redacted] --user bob"),
        ("<password>hunter2</password>", "<password>[redacted]</password>"),
        ("Server=a;Password=hunter2;Database=x", "Server=a;Password=[redacted];Database=x"),
        ("API key: hunter2 was refused", "API key: [redacted] was refused"),
        ('"card number": "hunter2"', '"card number": "[redacted]"'),
        (
            "DETAIL:  Key (password)=(hunter2) already exists.",
            "DETAIL:  Key (password)=([redacted]) already exists.",
        ),
        ("Failing row contains (1, hunter2, null).\nCONTEXT", "Failing row contains ([redacted]).\nCONTEXT"),
        ("ALTER USER bob WITH PASSWORD 'hunter2'", "ALTER USER bob WITH PASSWORD '[redacted]'"),
        ("postgres://bob:hun@ter2@db/x", "postgres://[redacted]@db/x"),
        ("https://hunter2hunter2@host/", "https://[redacted]@host/"),
        (f"got {JWT} back", "got [redacted] back"),
        (f"sent Basic {BASIC} twice", "sent Basic [redacted] twice"),
        ("sent bearer 7c9e6679hunter2", "sent bearer [redacted]"),
        (f"{PEM} tail", "[redacted] tail"),
        (PEM[:50] + " cut off", "[redacted]"),
        ("AKIAIOSFODNN7EXAMPLE used", "[redacted] used"),
        ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "[redacted]"),
        ("hash pbkdf2_sha256$600000$abc$defg+hij/klm= of bob", "hash [redacted] of bob"),
        ("paid with 4111 1111 1111 1111.", "paid with [redacted]."),
        (
            "go to https://shop.example/accounts/reset/MQ/dis3fd-b5c8f6d3bc1ede3fe879750e209ed4aa/ now",
            "go to https://shop.example/accounts/reset/MQ/[redacted]/ now",
        ),
        (
            "/accounts/password/reset/key/1j-dis3fd-b5c8f6d3bc1ede3fe879750e209ed4aa",
            "/accounts/password/reset/key/[redacted]",
        ),
        (
            "/activate/ImJvYiI:1xXSaf:krfmNlMhapGeepSqY80Jt9A6Fe_dfeqy4Afu4RqH9Og/ for bob",
            "/activate/[redacted]/ for bob",
        ),
        ("amex 378282246310005, mc 5555-5555-5555-4444", "amex [redacted], mc [redacted]"),
    ],
)
def test_secrets_in_text_are_replaced_and_the_rest_stays(
    redactor: Redactor, text: str, expected: str
) -> None:
    assert redactor.text(text) == expected
    assert redactor.text(expected) == expected, "redacting twice is redacting once"


@pytest.mark.parametrize(
    "text",
    [
        "token_count=12&author=bob",
        "order 2026112312345678 placed at 1795450755443016983",
        "1700000000000 1700000000000000 4111111111111112 1234567890123456",
        "a4111111111111111b 550e8400-e29b-41d4-a716-446655440000 1.4111111111111111",
        "basic information about bearer bonds, digest authentication",
        "mail a@b.example, see https://h/?email=a@b.example and http://h:80/x@y",
        "the author: bob, the secretary = ann; passengers: 3",
        "SELECT password FROM auth_user WHERE session_key = %s AND token = $1",
        "password=%(password)s password=? password=None",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0",
        "task-management-in-the-office Asia/Tokyo disk-0123",
        "Grüße aus Köln: 17 Bestellungen",
        "/static/main-dis3fd-b5c8f6d3bc1ede3fe879750e209ed4aa.js",
        "image dis3fd-b5c8f6d3bc1ede3fe879750e209ed4aa",
        "/at/12:345678:90 a:b:c sha256:b5c8f6d3bc1ede3fe879750e209ed4aab5c8f6d3bc1ede3fe879750e209ed4aa",
        "",
    ],
)
def test_a_text_without_a_secret_is_the_same_object(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) is text
    assert redactor.text(text) is text


def test_source_lines_of_a_traceback_stay_readable(redactor: Redactor) -> None:
    text = (
        'Traceback (most recent call last):\n  File "views.py", line 3, in login\n'
        "    token = self.get_token(request)\nValueError: bad token=hunter2"
    )
    assert redactor.text(text) == text.replace("hunter2", "[redacted]")


@pytest.mark.parametrize("name", [name for name in SECRET if name.isascii()])
def test_the_quick_test_never_hides_a_name_that_a_rule_knows(redactor: Redactor, name: str) -> None:
    for text in (
        f"{name}=hunter2",
        f'"{name}": "hunter2"',
        f"--{name.strip(']').replace('[', '-')} hunter2x",
    ):
        assert may_hold_secret(text)
        assert "hunter2" not in redactor.text(text)


@given(st.text(alphabet=" =:&?\"'\\{}[]()<>-%;,@/.$\nab1pasword", max_size=200))
def test_any_text_is_redacted_without_failing_and_a_second_time_changes_nothing(text: str) -> None:
    redactor = Redactor(RedactionConfig())
    redacted = redactor.text(text + " password=hunter2")
    assert "hunter2" not in redacted or "hunter2" in text


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000 + "=",
        " " * 300_000 + "password",
        "password" * 40_000,
        "password='" + "\\" * 300_000,
        "(" * 200_000 + "password=(",
        "eyJ" * 100_000 + ".",
        "4" * 300_000,
        "4111 " * 60_000,
        "://" * 100_000 + "@password=",
        "<password " * 30_000,
        "%3F%26%3D" * 30_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000,
        "select password = '" + "'" * 100_000,
        "basic " * 50_000 + ":",
        "bearer " + "a" * 300_000 + "=" * 1000 + ":",
        "password " * 30_000 + "'",
        "[parameters: password select " * 5_000,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_time_out_of_proportion(redactor: Redactor, text: str) -> None:
    # Quadratic work on 300 000 characters would not end before the suite's timeout.
    assert len(redactor.text(text)) <= len(text) * 2 + 100


def test_own_values_replace_their_groups_only() -> None:
    redactor = Redactor(RedactionConfig(values=[r"patient (\w+), born (\d+)", r"\bDE\d{20}\b"]))
    assert redactor.text("patient Ann, born 1970 pays") == "patient [redacted], born [redacted] pays"
    assert redactor.text("IBAN DE00123412341234123412") == "IBAN [redacted]"
    assert redactor.text("patient unknown") == "patient unknown"


def test_own_values_hold_when_the_builtin_rules_are_off() -> None:
    redactor = Redactor(RedactionConfig(enabled=False, values=["abc+"], names=["iban"], replacement="###"))
    assert redactor.text("abccc password=x iban=DE1") == "### password=x iban=###"


def test_a_value_pattern_that_matches_nothing_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="matches the empty string"):
        Redactor(RedactionConfig(values=["x*"]))


@pytest.mark.parametrize(
    ("digits", "card"),
    [
        ("4111111111111111", True),
        ("4222222222222", True),
        ("378282246310005", True),
        ("30569309025904", True),
        ("6011111111111117", True),
        ("3530111333300000", True),
        ("5555555555554444", True),
        ("2223003122003222", True),
        ("4111111111111112", False),
        ("1234567812345670", False),
        ("2026112312345674", False),
        ("41111111111111", False),
    ],
)
def test_a_card_number_has_an_issuer_a_length_and_a_check_digit(digits: str, card: bool) -> None:
    assert is_card_number(digits) is card


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE u SET name='ok', \"password\"='hunter2' WHERE id=7",
            "UPDATE u SET name='ok', \"password\"='[redacted]' WHERE id=7",
        ),
        (
            "INSERT INTO u (id, password, n) VALUES (1, 'hun''ter2', 'ok'), (2, crypt('hunter2', %s), 0)",
            "INSERT INTO u (id, password, n) VALUES (1, '[redacted]', 'ok'), (2, crypt('[redacted]', %s), 0)",
        ),
        (
            "INSERT INTO u (a, token) SELECT 'ok', 'hunter2' FROM y WHERE b = 'ok'",
            "INSERT INTO u (a, token) SELECT 'ok', '[redacted]' FROM y WHERE b = 'ok'",
        ),
        (
            "UPDATE u SET password = CASE WHEN a AND b THEN 'hunter2' ELSE E'hunter2' END, n='ok'",
            "UPDATE u SET password = CASE WHEN a AND b THEN '[redacted]' ELSE '[redacted]' END, n='ok'",
        ),
        (
            "SELECT 1 FROM u WHERE u.token IN ('hunter2', 'hunter2') AND a = 'ok'",
            "SELECT 1 FROM u WHERE u.token IN ('[redacted]', '[redacted]') AND a = 'ok'",
        ),
        ("SELECT 1 WHERE 'hunter2' = u.token", "SELECT 1 WHERE '[redacted]' = u.token"),
        ("SELECT 'hunter2' AS password, 'ok' AS a", "SELECT '[redacted]' AS password, 'ok' AS a"),
        (
            "UPDATE u SET (a, password) = ('ok', 'hunter2')",
            "UPDATE u SET (a, password) = ('ok', '[redacted]')",
        ),
        ("CREATE USER x IDENTIFIED BY 'hunter2'", "CREATE USER x IDENTIFIED BY '[redacted]'"),
        ("UPDATE u SET password = $$hunter2$$, b = 1", "UPDATE u SET password = '[redacted]', b = 1"),
        ("UPDATE u SET cvv = 123 WHERE id = 7", "UPDATE u SET cvv = '[redacted]' WHERE id = 7"),
        ('UPDATE u SET password = "hunter2"', "UPDATE u SET password = '[redacted]'"),
        ("UPDATE u SET a='C:\\', password='hunter2'", "UPDATE u SET a='C:\\', password='[redacted]'"),
        ("UPDATE u SET a='it\\'s', password='hunter2'", "UPDATE u SET a='it\\'s', password='[redacted]'"),
        (
            'INSERT INTO t (d) VALUES (\'{"password": "hunter2"}\')',
            'INSERT INTO t (d) VALUES (\'{"password":"[redacted]"}\')',
        ),
        ("AUTH default hunter2", "AUTH [redacted]"),
    ],
)
def test_literals_of_sensitive_columns_leave_a_statement(
    redactor: Redactor, statement: str, expected: str
) -> None:
    assert redactor.statement(statement) == expected
    assert redactor.statement(expected) == expected


@pytest.mark.parametrize(
    "statement",
    [
        'SELECT "auth_user"."password" FROM "auth_user" WHERE "auth_user"."id" = %s LIMIT 2',
        "UPDATE u SET password = %(p)s, token = $1, secret = ? WHERE session_key = :key",
        "SELECT a FROM token_counts WHERE author = 'bob' AND token_count = 7",
        "INSERT INTO u (id, password) VALUES (%s, %s) RETURNING id",
    ],
)
def test_a_statement_without_literals_of_sensitive_columns_is_the_same_object(
    redactor: Redactor, statement: str
) -> None:
    assert redactor.statement(statement) is statement


def test_positional_parameters_in_a_driver_error_go_with_their_statement(redactor: Redactor) -> None:
    error = "(x) boom\n[SQL: INSERT INTO u (a, password) VALUES (%s, %s)]\n[parameters: ('ok', 'hunter2')]\n"
    assert redactor.text(error) == error.replace("('ok', 'hunter2')", "[redacted]")


@given(
    st.one_of(st.uuids().map(str), st.uuids().map(lambda each: str(each).upper()), st.text(max_size=40)),
    st.integers(0, 35),
    st.one_of(st.just(""), st.sampled_from(list("0aFg-_ \n")), st.characters()),
)
def test_a_uuid_is_told_from_what_is_nearly_one(text: str, position: int, sign: str) -> None:
    """As the pattern that steps over one within a text does."""
    for each in (text, text[:position] + sign + text[position + 1 :], text + sign):
        assert is_uuid(each) is (re.fullmatch(UUID, each) is not None)
