"""G7, by Django's own word: its tests of everything that writes pass with all models captured."""

from __future__ import annotations

import pytest

from tests.library_suites.runs import assert_good


@pytest.mark.timeout(900)
def test_django_behaves_as_without_us() -> None:
    """The tests of what writes, on SQLite; ``make django-suite`` runs all of them, on PostgreSQL too."""
    assert_good("tests.library_suites.django.run")
