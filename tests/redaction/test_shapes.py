"""Names apart from their values: forms, markup, tables, quoted addresses, command lines, lines below."""

from __future__ import annotations

import pytest

from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from otel_audit.redaction.text.suspicions import may_hold_secret


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionConfig())


# `ok` stands for what must stay.
CASES = [
    ("sshpass -phunter2 ssh ok", "sshpass -p[redacted] ssh ok"),
    (
        "-[ RECORD 1 ]\nid       | ok\npassword | hunter2\n",
        "-[ RECORD 1 ]\nid       | ok\npassword | [redacted]\n",
    ),
    ("Your password:\n  hunter2\nok", "Your password:\n  [redacted]\nok"),
    (
        '--b\r\nContent-Disposition: form-data; name="password"\r\n\r\nhunter2 horse\r\n--b\r\nContent-Disposition: form-data; name="n"\r\n\r\nok\r\n--b--',  # noqa: E501
        '--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n[redacted]\r\n--b\r\nContent-Disposition: form-data; name="n"\r\n\r\nok\r\n--b--',  # noqa: E501
    ),
    (
        'Content-Disposition: form-data; name="password"\r\nContent-Type: text/plain\r\n\r\nhunter2',
        'Content-Disposition: form-data; name="password"\r\n[redacted]',
    ),
    (
        "Content-Disposition: form-data; name=password\n\nhunter2\nhunter2\n--b",
        "Content-Disposition: form-data; name=password\n\n[redacted]\n--b",
    ),
    (
        'b\'Content-Disposition: form-data; name="password"\\r\\n\\r\\nhunter2\\r\\n--b\\r\\nContent-Disposition: form-data; name="n"\\r\\n\\r\\nok\'',  # noqa: E501
        'b\'Content-Disposition: form-data; name="password"\\r\\n\\r\\n[redacted]\\r\\n--b\\r\\nContent-Disposition: form-data; name="n"\\r\\n\\r\\nok\'',  # noqa: E501
    ),
    ("[(b'authorization', b'Bearer hunter2')]", "[(b'authorization', b'[redacted]')]"),
    (
        "{'headers': [[b'x-api-key', b'hunter2'], [b'cookie', b'sid=hunter2'], [b'host', b'ok']]}",
        "{'headers': [[b'x-api-key', b'[redacted]'], [b'cookie', b'[redacted]'], [b'host', b'ok']]}",
    ),
    ("<password><![CDATA[hunter2x]]></password> ok", "<password><![CDATA[[redacted]]]></password> ok"),
    (
        "<password><![CDATA[hunter2 <b> hunter2]]></password> ok",
        "<password><![CDATA[[redacted]]]></password> ok",
    ),
    ("<input name='password' value='hunter2x'> ok", "<input name='password' value='[redacted]'> ok"),
    ('<input value="hunter2" type="password"> ok', '<input value="[redacted]" type="password"> ok'),
    ("<input type=password value=hunter2> ok", "<input type=password value=[redacted]> ok"),
    (
        '<input name=\\"password\\" value=\\"hunter2\\"> ok',
        '<input name=\\"password\\" value=\\"[redacted]\\"> ok',
    ),
    ('<meta name="csrf-token" content="hunter2"> ok', '<meta name="csrf-token" content="[redacted]"> ok'),
    ('<add key="ApiKey" value="hunter2"/> ok', '<add key="ApiKey" value="[redacted]"/> ok'),
    ('<entry key="password">hunter2</entry> ok', '<entry key="password">[redacted]</entry> ok'),
    ('<textarea name="secret">hunter2</textarea> ok', '<textarea name="secret">[redacted]</textarea> ok'),
    ("password: correct hunter2 battery staple", "password: [redacted]"),
    ("ok\npassword = correct hunter2 battery\nuser = ok", "ok\npassword = [redacted]\nuser = ok"),
    ("PASSWORD=correct hunter2 battery", "PASSWORD=[redacted]"),
    ("?user=ok&password=my hunter2 word&next=ok", "?user=ok&password=[redacted]&next=ok"),
    ("password\n hunter2", "password\n [redacted]"),
    ("ok\npassword\n    hunter2\nok", "ok\npassword\n    [redacted]\nok"),
    ("Password:\n  hunter2\nok", "Password:\n  [redacted]\nok"),
    ("Password:\nhunter2\nok: ok", "Password:\n[redacted]\nok: ok"),
    ("password: |\n  hunter2\n  hunter2\nuser: ok", "password: |\n  [redacted]\nuser: ok"),
    ("a:\n  password: >-\n    hunter2\n    hunter2\n  b: ok", "a:\n  password: >-\n    [redacted]\n  b: ok"),
    ("credentials:\n  user: x\n  password: hunter2\nb: ok", "credentials:\n  [redacted]\nb: ok"),
    ('"password":\n   "hunter2", "n": "ok"', '"password":\n   "[redacted]", "n": "ok"'),
    ("tool -password hunter2 ok", "tool -password [redacted] ok"),
    ("curl -u bob:hunter2 https://ok", "curl -u bob:[redacted] https://ok"),
    ("curl -sSu bob:hunter2 https://ok", "curl -sSu bob:[redacted] https://ok"),
    ("curl --user=bob:hunter2 https://ok", "curl --user=bob:[redacted] https://ok"),
    ("mysql -uok -phunter2 ok", "mysql -uok -p[redacted] ok"),
    ("mysqldump -u ok -p'hunter2' ok", "mysqldump -u ok -p'[redacted]' ok"),
    ("sshpass -p hunter2 ssh ok", "sshpass -p [redacted] ssh ok"),
    ("redis-cli -a hunter2 ok", "redis-cli -a [redacted] ok"),
    ("password%3Dhunter2", "password%3D[redacted]"),
    ("x=password%3Dhunter2%26n%3Dok", "x=password%3D[redacted]%26n%3Dok"),
    ("%70assword%3Dhunter2&n=ok", "%70assword%3D[redacted]&n=ok"),
    (
        "next=%252Flogin%253Fpassword%253Dhunter2%2526n%253Dok",
        "next=%252Flogin%253Fpassword%253D[redacted]%2526n%253Dok",
    ),
    ("next%3D%2Flogin%3Ftoken%3Dhunter2", "next%3D%2Flogin%3Ftoken%3D[redacted]"),
    (
        "data=%7B%22password%22%3A%20%22hunter2%22%2C%22n%22%3A%22ok%22%7D",
        "data=%7B%22password%22%3A%20%22[redacted]%22%2C%22n%22%3A%22ok%22%7D",
    ),
    (
        "data=%257B%2522password%2522%253A%2522hunter2%2522%252C%2522n%2522%253A%2522ok%2522%257D",
        "data=%257B%2522password%2522%253A%2522[redacted]%2522%252C%2522n%2522%253A%2522ok%2522%257D",
    ),
    ("Password：hunter2", "Password：[redacted]"),
    ("Mot de passe : hunter2 horse", "Mot de passe : [redacted]"),
    ("API key: hunter2 horse", "API key: [redacted]"),
    ("user ok, mot de passe: hunter2", "user ok, mot de passe: [redacted]"),
    ("clé d'accès : hunter2", "clé d'accès : [redacted]"),
    ("Clé d’accès: hunter2", "Clé d’accès: [redacted]"),
    ("ok, password -> hunter2", "ok, password -> [redacted]"),
    ("her password is hunter2x ok", "her password is [redacted] ok"),
    ("the token was 2hunter2& ok", "the token was [redacted]& ok"),
    ("ok, password: hunter2&hunter2", "ok, password: [redacted]"),
    (
        "MultiDict([('password', ['hunter2', 'hunter2']), ('n', 'ok')])",
        "MultiDict([('password', [redacted]), ('n', 'ok')])",
    ),
    ("[('token', ('hunter2',)), ('n', 'ok')]", "[('token', [redacted]), ('n', 'ok')]"),
    ("&lt;password&gt;hunter2&lt;/password&gt; ok", "&lt;password&gt;[redacted]&lt;/password&gt; ok"),
    (
        "&amp;lt;ns:token&amp;gt;hunter2&amp;lt;/ns:token&amp;gt;",
        "&amp;lt;ns:token&amp;gt;[redacted]&amp;lt;/ns:token&amp;gt;",
    ),
    ("password\thunter2", "password\t[redacted]"),
    ("user\tok\npassword\thunter2\nn\tok", "user\tok\npassword\t[redacted]\nn\tok"),
    ("| password | hunter2 |", "| password | [redacted] |"),
    ("user     | ok\npassword | hunter2\n", "user     | ok\npassword | [redacted]\n"),
    ("│ token │ hunter2 │", "│ token │ [redacted] │"),
    ("PRAGMA key = 'hunter2'; ok", "PRAGMA key = '[redacted]'; ok"),
    ("PRAGMA hexrekey='hunter2'", "PRAGMA hexrekey='[redacted]'"),
    ("smbclient //ok/ok -U 'ok%hunter2'", "smbclient //ok/ok -U 'ok%[redacted]'"),
    ("mongosh -u ok -p hunter2 ok", "mongosh -u ok -p [redacted] ok"),
    ("パスワード password： hunter2", "パスワード password： [redacted]"),
    ("password＝hunter2", "password＝[redacted]"),
    (
        "+----+----------+\n| id | password |\n+----+----------+\n| ok | hunter2  |\n| ok | hunter2 x |\n+----+----------+\nok",  # noqa: E501
        "+----+----------+\n| id | password |\n+----+----------+\n| ok | [redacted]  |\n| ok | [redacted] |\n+----+----------+\nok",  # noqa: E501
    ),
    (
        " id | password \n----+----------\n ok | hunter2\n ok | hunter2\n(2 rows)\n",
        " id | password \n----+----------\n ok | [redacted]\n ok | [redacted]\n(2 rows)\n",
    ),
    (
        "| id | password |\n|----|----------|\n| ok | hunter2 |\n",
        "| id | password |\n|----|----------|\n| ok | [redacted] |\n",
    ),
    (" password \n----------\n hunter2\n(1 row)\n", " password \n----------\n [redacted]\n(1 row)\n"),
    ("id,password\nok,hunter2\nok,hunter2\n", "id,password\nok,[redacted]\nok,[redacted]\n"),
    ("id\tpassword\nok\thunter2\n", "id\tpassword\nok\t[redacted]\n"),
    (
        "NAME    TOKEN      AGE\nok      hunter2    ok\nok      hunter2    ok\n",
        "NAME    TOKEN      AGE\nok      [redacted]    ok\nok      [redacted]    ok\n",
    ),
    (
        "│ id │ password │\n├────┼──────────┤\n│ ok │ hunter2 │",
        "│ id │ password │\n├────┼──────────┤\n│ ok │ [redacted] │",
    ),
    ("password=[redacted]hunter2&n=ok", "password=[redacted]&n=ok"),
    ("password=[redacted]hunter2", "password=[redacted]"),
    ("Cookie: [redacted]; sessionid=hunter2", "Cookie: [redacted]"),
    ("Authorization: [redacted] Bearer hunter2", "Authorization: [redacted]"),
    ("password='[redacted]hunter2' ok", "password='[redacted]' ok"),
    ("DETAIL:  Key (key)=(hunter2) already exists.", "DETAIL:  Key (key)=([redacted]) already exists."),
    (
        "DETAIL:  Key (user_id, token)=(ok, hunter2) already exists.",
        "DETAIL:  Key (user_id, token)=(ok, [redacted]) already exists.",
    ),
    (
        "DETAIL:  Key (lower(token::text))=(hunter2) already exists.",
        "DETAIL:  Key (lower(token::text))=([redacted]) already exists.",
    ),
    (
        'DETAIL:  Key (token)=(hunter2, with (brackets)) is not present in table "ok".',
        'DETAIL:  Key (token)=([redacted]) is not present in table "ok".',
    ),
    ("Duplicate entry 'hunter2' for key 'u.token'", "Duplicate entry '[redacted]' for key 'u.token'"),
    (
        "Duplicate entry 'hunter2' for key 'authtoken_token.PRIMARY'",
        "Duplicate entry '[redacted]' for key 'authtoken_token.PRIMARY'",
    ),
    (
        "Duplicate entry 'hunter'2' for key 'u.uniq_api_key'",
        "Duplicate entry '[redacted]' for key 'u.uniq_api_key'",
    ),
    (
        "Data truncation: Incorrect string value: 'hunter2' for column 'password' at row 1",
        "Data truncation: Incorrect string value: '[redacted]' for column 'password' at row 1",
    ),
    ("next=https%3A%2F%2Fbob%3Ahunter2%40ok%2Fx", "next=https%3A%2F%2F[redacted]%40ok%2Fx"),
    ("next=https%253A%252F%252Fbob%253Ahunter2%2540ok", "next=https%253A%252F%252F[redacted]%2540ok"),
    ('"https:\\/\\/bob:hunter2@ok\\/x"', '"https:\\/\\/[redacted]@ok\\/x"'),
    ("docker login -p hunter2 ok", "docker login -p [redacted] ok"),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=lambda value: repr(value[:40]))
