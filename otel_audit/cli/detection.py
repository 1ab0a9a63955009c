"""What kind of project this is, found by reading files: nothing of it is imported or run."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

_SKIPPED: Final = frozenset(
    {
        "node_modules",
        "site-packages",
        "migrations",
        "tests",
        "static",
        "media",
        "templates",
        "venv",
        "env",
        "dist",
        "build",
    }
)
_DEPTH: Final = 4
_LARGEST: Final = 1_000_000


class DjangoProject(msgspec.Struct, frozen=True):
    """A Django project: names as Python imports them, ``apps`` the labels of apps with own models."""

    manage: Path | None
    settings: str
    wsgi: str
    asgi: str
    apps: list[str]


def find_django(root: Path, environ: Mapping[str, str]) -> DjangoProject | None:
    """Find a Django project at ``root`` or below; ``None`` where there is no sign of one."""
    files = sorted(_python_files(root), key=lambda path: (len(path.parts), str(path)))
    manage = next((path for path in files if path.name == "manage.py"), None)
    base = manage.parent if manage else root
    settings = environ.get("DJANGO_SETTINGS_MODULE", "")
    if not settings:
        candidates = [path for path in files if path.name in ("manage.py", "wsgi.py", "asgi.py")]
        settings = next(filter(None, map(_settings_module, candidates)), "")
    if manage is None and not settings:
        return None
    return DjangoProject(
        manage,
        settings,
        wsgi=_module(files, base, "wsgi.py"),
        asgi=_module(files, base, "asgi.py"),
        apps=sorted({_label(path) for path in files if _has_models(path)}),
    )


def _python_files(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        here = Path(directory)
        depth = len(here.relative_to(root).parts)
        names[:] = sorted(
            name
            for name in names
            if depth < _DEPTH
            and not name.startswith(".")
            and name not in _SKIPPED
            and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in files if name.endswith(".py"))


def _parse(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # somebody else's file; it only tells us nothing
        return None


def _settings_module(path: Path) -> str:
    """Find the second argument of ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", …)``."""
    tree = _parse(path)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and len(node.args) == 2:
            name, value = node.args
            if isinstance(name, ast.Constant) and name.value == "DJANGO_SETTINGS_MODULE":
                return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
    return ""


def _module(files: list[Path], base: Path, name: str) -> str:
    for path in files:
        if path.name == name and path.is_relative_to(base):
            return ".".join(path.relative_to(base).with_suffix("").parts)
    return ""


def _has_models(path: Path) -> bool:
    if path.name != "models.py" and path.parent.name != "models":
        return False
    tree = _parse(path)
    return any(isinstance(node, ast.ClassDef) and _is_model(node) for node in (tree.body if tree else ()))


def _is_model(node: ast.ClassDef) -> bool:
    # ``models.Model``, ``TimeStampedModel``, ``AbstractUser`` …; enumerations and managers are none.
    names = [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases]
    return any(name.endswith("Model") or name in ("AbstractUser", "AbstractBaseUser") for name in names)


def _label(path: Path) -> str:
    """Give the label of the app a models file belongs to: what ``apps.py`` says, or the directory's name."""
    directory = path.parent.parent if path.parent.name == "models" else path.parent
    tree = _parse(directory / "apps.py")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if (
                    isinstance(statement, ast.Assign)
                    and [getattr(each, "id", "") for each in statement.targets] == ["label"]
                    and isinstance(statement.value, ast.Constant)
                ):
                    return str(statement.value.value)
    return directory.name
