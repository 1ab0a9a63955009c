"""Secrets go in through every door; the raw bytes of spool, wire and store are searched for them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx

from otel_audit.store.local_tokens import find
from tests.e2e.browser import Visitor, logged_in, story
from tests.e2e.recording_proxy import RecordingProxy
from tests.e2e.running import Shop, Store, eventually, prepared_shop, running_store

FORM = {
    name: f"s3cr3t-{name.replace('_', '-')}-q7x"
    for name in (
        "span_name", "sql", "attribute", "list_attribute", "userinfo", "key", "event", "query",
        "status", "link", "dropped_field", "password_column", "reason", "message", "old_value", "new_value",
        "own_attribute", "nested", "exception",
    )
} | {
    # These are known by their value (Luhn), or shown in part by the shop's own configuration.
    "card_in_exception": "4000056655665556",
    "bulk_update": "5200828282828210",
    "bulk_create": "378282246310005",
    "masked_field": "+49 30 90182 4711",
}  # fmt: skip
ELSEWHERE = {
    "failed login": "s3cr3t-failed-login-q7x",
    "query string": "s3cr3t-query-string-q7x",
    "header": "s3cr3t-header-q7x",
    "bearer": "s3cr3t-bearer-q7x",
    "cookie": "s3cr3t-cookie-q7x",
    "user agent": "s3cr3t-user-agent-q7x",
    "form of the admin": "4012888888881881",
    "e-mail address": "ana.secret.q7x@example.com",
}
SEEDED_BEFORE = {"card of Ana": "4242 4242 4242 4242", "card of Noor": "5555 5555 5555 4444"}
CANARY = "canary-of-the-order"


def act(shop: Shop) -> None:
    """Take every secret through the shop."""
    with httpx.Client(base_url=shop.url, timeout=30) as http:
        http.get("/", params={"token": ELSEWHERE["query string"], "tag": "green"})
        http.get(
            "/",
            headers={
                "Authorization": f"Bearer {ELSEWHERE['bearer']}",
                "X-Api-Key": ELSEWHERE["header"],
                "Cookie": f"sessionid={ELSEWHERE['cookie']}",
                "User-Agent": f"robot/1.0 (token={ELSEWHERE['user agent']})",
            },
        )
    stranger = Visitor("ana", shop.url, "203.0.113.7", "curl", lambda _who, _what: None)
    stranger.login(ELSEWHERE["failed login"])
    stranger.close()
    with logged_in("mia", shop.url) as mia:
        mia.fill("/admin/shop/card/1/change/", card_number=ELSEWHERE["form of the admin"])
        mia.fill("/desk/customers/1/", email=ELSEWHERE["e-mail address"])
        mia.get("/desk/customers/1/card/")
    with logged_in("ana", shop.url) as ana:
        assert ana.buy(CANARY, cape_rooibos=1)
        ana.post("/leak/", expect=500, **FORM)


def found(where: str, content: bytes, sessions: list[str]) -> list[str]:
    """Name every secret in ``content``, as text or as UTF-16, escaped or not."""
    secrets = FORM | ELSEWHERE | SEEDED_BEFORE | {f"session {n}": key for n, key in enumerate(sessions)}
    secrets |= {"password of everyone": story.PASSWORD, "hash of a password": "pbkdf2_sha256$"}
    compact = content.replace(b" ", b"").replace(b"-", b"")
    hits = []
    for name, secret in secrets.items():
        digits = secret.replace(" ", "").replace("-", "")
        forms = {secret.encode(), secret.encode("utf-16-le")}
        if any(form in content for form in forms) or (digits.isdigit() and digits.encode() in compact):
            hits.append(f"{name} in {where}")
    return hits


def tree(directory: Path) -> bytes:
    """Return every byte of every file below ``directory``."""
    return b"\n".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def dump(store: Store) -> bytes:
    """Return every column of every row of the store, uncompressed."""
    tables = ("audit_events", "otel_logs", "otel_traces")
    address = urlsplit(store.url)
    token = {"Authorization": f"Bearer {find(address.hostname or '', address.port or 0)}"}
    with httpx.Client(base_url=store.url, headers=token, timeout=60) as http:
        answers = [http.post("/", content=f"SELECT * FROM otel.{table} FORMAT TSVRaw") for table in tables]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    return b"\n".join(answer.content for answer in answers)


def sessions_of(shop: Shop) -> list[str]:
    """Return the keys of all sessions: whoever has one is logged in."""
    listing = shop.manage(
        "shell",
        "-c",
        "from django.contrib.sessions.models import Session\n"
        "print('\\n'.join(Session.objects.values_list('session_key', flat=True)))",
    )
    return [line for line in listing.split() if len(line) == 32 and line.isalnum()]


def hits_after(directory: Path, **environment: str) -> list[str]:
    """Take every secret through a shop and search everything it left behind."""
    # For those who want every header in their spans.
    environment |= {
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": ".*",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": ".*",
    }
    with running_store(directory) as store:
        proxy = RecordingProxy(store.http_port)
        with (
            proxy.running(),
            prepared_shop(directory, proxy.url, settings="leaky.settings", environment=environment) as shop,
        ):
            proxy.refused.add("/v1/audit")  # so that everything is in the spool at once
            shop.start()
            act(shop)
            eventually(lambda: b"the bank refused card" in proxy.wire("/v1/traces"), "the spans are sent")
            spool = tree(shop.spool)
            proxy.refused.clear()
            eventually(lambda: shop.spool_status()["waiting"] == 0, "the records are sent")
            shop.stop()
            sessions = sessions_of(shop)
        rows = dump(store)
        store.stop()
        files = tree(store.directory / "store")

    assert len(sessions) >= 2
    for where, content in {"spool": spool, "wire": proxy.wire("/v1/audit"), "store": rows}.items():
        assert CANARY.encode() in content, f"nothing can be found in the {where}"
        assert b"shop.card.verified" in content
    assert b"calling the bank" in proxy.wire("/v1/traces")
    everywhere = {"spool": spool, "wire": proxy.wire(), "store": rows, "files of the store": files}
    return [hit for where, content in everywhere.items() for hit in found(where, content, sessions)]


def test_no_secret_is_in_the_bytes_of_spool_wire_or_store(tmp_path: Path) -> None:
    """Model fields, failed login, URL, SQL in a span, exception, header, own record: none gets through."""
    assert hits_after(tmp_path) == []


def test_the_search_finds_the_secrets_where_the_rules_are_off(tmp_path: Path) -> None:
    """Without the rules nearly every path leaks: the test above would see it."""
    hits = hits_after(tmp_path, OTEL_AUDIT_REDACTION_ENABLED="false")
    leaking = {
        "sql",
        "exception",
        "header",
        "cookie",
        "query string",
        "password_column",
        "nested",
        "session 0",
    }
    assert leaking <= {hit.partition(" in ")[0] for hit in hits}
    assert {hit.partition(" in ")[2] for hit in hits} == {"spool", "wire", "store", "files of the store"}
