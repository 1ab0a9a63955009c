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
_NO_MODELS: Final = (
    *(
        "Manager",
        "QuerySet",
        "Choices",
        "Enum",
        "Flag",
        "Field",
        "Lookup",
        "Transform",
        "Index",
        "Constraint",
    ),
    *("Form", "FormSet", "Serializer", "Block", "Panel", "Admin", "Exception", "Error", "Protocol", "Config"),
    *("NamedTuple", "TypedDict"),
)
"""How the names of classes end that stand in a models file, may have fields, and are no models."""
_USERS: Final = frozenset({"AbstractUser", "AbstractBaseUser"})
_DEPTH: Final = 4
_LARGEST: Final = 1_000_000


class DjangoProject(msgspec.Struct, frozen=True):
    """A Django project, with names as Python imports them.

    ``apps`` are the labels of apps with models of their own, ``user_model`` is what ``AUTH_USER_MODEL`` says.
    """

    manage: Path | None
    settings: str
    wsgi: str
    asgi: str
    apps: list[str]
    user_model: str = "auth.User"

    @property
    def patterns(self) -> list[str]:
        """The models to record, as patterns of ``[django] models``."""
        apps = [f"{label}.*" for label in self.apps]
        user = [] if self.user_model.partition(".")[0] in self.apps else [self.user_model]
        return [*apps, *user]


def find_django(root: Path, environ: Mapping[str, str]) -> DjangoProject | None:
    """Find a Django project at ``root`` or below; ``None`` where there is no sign of one."""
    files = sorted(python_files(root), key=lambda path: (len(path.parts), str(path)))
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
        user_model=_user_model(files, base, settings),
    )


def python_files(root: Path) -> Iterator[Path]:
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


def parse(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # somebody else's file; it only tells us nothing
        return None


def _settings_module(path: Path) -> str:
    """Find the second argument of ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", …)``."""
    tree = parse(path)
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


def _user_model(files: list[Path], base: Path, settings: str) -> str:
    """Read ``AUTH_USER_MODEL`` from the settings module, or from a module beside it in a settings package."""
    module = base.joinpath(*settings.split("."))
    package = module if (module / "__init__.py") in files else module.parent
    own = [module.with_suffix(".py"), module / "__init__.py"]
    beside = [path for path in files if path.parent == package and package.name == "settings"]
    for path in [*own, *beside]:
        tree = parse(path) if path in files else None
        for node in tree.body if tree else ():
            value = _assigned(node, "AUTH_USER_MODEL")
            if isinstance(value, str) and value.count(".") == 1:
                return value
    return "auth.User"


def _assigned(node: ast.stmt, name: str) -> object:
    """Return the constant that ``node`` assigns to ``name``, None if it does nothing of the kind."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    if any(isinstance(target, ast.Name) and target.id == name for target in targets):
        value = getattr(node, "value", None)
        return value.value if isinstance(value, ast.Constant) else None
    return None


def _has_models(path: Path) -> bool:
    if path.name != "models.py" and path.parent.name != "models":
        return False
    tree = parse(path)
    if tree is None:
        return False
    imported = imported_names(tree)
    models: set[str] = set()
    found = False
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _is_model(node, imported, models):
            models.add(node.name)
            found = found or not _is_abstract(node)
    return found


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Map each name that the module imports to where it comes from, as ``wagtail.models.Page``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names.update({(alias.asname or alias.name): f"{module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
    return names


def _is_model(node: ast.ClassDef, imported: Mapping[str, str], models: set[str]) -> bool:
    """Say whether a class looks like a model; ``models`` are the names of those found above it."""
    bases = [origin(base, imported) for base in node.bases]
    if not bases or any(base.endswith(_NO_MODELS) for base in bases):
        return False
    return (
        any(base in models or base.endswith("Model") or base in _USERS for base in bases)
        # ``wagtail.models.Page``, ``taggit.models.TaggedItemBase``, ``core.models.Base``
        or any("models" in base.split(".")[:-1] and not base.endswith("Mixin") for base in bases)
        or any(map(_is_field, node.body))
    )


def origin(base: ast.expr, imported: Mapping[str, str]) -> str:
    name = ast.unparse(base)
    first, dot, rest = name.partition(".")
    return imported.get(first, first) + dot + rest


def _is_field(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if not isinstance(value, ast.Call):
        return False
    name = ast.unparse(value.func).rpartition(".")[2]
    return name.endswith(("Field", "ForeignKey", "ParentalKey"))


def _is_abstract(node: ast.ClassDef) -> bool:
    return any(
        _assigned(statement, "abstract") is True
        for meta in node.body
        if isinstance(meta, ast.ClassDef) and meta.name == "Meta"
        for statement in meta.body
    )


def _label(path: Path) -> str:
    """Return the label of the app a models file belongs to: what ``apps.py`` says, or its directory."""
    directory = path.parent.parent if path.parent.name == "models" else path.parent
    tree = parse(directory / "apps.py")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                label = _assigned(statement, "label")
                if label is not None:
                    return str(label)
    return directory.name
