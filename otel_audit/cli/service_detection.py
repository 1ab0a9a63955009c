"""A service of FastAPI, Starlette or SQLAlchemy, found by reading files: nothing of it is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from otel_audit.cli.detection import imported_names, origin, parse, python_files

_FASTAPI: Final = frozenset({"fastapi.FastAPI", "fastapi.applications.FastAPI"})
_APPLICATIONS: Final = {"starlette.applications.Starlette", *_FASTAPI}
_TABLES: Final = frozenset({"sqlalchemy.Table", "sqlalchemy.schema.Table"})
_SOURCES: Final = ("src", "lib")
"""Directories of sources, which are not part of a module's name."""
_LIKELY: Final = ("main.py", "app.py", "asgi.py")


class ServiceProject(msgspec.Struct, frozen=True):
    """A service: ``application`` as uvicorn takes it, empty if none was found, and ``options`` it needs.

    ``patterns`` are what to record, for ``[sqlalchemy] models``.
    """

    application: str
    options: str
    is_fastapi: bool
    patterns: list[str]

    @property
    def package(self) -> str:
        """The name of the package, empty if there is none."""
        module, _, rest = self.application.partition(":")[0].partition(".")
        return module if rest else ""


class _Application(msgspec.Struct, frozen=True):
    name: str
    is_factory: bool
    is_fastapi: bool


def find_service(root: Path) -> ServiceProject | None:
    """Find a service at ``root`` or below; None where there is no sign of one."""
    application = options = ""
    is_fastapi = False
    patterns: set[str] = set()
    files = sorted(
        python_files(root), key=lambda path: (len(path.parts), path.name not in _LIKELY, str(path))
    )
    for path in files:
        tree = parse(path)
        if tree is None:
            continue
        imported = imported_names(tree)
        module, sources = _module(path.relative_to(root))
        patterns.update(_patterns(tree, imported, module))
        found = None if application else _application(tree, imported)
        if found is not None:
            application, is_fastapi = f"{module}:{found.name}", found.is_fastapi
            options = " --factory" * found.is_factory + (f" --app-dir {sources}" if sources else "")
    if not (application or patterns):
        return None
    return ServiceProject(application, options.strip(), is_fastapi, sorted(patterns))


def _module(path: Path) -> tuple[str, str]:
    """Return the name of a module, and the directory that Python has to look in, empty if it is the root."""
    parts = path.with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    if parts[0] in _SOURCES and len(parts) > 1:
        return ".".join(parts[1:]), parts[0]
    return ".".join(parts), ""


def _application(tree: ast.Module, imported: Mapping[str, str]) -> _Application | None:
    factory = None
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            kind = _called(node.value, imported)
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if kind in _APPLICATIONS and isinstance(target, ast.Name):
                return _Application(target.id, is_factory=False, is_fastapi=kind in _FASTAPI)
        elif isinstance(node, ast.FunctionDef) and factory is None and not _needs_arguments(node):
            kinds = {_called(each, imported) for each in ast.walk(node)} & _APPLICATIONS
            if kinds and (node.returns is None or origin(node.returns, imported) in _APPLICATIONS):
                factory = _Application(node.name, is_factory=True, is_fastapi=bool(kinds & _FASTAPI))
    return factory


def _needs_arguments(node: ast.FunctionDef) -> bool:
    arguments = node.args
    return len(arguments.args) + len(arguments.posonlyargs) > len(arguments.defaults) or None in (
        arguments.kw_defaults
    )


def _called(value: ast.AST | None, imported: Mapping[str, str]) -> str:
    return origin(value.func, imported) if isinstance(value, ast.Call) else ""


def _patterns(tree: ast.Module, imported: Mapping[str, str], module: str) -> Iterator[str]:
    """Yield what names the mapped classes of a module, and its tables that have no class."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _is_mapped(node, imported):
            yield f"{module.partition('.')[0]}.*"
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            name = node.value.args[0] if node.value.args else None
            if _called(node.value, imported) in _TABLES and isinstance(name, ast.Constant):
                yield str(name.value)


def _is_mapped(node: ast.ClassDef, imported: Mapping[str, str]) -> bool:
    """Say whether a class has a table of its own: declarative ones name it, SQLModel's say so."""
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else ()
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if any(isinstance(each, ast.Name) and each.id == "__tablename__" for each in targets):
            return True
        if isinstance(statement, ast.AnnAssign) and _called(statement.value, imported).endswith(
            ("orm.mapped_column", "orm.relationship")
        ):
            return not any(origin(base, imported).endswith("DeclarativeBase") for base in node.bases)
    return any(
        word.arg == "table" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in node.keywords
    )
