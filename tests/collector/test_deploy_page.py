"""docs/deploy.md names what there is: files, variables, secrets, ports; and its arithmetic holds."""

from __future__ import annotations

import re

import pytest

from tests.collector.deploying import unknown_variables
from tests.collector.running import COLLECTOR
from tests.collector.test_kubernetes import SECRETS
from tests.e2e.running import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "deploy.md").read_text("utf-8")


def heading_links(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        page = DOCS / path if path else DOCS / "deploy.md"
        assert page.exists(), target
        assert not anchor or anchor in heading_links(page.read_text("utf-8")), target


def test_files_of_its_commands_are_there() -> None:
    for name in re.findall(r"(?<![\w/])collector/[\w./-]+", PAGE):
        assert (ROOT / name.rstrip(".")).exists(), name


def test_variables_are_ones_that_are_read() -> None:
    assert not unknown_variables(set(re.findall(r"\b(?:OTELCOL|OTEL_AUDIT)_[A-Z_]+[A-Z]\b", PAGE)))


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_of_the_manifests_has_its_row(name: str) -> None:
    (row,) = re.findall(rf"^\| (?:ConfigMap )?`{name}` \|.*$", PAGE, re.MULTILINE)
    assert all(f"`{key}`" in row for key in SECRETS[name])


def test_each_port_of_the_collector_has_its_row() -> None:
    files = [COLLECTOR / "config.yaml", COLLECTOR / "profiles" / "mirror.yaml"]
    ports = {port for path in files for port in re.findall(r"_PORT:-(\d+)", path.read_text())}
    rows = set(re.findall(r"\d+", " ".join(re.findall(r"^\| (\d{4,5}(?:, \d+)*) \|", PAGE, re.MULTILINE))))
    assert ports <= rows


def test_the_figures_are_those_of_the_collectors_page() -> None:
    """A new measurement there is a new table here."""
    collector = (DOCS / "collector.md").read_text("utf-8")
    assert "51 700 records/s" in collector
    assert "Collector 31 µs" in collector
    assert re.search(r"51 700 records/s", PAGE)
    assert re.search(r"42 µs, 31 µs", PAGE)
