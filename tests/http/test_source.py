"""Addresses, request ids and session names: nothing a client can write is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.http.source import (
    client_address,
    forwarded_request_id,
    session_hash,
    user_agent,
)

PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("header", "trusted", "expected"),
    [
        ("", 0, (PEER, "ipv4")),
        ("198.51.100.1", 0, (PEER, "ipv4")),
        ("", 1, (PEER, "ipv4")),
        ("198.51.100.1", 1, ("198.51.100.1", "ipv4")),
        ("6.6.6.6, 198.51.100.1", 1, ("198.51.100.1", "ipv4")),
        ("6.6.6.6,198.51.100.1 , 10.0.0.2", 2, ("198.51.100.1", "ipv4")),
        ("6.6.6.6, 7.7.7.7, 198.51.100.1, 10.0.0.2", 2, ("198.51.100.1", "ipv4")),
        ("198.51.100.1", 2, (PEER, "ipv4")),
        ("198.51.100.1:4711", 1, ("198.51.100.1", "ipv4")),
        ("2001:DB8::0005", 1, ("2001:db8::5", "ipv6")),
        ("[2001:db8::5]:4711", 1, ("2001:db8::5", "ipv6")),
        ('"[2001:db8::5]"', 1, ("2001:db8::5", "ipv6")),
        ("fe80::1%eth0", 1, ("fe80::1%eth0", "ipv6")),
        ("fe80::1%wlan0.12", 1, ("fe80::1%wlan0.12", "ipv6")),
        ("fe80::1%\x1b[31m", 1, ("unknown", "")),
        ("fe80::1%password=hunter2", 1, ("unknown", "")),
        ("fe80::1%" + "a" * 33, 1, ("unknown", "")),
        ("[fe80::1%a b]:80", 1, ("unknown", "")),
        ("::ffff:198.51.100.1", 1, ("198.51.100.1", "ipv4")),
        ("unknown", 1, ("unknown", "")),
        ("_hidden", 1, ("unknown", "")),
        ("198.51.100.1, ", 1, ("unknown", "")),
        ("198.51.100.999", 1, ("unknown", "")),
        ("<script>", 1, ("unknown", "")),
    ],
)
def test_the_client_is_as_many_hops_away_as_proxies_are_trusted(
    header: str, trusted: int, expected: tuple[str, str]
) -> None:
    assert client_address(PEER, header, trusted) == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("", ("", "")),
        ("::1", ("::1", "ipv6")),
        ("::ffff:10.0.0.1", ("10.0.0.1", "ipv4")),
        ("unix:", ("unknown", "")),
    ],
)
def test_a_peer_may_have_no_address(peer: str, expected: tuple[str, str]) -> None:
    assert client_address(peer, "", 0) == expected
    assert client_address(peer, "198.51.100.1", 1) == ("198.51.100.1", "ipv4")


@given(st.text(), st.text(), st.integers(0, 5))
def test_garbage_is_an_address_or_none(peer: str, header: str, trusted: int) -> None:
    address, kind = client_address(peer, header, trusted)
    assert kind in ("ipv4", "ipv6") or address in ("", "unknown")


@given(st.text(), st.integers(1, 4))
def test_what_a_client_puts_in_front_changes_nothing(forged: str, trusted: int) -> None:
    real = ", ".join(f"203.0.113.{n}" for n in range(trusted))
    assert client_address(PEER, f"{forged}, {real}", trusted) == ("203.0.113.0", "ipv4")


@pytest.mark.parametrize(
    "good", ["abc-123", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abcdef", "a"]
)
def test_a_plain_request_id_is_taken(good: str) -> None:
    assert forwarded_request_id(good) == good


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "x" * 129, "é", "-x", "<a>", '"a"'])
def test_any_other_request_id_is_not(bad: str) -> None:
    assert forwarded_request_id(bad) == ""


def test_a_session_is_named_without_its_key() -> None:
    key = "gq5v1m8kq8ml0uo0m0xz2c2w3j0dvdl8"
    plain, keyed = session_hash(key, ""), session_hash(key, "a key of sixteen or more")
    assert plain.startswith("sha256:")
    assert keyed.startswith("hmac-sha256:")
    assert plain == session_hash(key, "") != session_hash(key + "x", "")
    assert len({plain, keyed, session_hash(key, "another key of sixteen")}) == 3
    assert key not in plain + keyed
    assert session_hash("", "") == ""
    assert session_hash("\ud800", "").startswith("sha256:")


def test_a_user_agent_is_cut() -> None:
    assert user_agent("x" * 5000) == "x" * 512
