"""The container files: pinned, without root, without secrets, and what they copy is there to be copied."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.collector.deploying import read, unknown_variables
from tests.collector.running import COLLECTOR
from tests.e2e.running import ROOT

FILES = sorted((COLLECTOR / "containers").glob("*.Dockerfile"))
PINNED = re.compile(r"[a-z0-9./-]+:\d+\.\d+(\.\d+)?[\w.-]*")
SECRET = re.compile(r"token|password|secret|credential", re.IGNORECASE)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def container(request: pytest.FixtureRequest) -> dict[str, Any]:
    parsed = read("containerfile", request.param)
    assert isinstance(parsed, dict)
    return parsed


def commands(stage: dict[str, Any], name: str) -> list[str]:
    return [command["text"] for command in stage["commands"] if command["name"] == name]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last line that matches it, or a directory above it."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern, keep = line.removeprefix("!"), line.startswith("!")
        if not pattern or pattern.startswith("#"):
            continue
        expression = "".join(
            {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
            for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        )
        if re.fullmatch(f"{expression}(?:/.*)?", path):
            verdict = not keep
    return verdict


def environment(stage: dict[str, Any]) -> dict[str, str]:
    text = " ".join(each.removeprefix("ENV ") for each in commands(stage, "ENV"))
    return dict(re.findall(r"(\w+)=(\S+)", text))


def test_bases_are_pinned_to_a_release(container: dict[str, Any]) -> None:
    """A base is a release, or one of the arguments before the first stage, whose default is."""
    given = dict(re.findall(r"(\w+)=(\S+)", " ".join(each["text"] for each in container["arguments"])))
    for stage in container["stages"]:
        base = re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], stage["base"])
        assert base == "scratch" or PINNED.fullmatch(base), base


def test_what_builds_is_not_in_what_runs(container: dict[str, Any]) -> None:
    """The last stage takes from another what was built, and builds nothing itself."""
    *building, running = container["stages"]
    assert building
    assert not commands(running, "RUN")
    assert any(f"--from={stage['name']} " in text for stage in building for text in commands(running, "COPY"))


def test_it_runs_as_a_user_with_a_number_that_is_not_root(container: dict[str, Any]) -> None:
    """A name could not be checked by Kubernetes' `runAsNonRoot`."""
    (user,) = commands(container["stages"][-1], "USER")
    number, group = user.removeprefix("USER ").split(":")
    assert int(number) > 0
    assert int(group) > 0
    owned = [text for text in commands(container["stages"][-1], "COPY") if "--chown" in text]
    assert all(f"--chown={number}:{group} " in text for text in owned)
    (volume,) = commands(container["stages"][-1], "VOLUME")
    (directory,) = json.loads(volume.removeprefix("VOLUME "))
    assert any(text.endswith(f" {directory}") for text in owned), "the volume would belong to root"


def test_no_secret_is_baked_in(container: dict[str, Any]) -> None:
    for stage in container["stages"]:
        assert not [name for name in environment(stage) if SECRET.search(name)]
        assert not [text for text in commands(stage, "ARG") if SECRET.search(text)]
        assert not [text for text in commands(stage, "COPY") if re.search(r"\.env|\.pem|\.key", text)]


def test_variables_are_ones_that_are_read(container: dict[str, Any]) -> None:
    assert not unknown_variables(set(environment(container["stages"][-1])))


def test_what_is_copied_is_there_and_not_kept_out(container: dict[str, Any]) -> None:
    for stage in container["stages"]:
        for text in commands(stage, "COPY"):
            if "--from=" in text:
                continue
            *sources, _ = [word for word in text.split()[1:] if not word.startswith("--")]
            for source in sources:
                path = ROOT / source
                assert path.exists(), source
                files = path.rglob("*") if path.is_dir() else [path]
                kept = [file for file in files if not ignored(file.relative_to(ROOT).as_posix())]
                assert kept, f".dockerignore keeps {source} out"


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("collector/compose/.env", True),
        (".git/config", True),
        (".venv/bin/python", True),
        ("tests/conftest.py", True),
        ("examples/shop/shop.sqlite3", True),
        ("examples/shop/.env", True),
        ("otel_audit/__pycache__/record.cpython-311.pyc", True),
        ("examples/shop/shop/settings.py", False),
        ("otel_audit/config/model.py", False),
        ("collector/patches/exporterhelper.patch", False),
        ("collector/router/router.go", False),
    ],
)
def test_secrets_data_and_environments_stay_out_of_the_context(path: str, out: bool) -> None:
    assert ignored(path) is out


def test_the_collector_is_built_of_all_its_script_reads() -> None:
    """In a directory that has what the container file copies before the build, and nothing else."""
    building = read("containerfile", COLLECTOR / "containers" / "collector.Dockerfile")["stages"][0]
    copied = {word for text in commands(building, "COPY") for word in text.split()[1:-1]}
    script = (ROOT / "scripts" / "collector").read_text()
    needed = set(re.findall(r"(?:scripts|collector)/[\w./-]+", script))
    for path in needed:
        inside = any(path == each or path.startswith(f"{each}/") for each in copied)
        assert inside or not (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["otel-audit", "shop"])
def test_the_package_is_built_of_all_that_its_build_reads(name: str) -> None:
    building = read("containerfile", COLLECTOR / "containers" / f"{name}.Dockerfile")["stages"][0]
    copied = {word for text in commands(building, "COPY") for word in text.split()[1:-1]}
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, hatch = pyproject["project"], pyproject["tool"]["hatch"]
    needed = {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    needed |= {*hatch["build"]["targets"]["wheel"]["packages"], Path(hatch["version"]["path"]).parts[0]}
    assert needed <= copied
