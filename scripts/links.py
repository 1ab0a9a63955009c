#!/usr/bin/env python3
"""Check the links of all Markdown files that git knows: the files and headings they lead to must be there.

Addresses of other sites are not asked for: whether they answer is nothing a change here can break.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
MARKDOWN = MarkdownIt("commonmark").enable("table")


def main() -> int:
    """Print each broken link as ``file:line: what is wrong``; return how the process shall end."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    broken = [problem for name in sorted(listed) if (ROOT / name).exists() for problem in check(ROOT / name)]
    for problem in broken:
        print(problem)
    print(f"{len(broken)} broken links in {len(listed)} Markdown files")
    return 1 if broken else 0


def check(page: Path) -> Iterator[str]:
    """Return what is wrong with the links of one page."""
    for line, target in links(page):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        where = f"{page.relative_to(ROOT)}:{line}"
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not file.is_relative_to(ROOT) or not file.exists():
            yield f"{where}: {target} leads to no file of this repository"
        elif parts.fragment and file.suffix == ".md" and parts.fragment not in anchors(file):
            yield f"{where}: {target} leads to no heading of {file.relative_to(ROOT)}"


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Return line and target of each link and picture."""
    for block in tokens(page):
        for token in block.children or ():
            target = token.attrGet("href") or token.attrGet("src")
            if target:
                yield (block.map[0] + 1 if block.map else 1), str(target)


@cache
def tokens(page: Path) -> list[Token]:
    """Return the blocks of a page."""
    return MARKDOWN.parse(page.read_text("utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    blocks = tokens(page)
    for opening, heading in pairwise(blocks):
        if opening.type == "heading_open":
            text = "".join(token.content for token in heading.children or () if token.type != "html_inline")
            anchor = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            found[anchor] = found.get(anchor, -1) + 1
            if found[anchor]:
                found[f"{anchor}-{found[anchor]}"] = 0
    return frozenset(found)


if __name__ == "__main__":
    sys.exit(main())
