"""What a record shows of a body: enough to see what was asked, within its limit, and no secret of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from otel_audit.config.model import AuditConfig, PlaceRules, RedactionConfig
from otel_audit.http.contents import Body, Contents

MASK = "[redacted]"
LIMIT = 4096
contents = Contents.of(AuditConfig())


def of_json(value: Any, limit: int = LIMIT, **more: Any) -> Body:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return contents.body(content, "application/json", limit, **more)


def test_json_stays_json_and_loses_what_is_secret_by_name_and_by_value() -> None:
    order = {
        "id": 7,
        "password": "x1",
        "lines": [{"sku": "A", "api_key": {"nested": "x2"}}],
        "note": "card 4111 1111 1111 1111",
        "paid": True,
    }
    assert of_json(order).value == {
        "id": 7,
        "password": MASK,
        "lines": [{"sku": "A", "api_key": MASK}],
        "note": f"card {MASK}",
        "paid": True,
    }


@pytest.mark.parametrize(
    "type_", ["application/json", "application/problem+json; charset=utf-8", "text/json"]
)
def test_every_media_type_of_json_is_known(type_: str) -> None:
    assert contents.body(b'{"a": 1}', type_, LIMIT).value == {"a": 1}


def test_long_texts_inside_are_cut_and_the_body_says_so() -> None:
    shown = of_json({"title": "Order", "notes": "word " * 4000, "token": "x"})
    assert isinstance(shown.value, dict)
    assert shown.value["title"] == "Order"
    assert shown.value["token"] == MASK
    assert str(shown.value["notes"]).endswith("… (20000 characters)")
    assert (shown.cut, shown.size) == ("1 text", 20045)


def test_long_lists_are_shortened_and_say_how_long_they_were() -> None:
    shown = of_json({"ids": list(range(3000))})
    assert isinstance(shown.value, dict)
    ids = shown.value["ids"]
    assert isinstance(ids, list)
    assert ids[:3] == [0, 1, 2]
    assert ids[-1] == "… (3000 items)"
    assert shown.cut == "2000 items"


def test_deep_nesting_is_shortened() -> None:
    deep: Any = "core"
    for _ in range(40):
        deep = {"in": deep}
    shown = of_json({"top": 1, "deep": deep})
    assert isinstance(shown.value, dict)
    assert shown.value["top"] == 1
    assert shown.cut == "more than 24 levels"
    assert "core" not in str(shown.value)


def test_the_beginning_of_a_document_is_shown_as_far_as_it_is_whole() -> None:
    document = json.dumps({"first": 1, "items": [{"n": i, "secret": "x9"} for i in range(9)]}).encode()
    for end in range(2, len(document)):
        shown = of_json(document[:end], size=len(document))
        assert isinstance(shown.value, dict), document[:end]
        assert "x9" not in json.dumps(shown.value)
        assert shown.cut == "the end"
    assert shown.value == {"first": 1, "items": [{"n": i, "secret": MASK} for i in range(9)]}


def test_a_beginning_of_unknown_length_is_shown_as_one() -> None:
    shown = of_json(b'{"first": 1, "next": [1, 2', whole=False)
    assert shown == Body({"first": 1, "next": [1]}, None, "the end", "application/json")
    assert contents.body(b"one two thr", "text/plain", LIMIT, whole=False).cut == "the end"


def test_of_a_text_that_is_cut_off_no_half_token_is_shown() -> None:
    shown = of_json(b'{"note": "see ghp_A1b2C3d4E5A1b2C3', size=5000)
    assert shown.value == {"note": "see…"}


@pytest.mark.parametrize(
    "beginning",
    [
        b'{"a": [{"value": "x7secret7x", "n": [1, 2',
        b'[["authorization", "x7secret7x"], ["acce',
        b'[["authorization", "x7secret7x"], ["accept", "a"], ["b"',
        b'[["authorization", "x7secret7x"], [',
        b'{"headers": [["cookie", ["x7secret7x", "b"',
        b'{"password": {"deep": ["x7secret7x", ',
        b'[["authorization", "x7secret7x',
    ],
)
def test_a_name_that_was_cut_off_from_its_value_does_not_show_the_value(beginning: bytes) -> None:
    assert "x7secret" not in json.dumps(of_json(beginning, size=9999).value)


def test_broken_json_is_shown_as_text_without_secrets() -> None:
    shown = of_json(b'{"user": "ann", "password": "x1y2", }')
    assert shown.value == '{"user": "ann", "password": "[redacted]", }'


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b"NaN", "nan"),
        (b"[1e999, -Infinity]", ["inf", "-inf"]),
        (b'{"a": "\\ud800"}', {"a": "?"}),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        (b"9" * 5000, None),
        (b'"a\x00b\nc"', "a\x00b\nc"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"a": "ü"}'.encode("utf-16"), {"a": "ü"}),
        ('{"a": "ü"}'.encode("utf-32-le"), {"a": "ü"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"4111111111111111", MASK),
    ],
)
def test_odd_documents_become_portable(document: bytes, value: object) -> None:
    shown = of_json(document)
    if value is None:
        assert str(shown.value).startswith("999")
    else:
        assert shown.value == value
    assert msgspec.json.decode(msgspec.json.encode(shown.value)) == shown.value


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 50_000, b"[" * 30_000 + b"]" * 30_000])
def test_nesting_without_end_is_no_recursion(content: bytes) -> None:
    shown = of_json(content)
    assert shown.value is not None
    assert shown.cut


def test_a_form_is_shown_by_field() -> None:
    shown = contents.body(
        b"name=Ann+B&password=x1&tag=a&tag=b&data=%7B%22token%22%3A%22x2%22%7D&empty=",
        "application/x-www-form-urlencoded",
        LIMIT,
    )
    assert shown.value == {
        "name": "Ann B",
        "password": MASK,
        "tag": ["a", "b"],
        "data": '{"token":"[redacted]"}',
        "empty": "",
    }


def multipart(*parts: bytes, boundary: bytes = b"=_b") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--"


FILE = b'Content-Disposition: form-data; name="scan"; filename="id.png"\r\nContent-Type: image/png\r\n\r\n'


def field(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def test_of_multipart_fields_are_shown_and_files_by_name_size_and_type() -> None:
    content = multipart(field(b"name", b"Ann"), field(b"pin", b"1234"), FILE + b"\x89PNG\0secret")
    shown = contents.body(content, 'multipart/form-data; boundary="=_b"', LIMIT)
    assert shown == Body(
        {"name": "Ann", "pin": MASK, "scan": {"file": "id.png", "type": "image/png", "size": 11}},
        len(content),
        "",
        "multipart/form-data",
    )


def test_a_large_file_is_not_looked_through_to_its_end() -> None:
    content = multipart(field(b"name", b"Ann"), FILE + b"x" * 3_000_000, field(b"after", b"b"))
    shown = contents.body(content, "multipart/form-data; boundary==_b", LIMIT)
    assert shown.value == {"name": "Ann", "scan": {"file": "id.png", "type": "image/png"}}
    assert (shown.size, shown.cut) == (len(content), "the end")


def test_a_form_that_was_read_already_is_shown_alike() -> None:
    shown = contents.form(
        [("name", "Ann"), ("token", "x"), ("tag", "a"), ("tag", "b")],
        [("scan", "id.png", 9, "image/png")],
        LIMIT,
        size=400,
    )
    assert shown.value == {
        "name": "Ann",
        "token": MASK,
        "tag": ["a", "b"],
        "scan": {"file": "id.png", "type": "image/png", "size": 9},
    }


def test_xml_is_shown_as_text_without_what_sensitive_elements_hold() -> None:
    document = (
        '<s:Envelope xmlns:s="x"><wsse:Password Type="T">x7s</wsse:Password><credentials><a>x7s</a>'
        "<b><c>x7s</c></b></credentials><member><name>token</name><value><string>x7s</string></value>"
        '</member><input name="password" value="x7s"/><token><![CDATA[x7s]]></token><city>Rome</city>'
        "</s:Envelope>"
    )
    for type_ in ("application/soap+xml", "text/xml; charset=utf-8", "text/html", "application/xml"):
        shown = str(contents.body(document.encode(), type_, LIMIT).value)
        assert "x7s" not in shown
        assert "<city>Rome</city>" in shown


@pytest.mark.parametrize(
    ("content", "type_"),
    [
        ("pässword=a; password=x7s".encode("latin-1"), "text/plain"),
        ("password=x7s".encode("utf-16"), "text/plain; charset=utf-8"),
        ("password=x7s".encode("utf-16-le"), "text/plain"),
        (b"password=x7s", "text/plain; charset=utf-16"),
        (b"password=x7s; a=b", "text/plain; charset=utf-16-be"),
        (b"password=x7s\xe4", "text/plain; charset=utf-16"),
        (b"password=x7s", "text/plain; charset=cp037"),
        (b"password=x7s", "text/plain; charset=gb18030"),
        ("パスワード: password=x7s".encode("iso-2022-jp"), "text/plain; charset=iso-2022-jp"),
        (b"password=x7s", "text/plain; charset=no-such"),
        (b"password=x7s", "text/plain; charset=punycode"),
        (b"password=x7s", "text/plain; charset=base64"),
        (b"pass\0word=x7s\x1b", "text/plain"),
        (b"token,password\nx7s,x7s\n", "text/csv"),
    ],
)
def test_a_wrong_charset_costs_neither_the_body_nor_a_secret(content: bytes, type_: str) -> None:
    shown = contents.body(content, type_, LIMIT)
    assert "x7s" not in str(shown.value)
    assert "\0" not in str(shown.value)
    assert MASK in str(shown.value)


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("grün", "latin-1"),
        ("grün", "windows-1252"),
        ("お茶", "shift_jis"),
        ("お茶", "iso-2022-jp"),
        ("чай", "koi8-r"),
    ],
)
def test_texts_are_read_in_the_charset_they_name(text: str, charset: str) -> None:
    shown = contents.body(f"tea: {text}".encode(charset), f"text/plain; charset={charset}", LIMIT)
    assert shown.value == f"tea: {text}"


@pytest.mark.parametrize(
    ("content", "type_", "more", "why"),
    [
        (b"\x89PNG\r\n", "image/png", {}, "not text"),
        (b"%PDF-1.4", "text/plain", {}, "not text"),
        (b"\x1f\x8b\x08", "application/json", {}, "not text"),
        (b"\x80\x81\x82\x83" * 9, "text/plain", {}, "not text"),
        (b"{}", "", {}, "not text"),
        (b"{}", "application/json", {"content_encoding": "br"}, "content encoding"),
        (b"{}", "application/json", {"content_types": ["text/*"]}, "content type is not listed"),
        (b"a,b", "text/csv", {"content_types": ["text/*", "!text/csv"]}, "content type is not listed"),
        (b"{}", "application/json", {"content_types": []}, "content type is not listed"),
        (b"", "application/json", {"size": 7}, "not kept"),
        (b"", "application/json", {}, ""),
    ],
)
def test_what_is_not_shown_still_says_size_type_and_why(
    content: bytes, type_: str, more: dict[str, Any], why: str
) -> None:
    shown = contents.body(content, type_, LIMIT, **more)
    assert shown == Body(None, more.get("size", len(content)), why, type_)


@pytest.mark.parametrize("limit", [0, 1, 10, 40, 100, 700])
@pytest.mark.parametrize(
    ("content", "type_"),
    [
        (json.dumps({"text": "é" * 900, "list": list(range(900))}).encode(), "application/json"),
        (json.dumps({"é" * 300 + str(i): [[[i]]] for i in range(300)}).encode(), "application/json"),
        (b'{"passage": "' + b"x" * 900, "application/json"),
        (('"\\é' * 400).encode(), "text/plain"),
        (b"a=b&" * 400, "application/x-www-form-urlencoded"),
        (multipart(*[FILE + b"x"] * 30, field(b"a" * 300, b"b" * 900)), "multipart/form-data; boundary==_b"),
    ],
)
def test_no_body_is_longer_than_its_limit(content: bytes, type_: str, limit: int) -> None:
    shown = contents.body(content, type_, limit)
    assert shown.value is None or len(msgspec.json.encode(shown.value)) <= limit
    assert shown.cut or limit == 0


def test_what_a_body_costs_does_not_depend_on_its_size() -> None:
    class Counting(bytes):
        """Says how far it was read."""

        read = 0

        def __getitem__(self, index: Any) -> Any:
            part = super().__getitem__(index)
            Counting.read += len(part) if isinstance(part, bytes) else 1
            return part

    million = b'{"notes": "' + b"word " * 20_000_000 + b'"}'  # 100 MB
    shown = contents.body(Counting(million), "application/json", LIMIT)
    assert shown.size == len(million)
    assert isinstance(shown.value, dict)
    assert str(shown.value["notes"]).startswith("word word")
    assert Counting.read <= contents.worth_keeping(LIMIT)


def test_attributes_have_the_names_of_the_conventions() -> None:
    shown = of_json({"ids": list(range(3000))})
    assert shown.attributes("request") == {
        "http.request.body.size": 16899,
        "request.body": shown.value,
        "request.body.cut": "2000 items",
    }
    assert contents.body(b"", "", LIMIT).attributes("response") == {"http.response.body.size": 0}


def test_bodies_have_rules_of_their_own() -> None:
    redaction = RedactionConfig(
        names=["nickname"],
        allow=["pin"],
        bodies=PlaceRules(names=["pin", "diary"], values=[r"KD-\d+"], allow=["nickname", "password"]),
    )
    own = Contents.of(AuditConfig(redaction=redaction))
    shown = own.body(
        b'{"nickname": "a", "pin": "1", "diary": "b", "password": "c", "id": "KD-7"}',
        "application/json",
        LIMIT,
    )
    assert shown.value == {"nickname": "a", "pin": MASK, "diary": MASK, "password": "c", "id": MASK}
    assert own.query("nickname=a&pin=1&diary=b&id=KD-7") == "nickname=[redacted]&pin=1&diary=b&id=KD-7"
