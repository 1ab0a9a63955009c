"""The table of patches: applied in order, taken back in full, refused as a whole."""

from __future__ import annotations

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
