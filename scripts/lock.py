#!/usr/bin/env python3
"""Write constraints.txt: what pip resolves for all extras and groups, on each of the Pythons given.

usage: scripts/lock.py [--upgrade] PYTHON…   (of virtual environments with pip 25.1 or newer)

Pins already in constraints.txt stay unless they contradict pyproject.toml or --upgrade is given. Where two
Pythons resolve to different versions (the newest Django needs a newer Python), each gets its line.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = "# Written by `make lock`, for tests and demo; users get the ranges of pyproject.toml.\n"


def canonical(name: str) -> str:
    """Return the name of a package as all its spellings agree on it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named() -> set[str]:
    """Return the names of all packages pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    lists += project["dependency-groups"].values()
    texts = [text for texts in lists for text in texts if isinstance(text, str)]
    names = {canonical(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in texts}
    return names - {canonical(project["project"]["name"])}


def resolve(python: str, keep: bool) -> tuple[str, dict[str, str]]:
    """Return Python's minor version and ``{name: version}`` of everything pip would install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [argument for group in project["dependency-groups"] for argument in ("--group", group)]
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    if keep:
        command += ["--constraint", str(CONSTRAINTS)]
    done = subprocess.run([*command, ".[all]", *groups, "pip"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    report = json.loads(done.stdout)
    versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}
    versions.pop(project["project"]["name"])
    return report["environment"]["python_version"], versions


def merged(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Return one line a package, or one a package and Python where the versions differ."""
    pythons = sorted(resolved, key=lambda version: tuple(map(int, version.split("."))))
    lines = []
    for name in sorted({name for versions in resolved.values() for name in versions}, key=str.lower):
        pins = {python: resolved[python][name] for python in pythons if name in resolved[python]}
        if len(set(pins.values())) == 1:
            lines.append(f"{name}=={next(iter(pins.values()))}")
            continue
        bounds = [*pins]
        for index, (python, version) in enumerate(pins.items()):
            # A pin holds above the Python before, so that those in between get the newer one.
            markers = [f'python_version > "{bounds[index - 1]}"'] if index else []
            markers += [f'python_version <= "{python}"'] if index + 1 < len(bounds) else []
            lines.append(f"{name}=={version} ; {' and '.join(markers)}")
    return lines


def main(arguments: list[str]) -> None:
    pythons = [argument for argument in arguments if argument != "--upgrade"]
    keep = "--upgrade" not in arguments and CONSTRAINTS.exists()
    resolved = dict(resolve(python, keep) for python in pythons)
    CONSTRAINTS.write_text(HEADER + "\n".join(merged(resolved)) + "\n")
    print(f"{CONSTRAINTS.name}: {len(merged(resolved))} pins for Python {' and '.join(resolved)}")


if __name__ == "__main__":
    main(sys.argv[1:])
