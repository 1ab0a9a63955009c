"""A visitor: a browser with cookies, from some address, who fills in forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from typing import Any

import httpx

BROWSERS = {
    "firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "safari": "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
    "edge": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Edg/142.0",
    "scanner": "ParcelScanner/2.1",
    "curl": "curl/8.15.0",
}
Told = Callable[[str, str], None]
"""Hears who does what."""


class _Fields(HTMLParser):
    """The values a form comes with: what a browser would send back if nothing were changed."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._select = ""
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "input" and name and given.get("type") not in ("submit", "checkbox", "button"):
            self.values.setdefault(name, given.get("value") or "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in given:
            self.values.setdefault(self._select, given.get("value") or "")
        elif tag == "textarea" and name:
            self._text = name
            self.values.setdefault(name, "")

    def handle_data(self, data: str) -> None:
        if self._text:
            self.values[self._text] += data.removeprefix("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._text = ""


class Visitor:
    """One person at one browser.

    The demo plays the reverse proxy as well, and so appends the visitor's address to ``X-Forwarded-For``,
    as a proxy does: that is why the shop runs with ``trusted_proxies = 1``.
    """

    def __init__(self, name: str, base_url: str, address: str, browser: str, told: Told) -> None:
        self.name = name
        self._told = told
        self._http = httpx.Client(
            base_url=base_url,
            headers={"User-Agent": BROWSERS[browser], "X-Forwarded-For": address},
            timeout=30,
            follow_redirects=True,
        )

    def does(self, what: str) -> None:
        """Say what comes next."""
        self._told(self.name, what)

    def close(self) -> None:
        """Close the browser."""
        self._http.close()

    def get(self, path: str, expect: int = 200, **headers: str) -> str:
        """Open a page."""
        return self._checked(self._http.get(path, headers=headers), "GET", path, expect).text

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, expect: int = 200, **headers: str
    ) -> Any:
        """Call a service that speaks JSON, and return what it answers."""
        response = self._http.request(method, path, json=body, headers=headers)
        return self._checked(response, method, path, expect).json()

    def fill(self, path: str, to: str = "", expect: int = 200, **fields: Any) -> httpx.Response:
        """Open the page at ``path`` and send its form back to ``to`` with ``fields`` changed."""
        form = _Fields()
        form.feed(self._http.get(path).text)
        return self.post(to or path, expect, **{**form.values, **fields})

    def post(self, path: str, expect: int = 200, **fields: Any) -> httpx.Response:
        """Send a form."""
        fields["csrfmiddlewaretoken"] = self._http.cookies.get("csrftoken", "")
        return self._checked(self._http.post(path, data=fields), "POST", path, expect)

    def login(self, password: str, at: str = "/login/") -> None:
        """Log in, or fail to."""
        self.fill(at, username=self.name, password=password)

    def guess(self, name: str, password: str) -> int:
        """Try to log in as somebody else; return the status of the answer."""
        token = self._http.get("/login/") and self._http.cookies.get("csrftoken", "")
        fields = {"username": name, "password": password, "csrfmiddlewaretoken": token}
        return self._http.post("/login/", data=fields).status_code

    def logout(self) -> None:
        """Log out."""
        self.post("/logout/")

    def buy(self, note: str = "", **quantities: int) -> int | None:
        """Put teas (slugs with ``_`` for ``-``) in the basket and buy them; return the order's number."""
        for slug, quantity in quantities.items():
            self.post(f"/tea/{slug.replace('_', '-')}/basket/", quantity=quantity)
        response = self.post("/basket/buy/", note=note)
        found = re.search(r"/orders/(\d+)/$", response.url.path)
        return int(found[1]) if found else None

    def _checked(self, response: httpx.Response, method: str, path: str, expect: int) -> httpx.Response:
        if response.status_code != expect:
            raise RuntimeError(
                f"{self.name}: {method} {path} answered {response.status_code}, expected {expect}:\n"
                f"{response.text[:2000]}"
            )
        if "errornote" in response.text:
            raise RuntimeError(f"{self.name}: {method} {path}: the admin did not take the form")
        return response
