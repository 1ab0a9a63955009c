"""The table of patches: applied in order, taken back in full, refused as a whole."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_audit.instrumentation.patching import AppliedPatches, Patch


class Base:
    def inherited(self) -> str:
        return "base"


class Target(Base):
    def own(self) -> str:
        return "own"


HERE = __name__


def louder(original: Any) -> Any:
    def wrapped(self: Any) -> str:
        return str(original(self)) + "!"

    return wrapped


def test_own_and_inherited_attributes_are_restored_as_they_were() -> None:
    before = dict(vars(Target))
    patches = AppliedPatches()
    patches.apply(
        [
            Patch(f"{HERE}:Target.own", louder, "test"),
            Patch(f"{HERE}:Target.inherited", louder, "test"),
            Patch(f"{HERE}:Target.own", louder, "twice"),
            Patch(f"{HERE}:Target.missing", louder, "another version has it", optional=True),
        ]
    )
    assert (Target().own(), Target().inherited(), Base().inherited()) == ("own!!", "base!", "base")
    patches.undo()
    assert dict(vars(Target)) == before


def test_one_that_is_missing_takes_all_back() -> None:
    before = dict(vars(Target))
    with pytest.raises(AttributeError, match="missing does not exist in the installed version"):
        AppliedPatches().apply(
            [Patch(f"{HERE}:Target.own", louder, "test"), Patch(f"{HERE}:Target.missing", louder, "test")]
        )
    assert dict(vars(Target)) == before


def _late_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> str:
    """Write a module that nobody has imported, and return its name."""
    name = f"late_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


_LATE = "class Late:\n    def own(self):\n        return 'late'\n"


def test_a_late_patch_waits_until_somebody_imports_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _late_module(tmp_path, monkeypatch, _LATE)
    patches = AppliedPatches()
    patches.apply([Patch(f"{name}:Late.own", louder, "test", late=True)])
    assert name not in sys.modules
    late = importlib.import_module(name)
    assert late.Late().own() == "late!"
    patches.undo()
    assert late.Late().own() == "late"


def test_a_late_patch_that_was_taken_back_wraps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _late_module(tmp_path, monkeypatch, _LATE)
    patches = AppliedPatches()
    patches.apply([Patch(f"{name}:Late.own", louder, "test", late=True)])
    patches.undo()
    again = AppliedPatches()
    again.apply([Patch(f"{name}:Late.own", louder, "test", late=True)])
    assert importlib.import_module(name).Late().own() == "late!"
    again.undo()


def test_a_late_patch_of_a_module_that_is_there_is_applied_at_once() -> None:
    patches = AppliedPatches()
    patches.apply([Patch(f"{HERE}:Target.own", louder, "test", late=True)])
    assert Target().own() == "own!"
    patches.undo()


def test_a_late_patch_that_fails_is_logged_and_the_import_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = _late_module(tmp_path, monkeypatch, _LATE)
    AppliedPatches().apply([Patch(f"{name}:Late.missing", louder, "it is needed", late=True)])
    assert importlib.import_module(name).Late().own() == "late"
    assert "Late.missing cannot be wrapped (it is needed)" in caplog.text
