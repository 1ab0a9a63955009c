"""Attacks: secrets in every place that a record shows, and input that was made to hurt."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_audit.http.contents
from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents, OutputTail
from otel_audit.redaction.repeats import problems

SECRET = "Xq7Zk93Lm2Pw8Rt5"
TOKEN = "ghp_" + "A1b2C3d4E5" * 4
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dBjftJeZ4CVPmB92K27uhbUJU1p1r"
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()
LIMIT = 4096
contents = Contents.of(AuditConfig())

MULTIPART = (
    f'--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n{SECRET}\r\n'
    f'--b\r\nContent-Disposition: form-data; name="doc"\r\n\r\n{{"token": "{SECRET}"}}\r\n'
    f'--b\r\nContent-Disposition: form-data; name="f"; filename="{TOKEN}.txt"\r\n\r\n{SECRET}\r\n--b--'
)


def body(value: Any, type_: str = "application/json") -> Any:
    content = value if isinstance(value, bytes) else value if isinstance(value, str) else json.dumps(value)
    return contents.body(content.encode() if isinstance(content, str) else content, type_, LIMIT)


def deep(value: Any) -> Any:
    for number in range(20):
        value = [value] if number % 2 else {"in": value}
    return value


def chained() -> BaseException:
    try:
        try:
            raise ValueError(f"token={SECRET}")
        except ValueError:
            raise ConnectionError(f"postgres://ann:{SECRET}@db/shop") from None
    except ConnectionError as error:
        return error


PLACES: dict[str, Callable[[], Any]] = {
    "authorization": lambda: contents.headers([("Authorization", f"Token {SECRET}")]),
    "bearer in another header": lambda: contents.headers([("X-Forwarded-Auth", f"Bearer {SECRET}")]),
    "basic": lambda: contents.headers([("X-Sent", f"Basic {BASIC}")]),
    "cookie": lambda: contents.headers([(b"cookie", f"sessionid={SECRET}; a=b".encode())]),
    "set-cookie": lambda: contents.headers([("Set-Cookie", f"sid={SECRET}")]),
    "two of one name": lambda: contents.headers([("Cookie", "a=b"), ("cookie", f"sid={SECRET}")]),
    "x-api-key": lambda: contents.headers([("X-API-Key", SECRET)]),
    "referer": lambda: contents.headers([("Referer", f"https://h/?access_token={SECRET}")]),
    "location": lambda: contents.headers([("Location", f"https://ann:{SECRET}@h/")]),
    "jwt in a header": lambda: contents.headers([("X-Identity", JWT)]),
    "name of a header": lambda: contents.headers([(f"x-{TOKEN}", "a")]),
    "query": lambda: contents.query(f"a=b&password={SECRET}"),
    "encoded name": lambda: contents.query(f"user%5Bpass%77ord%5D={SECRET}"),
    "encoded value": lambda: contents.query(f"next={quote_plus(f'/login?token={SECRET}')}"),
    "twice encoded": lambda: contents.query(f"next={quote_plus(quote_plus(f'/login?token={SECRET}'))}"),
    "json in a query": lambda: contents.query(f"f={quote(json.dumps({'secret': SECRET}))}"),
    "signed address": lambda: contents.url(
        f"https://s3/x?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}"
    ),
    "userinfo": lambda: contents.url(f"https://ann:{SECRET}@h/a"),
    "fragment": lambda: contents.url(f"https://h/cb#access_token={SECRET}&a=b"),
    "token in a path": lambda: contents.url(f"https://h/reset/{TOKEN}/"),
    "json": lambda: body({"a": {"password": SECRET}}),
    "json, list of an object": lambda: body({"credentials": [{"user": SECRET}]}),
    "json, by value": lambda: body({"note": f"see {TOKEN} there"}),
    "json, name beside value": lambda: body({"fields": [{"name": "password", "value": SECRET}]}),
    "json, pairs": lambda: body([["Authorization", SECRET]]),
    "json in json": lambda: body({"payload": json.dumps({"token": SECRET})}),
    "json in json in json": lambda: body({"p": json.dumps({"q": json.dumps({"token": SECRET})})}),
    "json, deep": lambda: body(deep({"api_key": SECRET})),
    "json, too deep": lambda: body(deep(deep(deep({"api_key": SECRET})))),
    "json, a key": lambda: body({TOKEN: 1}),
    "json, twice": lambda: body(f'{{"token": "{SECRET}", "token": "{SECRET}"}}'),
    "json, broken": lambda: body(f'{{"token": "{SECRET}", }}'),
    "json, escaped name": lambda: body(f'{{"p\\u0061ssword": "{SECRET}", }}'.replace(", }", "}")),
    "json with nan": lambda: body(f'{{"a": NaN, "token": "{SECRET}"}}'),
    "json in utf-16": lambda: body(json.dumps({"token": SECRET}).encode("utf-16")),
    "json in latin-1": lambda: body(f'{{"ü": 1, "token": "{SECRET}"}}'.encode("latin-1")),
    "json lines": lambda: body(f'{{"token": "{SECRET}"}}\n{{"token": "{SECRET}"}}', "application/x-ndjson"),
    "graphql": lambda: body({"query": f'mutation {{ login(password: "{SECRET}") {{ id }} }}'}),
    "form": lambda: body(f"a=b&new_password={SECRET}", "application/x-www-form-urlencoded"),
    "json in a form": lambda: body(
        f"payload={quote_plus(json.dumps({'token': SECRET}))}", "application/x-www-form-urlencoded"
    ),
    "multipart": lambda: body(MULTIPART, "multipart/form-data; boundary=b"),
    "soap": lambda: body(f"<e><w:Password T='a'>{SECRET}</w:Password></e>", "application/soap+xml"),
    "xml below": lambda: body(f"<e><secret><a><b>{SECRET}</b></a></secret></e>", "text/xml"),
    "xml-rpc": lambda: body(
        f"<member><name>password</name><value><string>{SECRET}</string></value></member>", "text/xml"
    ),
    "xml attribute": lambda: body(f'<param name="token" value="{SECRET}"/>', "text/xml"),
    "html": lambda: body(f'<input type="password" name="p" value="{SECRET}">', "text/html"),
    "yaml": lambda: body(f"db:\n  password: {SECRET}\n", "application/yaml"),
    "csv": lambda: body(f"name,password\nann,{SECRET}\n", "text/csv"),
    "text": lambda: body(f"your password is {SECRET}.", "text/plain"),
    "text with zeros": lambda: body(f"pass\0word={SECRET}", "text/plain"),
    "argument": lambda: contents.arguments(["--password", SECRET]),
    "argument with =": lambda: contents.arguments([f"--db-password={SECRET} x"]),
    "variable": lambda: contents.arguments([f"AWS_SECRET_ACCESS_KEY={SECRET}"]),
    "mysql": lambda: contents.arguments(["mysql", f"-p{SECRET}"]),
    "address as argument": lambda: contents.arguments([f"--db=postgres://ann:{SECRET}@h/d"]),
    "task, named": lambda: contents.parameters((), {"options": {"token": SECRET}}),
    "task, by position": lambda: contents.parameters((1, SECRET), {}, ("order", "password")),
    "task, in a text": lambda: contents.parameters((f"token={SECRET}",), {}),
    "result": lambda: contents.value({"access_token": SECRET}),
    "exception": lambda: contents.exception(chained()),
    "output": lambda: contents.output(f"\x1b[1mpassword\x1b[0m: {SECRET}\n"),
    "output in colours": lambda: contents.output(f"pass\x1b[31mword={SECRET}"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_found_in_every_place(place: str) -> None:
    shown = json.dumps(PLACES[place](), ensure_ascii=False)
    for secret in (SECRET, TOKEN, JWT, BASIC):
        assert secret not in shown
        assert secret[4:12] not in shown


NAMES = st.sampled_from(["password", "api_key", "refreshToken", "X-Csrf-Token", "client_secret", "cvv"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
DOCUMENTS = st.recursive(
    PLAIN | st.just(f"see {TOKEN} there") | st.just("word " * 300),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(max_size=8), inner, max_size=5)
        | st.tuples(NAMES, st.just(SECRET), inner).map(lambda parts: {"a": parts[2], parts[0]: parts[1]})
        | st.tuples(NAMES, st.just(SECRET)).map(lambda pair: [list(pair)])
        | NAMES.map(lambda name: {"value": SECRET, "note": "n", "name": name})
    ),
    max_leaves=40,
)
TYPES = st.sampled_from(
    [
        "application/json",
        "application/json; charset=latin-1",
        "text/plain",
        "text/plain; charset=utf-16",
        "text/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "multipart/form-data; boundary=",
        "application/octet-stream",
        "",
        ";;;charset=",
    ]
)
LIMITS = st.integers(0, 300) | st.integers(300, 9000)


def check(shown: Any, limit: int) -> None:
    written = msgspec.json.encode(shown.value)
    assert shown.value is None or len(written) <= limit
    assert msgspec.json.decode(written) == shown.value
    assert SECRET.encode() not in written
    assert TOKEN.encode() not in written


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, LIMITS, st.data())
def test_no_document_shows_a_secret_wherever_it_is_cut(
    document: Any, limit: int, data: st.DataObject
) -> None:
    content = json.dumps(document).encode()
    check(contents.body(content, "application/json", limit), limit)
    end = data.draw(st.integers(0, len(content)))
    check(contents.body(content[:end], "application/json", limit, size=len(content)), limit)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    TYPES,
    LIMITS,
)
def test_whatever_comes_costs_no_record(content: bytes, type_: str, limit: int) -> None:
    check(contents.body(content, type_, limit), limit)
    check(contents.body(content, type_, limit, size=10**9), limit)
    text = content.decode("latin-1")
    for shown in (
        contents.headers([(content, content), (text, text)]),
        contents.query(text),
        contents.query(content),
        contents.url(text),
        contents.url(f"https://{text}"),
        contents.arguments([text, content, f"--{text}", f"-p{text}"], secret={"-p"}),
        contents.parameters((text, content), {text: [text]}),
        contents.output(text, limit),
    ):
        msgspec.json.encode(shown)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=300) | st.binary(max_size=300), max_size=30), LIMITS)
def test_whatever_is_printed_is_kept(written: list[str | bytes], limit: int) -> None:
    tail = OutputTail(limit)
    for part in written:
        tail.write(part)
    shown = contents.output(tail.text(), limit, size=tail.size)
    assert len(shown.encode()) <= limit
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


FOLDER = Path(otel_audit.http.contents.__file__).parent


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: file.stem)
def test_no_expression_has_repeats_that_share_characters(file: Path) -> None:
    module = ".".join(("otel_audit.http.contents", *file.relative_to(FOLDER).with_suffix("").parts))
    names = vars(__import__(module, fromlist=["*"])) if file.stem != "__init__" else {}
    for name, value in names.items():
        if isinstance(value, re.Pattern):
            assert problems(value.pattern, value.flags) == [], name
