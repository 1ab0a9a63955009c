"""Patterns of a policy: what they match, and which of them match all that another one does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.config.globs import Globs, covers, normal_patterns

WORDS = st.text(alphabet="ab/*?", max_size=6)
VALUES = st.text(alphabet="ab/", max_size=8)


@pytest.mark.parametrize(
    ("patterns", "matching", "others"),
    [
        (["/api/*"], ["/api/", "/api/cards/7"], ["/api", "/x/api/", ""]),
        (["/api/cards/?"], ["/api/cards/7"], ["/api/cards/", "/api/cards/77"]),
        (["/a", "/b"], ["/a", "/b"], ["/a/", "/"]),
        (["/a", "*b*"], ["/a", "b", "/ab/"], ["/c"]),
        (["/api/*", "!*/health"], ["/api/cards"], ["/api/health", "/cards"]),
        (["!/health", "!/static/*"], ["/", "/api"], ["/health", "/static/a.css"]),
        (["*"], ["", "x", "a\nb"], []),
        (["^cards/(?P<pk>[0-9]+)/$"], [], ["cards/7/"]),
        (["[ab]"], ["[ab]"], ["a", "b"]),
        (["a[*"], ["a[", "a[b]"], ["ab"]),
    ],
)
def test_values_match_by_one_pattern_and_none_that_excludes(
    patterns: list[str], matching: list[str], others: list[str]
) -> None:
    globs = Globs.of(patterns)
    assert [value for value in [*matching, *others] if globs.matches(value)] == matching


def test_long_hostile_values_are_matched_in_linear_steps() -> None:
    """With a search that goes back, this would not end."""
    assert not Globs.of(["*a*a*a*a*a*a*a*a*a*a*b", "x"]).matches("a" * 20_000)


@given(WORDS, WORDS, VALUES)
def test_what_covers_another_pattern_matches_all_that_it_matches(mine: str, theirs: str, value: str) -> None:
    if covers(mine, theirs) and Globs.of([f"/{theirs}"]).matches(f"/{value}"):
        assert Globs.of([f"/{mine}"]).matches(f"/{value}")


@given(st.lists(WORDS, max_size=3), st.lists(WORDS, max_size=3), st.lists(WORDS, max_size=2), VALUES)
def test_lists_of_patterns_cover_what_they_match(
    mine: list[str], theirs: list[str], excluded: list[str], value: str
) -> None:
    first = Globs(tuple(mine), tuple(excluded))
    second = Globs(tuple(theirs), tuple(excluded))
    if first.covers(second) and second.matches(value):
        assert first.matches(value)
    if first.is_empty:
        assert not first.matches(value)


def test_literals_and_wildcards_are_covered_as_they_are_read() -> None:
    assert covers("/api/*", "/api/cards/*")
    assert covers("/api/?", "/api/7")
    assert not covers("/api/cards/*", "/api/*")
    assert not covers("/api/?", "/api/*")


def test_case_counts_where_it_counts() -> None:
    assert normal_patterns("method", ["post"]).meant == ("POST",)
    assert normal_patterns("host", ["Shop.Example"]).meant == ("shop.example",)
    assert normal_patterns("path", ["/API"]).meant == ("/API",)
    assert normal_patterns("status", ["4XX"]).meant == ("4??",)
    assert normal_patterns("route", ["/cards/<int:pk>"]).meant == ("cards/<int:pk>",)
