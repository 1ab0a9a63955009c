"""`make lint` finds links of the documents that lead nowhere."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "links.py"

OTHER = "# The store\n\n## How it *works*\n\n## Twice\n\n## Twice\n"


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("other.md", None),
        ("other.md#how-it-works", None),
        ("other.md#twice-1", None),
        ("#here", None),
        ("https://example.org/nothing#there", None),
        ("gone.md", "leads to no file"),
        ("other.md#gone", "leads to no heading of other.md"),
        ("#gone", "leads to no heading of page.md"),
        ("../outside.md", "leads to no file"),
    ],
)
def test_a_link_leads_to_a_file_and_a_heading(tmp_path: Path, link: str, problem: str | None) -> None:
    (tmp_path / "other.md").write_text(OTHER)
    (tmp_path.parent / "outside.md").write_text("")
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\nText with [a link]({link}), in a\nsecond line ![picture](other.md).\n")
    check = runpy.run_path(str(SCRIPT))["check"]
    check.__globals__["ROOT"] = tmp_path
    found = list(check(page))
    assert len(found) == (problem is not None)
    if problem is not None:
        assert problem in found[0]
        assert found[0].startswith("page.md:3: ")