def test_secrets_go_and_the_rest_stays(redactor: Redactor, text: str, expected: str) -> None:
    assert redactor.text(text) == expected
    assert redactor.text(expected) == expected, "redacting twice is redacting once"
    assert "hunter" not in expected


@pytest.mark.parametrize(
    "text",
    [
        "username\npassword\nemail\n",
        "if password:\n    return False",
        "class Token:\n    def __init__(self): ...",
        "docker run -p 8080:80 -u 1000:1000 image",
        "ssh -p 22 host; mkdir -p a/b",
        "GET /x?token=%s HTTP/1.1",
        "reset/<token>/ and reset/<str:token>",
        "<input name='password' value=''> <input name='csrf' value='{{ csrf_token }}'>",
        "<input type='text' name='q' value='shoes'>",
        "| name | price |\n|---|---|\n| token ring | 5 |",
        "name,price\npassword book,5",
        "| setting | meaning |\n|---|---|\n| OTEL_TOKEN | what senders show |\n| OTEL_HOST | where |",
        "Order shipped\nKeyboard, mouse\nMonkey, donkey",
        "Key (id)=(7) already exists.",
        "Duplicate entry 'ann@example.org' for key 'users.email'",
        "next=%2Forders%2F%3Fpage%3D2",
        "a price of 5 - and the key - on the table",
        'Content-Disposition: form-data; name="city"\r\n\r\nKyoto\r\n--b--',
        "time：10 place：Kyoto",
        "Password reset completed\n Thank you",
        "the password is too short, the token is invalid, the key was 12 characters",
        "password is 12 characters, token is v2",
        "x->token->value, n -> 5",
        "price\t5\nkey\tvalue",
        "| password | email |\n|---|---|",
        "&lt;b&gt;bold&lt;/b&gt; &lt;code&gt;x&lt;/code&gt;",
        "PRAGMA key_count = 5; PRAGMA journal_mode = 'wal'",
        "R&D: AT&T, key: value",
    ],
)
def test_what_only_looks_like_it_is_the_same_object(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) is text


@pytest.mark.parametrize(
    "number", ["4111 1111 1111 1111", "378282246310005", "DE89 3704 0044 0532 0130 00", "NO9386011117947"]
)
@pytest.mark.parametrize("before", [0, 40, 80, 400])
def test_a_number_is_found_in_a_long_text_as_in_a_short_one(number: str, before: int) -> None:
    text = "lorem ipsum 2026 " * (before // 17) + f"paid with {number} today"
    assert may_hold_secret(text)
    assert number not in Redactor(RedactionConfig()).text(text)
    assert not may_hold_secret("lorem ipsum 20261129 12:00 1234-5678 " * 9)
