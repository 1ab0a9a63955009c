"""Compressed bodies: what they say is read as far as it is needed, and no further."""

from __future__ import annotations

import gzip
import zlib

import pytest

from otel_audit.http.contents.bodies.content_encoding import decoded, is_plain


def test_a_bomb_of_zeros_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    assert decoded(bomb, "gzip", 1000) == (b"0" * 1000, False)
    assert decoded(bomb[:500], "GZIP", 1000) == (b"0" * 1000, False)
    assert decoded(b"no gzip at all", "gzip", 1000) == (b"", False)
    assert decoded(b"\x0b", "br", 1000) is None


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"granted", mtime=0)),
        (" x-gzip", gzip.compress(b"granted", mtime=0)),
        ("deflate", zlib.compress(b"granted")),
        ("Deflate", zlib.compress(b"granted", wbits=-zlib.MAX_WBITS)),
    ],
)
def test_a_body_that_comes_to_its_end_is_whole(encoding: str, packed: bytes) -> None:
    assert decoded(packed, encoding, 7) == (b"granted", True)
    assert decoded(packed, encoding, 6) == (b"grante", False)
    cut = decoded(packed[:-1], encoding, 7)
    assert cut is not None
    assert not cut.whole


def test_no_encoding_at_all_has_two_names() -> None:
    assert is_plain("")
    assert is_plain("Identity ")
    assert not is_plain("gzip")
