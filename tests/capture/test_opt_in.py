"""What classes and code say about audit: each bad value is named once, and costs no record and no secret."""

from __future__ import annotations

import enum
import itertools
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

import otel_audit
from otel_audit.capture import opt_in
from otel_audit.capture.opt_in import OptIn, said_by_class
from otel_audit.capture.table_policy import ModelPattern, Subject, TablePolicy
from otel_audit.config.model import CaptureSection, ModelConfig


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests said, and afterwards what this one says."""
    monkeypatch.setattr(opt_in._State, "rules", ())
    monkeypatch.setattr(opt_in._State, "problems", {})


class Strategy(enum.StrEnum):
    MASK = "mask"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class Pretending:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("of no class")


class Broken(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no items")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


def said(value: Any) -> OptIn | None:
    found = said_by_class(type("Card", (), {"__audit__": value, "__module__": "shop.models"}))
    return None if found is None else found._replace(place="")


ON = OptIn(changes=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, ON),
        (False, OptIn(changes=False)),
        (None, None),
        ({}, ON),
        ({"changes": False, "reads": True}, OptIn(changes=False, reads=True)),
        (
            {"reads": True, "fields": {"number": Strategy.MASK}, "ignore": ["version"], "snapshot": True},
            OptIn(changes=True, reads=True, fields={"number": "mask"}, ignore=("version",), snapshot=True),
        ),
        ({"old_values": "exact"}, OptIn(changes=True, old_values="exact")),
    ],
)
def test_what_a_class_says(value: Any, expected: OptIn | None) -> None:
    assert said(value) == expected
    assert opt_in.problems() == []


@pytest.mark.parametrize(
    ("value", "expected", "problem"),
    [
        ("yes", ON, "it must be True, False or a dict of options, not 'yes'; it counts as True"),
        (1, ON, "not 1; it counts as True"),
        ("x" * 10**6, ON, "xxx...'"),
        (Hostile(), ON, "not an object of Hostile"),
        (Pretending(), ON, "cannot be read (RuntimeError)"),
        (Broken(), ON, "its options cannot be read (RuntimeError); it counts as True"),
        (["reads"], ON, "not an object of list"),
        ({"raeds": True}, ON, "'raeds' is not an option; did you mean 'reads'?"),
        ({7: True}, ON, "7 is not an option; valid are changes, reads"),
        ({"reads": "no"}, OptIn(changes=True, reads=True), "reads must be True or False, not 'no'"),
        ({"snapshot": Hostile()}, OptIn(changes=True, snapshot=True), "snapshot must be True or False"),
        ({"changes": 0}, ON, "changes must be True or False, not 0"),
        ({"old_values": "exakt"}, ON, "one of as_loaded, exact, off, not 'exakt'; it is ignored"),
        ({"old_values": Hostile()}, ON, "old_values must be one of"),
        ({"ignore": "version"}, ON, "ignore must be a list of names of fields"),
        ({"ignore": [7, "a"]}, OptIn(changes=True, ignore=("a",)), "7, which is not the name of a field"),
        ({"ignore": Broken()}, ON, "ignore must be a list"),
        ({"fields": ["number"]}, OptIn(changes=True, fields={"number": "mask"}), "those it lists are masked"),
        ({"fields": {"a": "masc"}}, OptIn(changes=True, fields={"a": "mask"}), "did you mean 'mask'?"),
        ({"fields": {"a": "keep_last:x"}}, OptIn(changes=True, fields={"a": "mask"}), "is not a strategy"),
        ({"fields": {"a": None}}, OptIn(changes=True, fields={"a": "mask"}), "None is not a strategy"),
        ({"fields": {"a": Hostile()}}, OptIn(changes=True, fields={"a": "mask"}), "is not a strategy"),
        ({"fields": {4: "mask"}}, ON, "4, which is not the name of a field"),
        ({"fields": Broken()}, ON, "fields cannot be read: RuntimeError"),
        ({"fields": "number"}, ON, "fields must be a dict"),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_understood_is_named_once_and_more_is_recorded_or_masked(
    value: Any, expected: OptIn, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert said(value) == expected
        assert said(value) == expected
    [named] = opt_in.problems()
    assert problem in named
    assert "__audit__ of shop.models.Card" in named
    assert len(named) < 250
    assert caplog.messages == [named]


def test_the_nearest_class_that_says_something_decides() -> None:
    class Base:
        __audit__: ClassVar[Any] = {"reads": True}

    class Loud(Base):
        pass

    class Quiet(Base):
        __audit__ = False

    class Undecided(Base):
        __audit__ = None

    assert (found := said_by_class(Loud)) is not None
    assert found.reads
    assert found.place.endswith("Base.__audit__")
    assert (found := said_by_class(Quiet)) is not None
    assert found.changes is False
    assert said_by_class(Undecided) is None
    assert said_by_class(object) is None


class Order:
    __audit__ = {"reads": True, "ignore": ["version"], "fields": {"a": "mask"}}


class Log:
    pass


ORDER = Subject("shop.Order", "project.shop.models.Order", (Order,), said_by_class(Order))
LOG = Subject("shop.Log", "project.shop.models.Log", (Log,))


def decided(subject: Subject, **section: Any) -> Any:
    return TablePolicy(CaptureSection(**section)).decide(subject)


def test_code_is_laid_over_the_class_and_the_configuration_over_both() -> None:
    assert decided(ORDER).settings.reads
    otel_audit.audit_models(
        Order, reads=False, fields={"a": "drop", "b": "keep"}, ignore=["!version", "seen"]
    )
    found = decided(ORDER)
    assert not found.settings.reads
    assert found.settings.strategies == {"a": "drop", "b": "keep"}
    assert not found.settings.ignores("version")
    assert found.settings.ignores("seen")
    assert re.search(r"test_opt_in.py:\d+$", found.rules["changes"].place)
    model = {"shop.Order": ModelConfig(reads=True, fields={"b": "mask"}, ignore=["version"])}
    found = decided(ORDER, models=["shop.*", "!shop.order"], model=model)
    assert not found.settings.audited
    assert found.settings.reads
    assert found.settings.strategies == {"a": "drop", "b": "mask"}
    assert found.settings.ignores("version")
    assert found.rules["changes"][:3] == ("configuration", "models: '!shop.order'", ("models", "1"))
    assert found.rules["fields.b"].key == ("model", "shop.Order", "fields", "b")
    assert found.rules["fields.a"].source == "code"
    assert found.rules["ignore.seen"].source == "code"


def test_code_names_classes_labels_patterns_and_paths() -> None:
    otel_audit.audit_models("shop.*", "!shop.log")
    assert decided(ORDER).settings.audited
    assert not decided(LOG).settings.audited
    otel_audit.audit_models("project.*.Log")
    assert decided(LOG).settings.audited
    otel_audit.audit_models(Log, changes=False)
    assert not decided(LOG).settings.audited
    otel_audit.audit_models(Log)
    assert decided(LOG).settings.audited


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("project.shop.models.Order", True),
        ("PROJECT.shop.models.order", True),
        ("project.shop.Order", True),  # as it may be imported from the package
        ("project.shop.*", True),
        ("*.shop.models.Order", True),
        ("other.shop.models.Order", False),
        ("project.shop.models.Orders", False),
        ("project.sho.Order", False),
        ("project.*", False),  # one dot: a label
        ("models.Order", False),
    ],
)
def test_a_pattern_with_two_dots_is_the_path_of_a_class(pattern: str, matches: bool) -> None:
    assert ModelPattern(pattern).matches(ORDER) is matches


def test_a_path_means_the_class_that_is_imported_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    package = type(sys)("project.shop")
    package.Order = Log  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "project.shop", package)
    assert not ModelPattern("project.shop.Order").matches(ORDER)
    package.Order = Order  # type: ignore[attr-defined]
    assert ModelPattern("project.shop.Order").matches(ORDER)


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ((5,), "5 is neither a model class nor a pattern"),
        ((Hostile(),), "an object of Hostile is neither"),
        ((None,), "None is neither"),
        (("Order",), "'Order' has no app label"),
        (("",), "'' is not a model pattern"),
        ((["shop.Order", Order],), "takes models one by one: write audit_models(*models)"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_model_is_named_with_the_line_of_the_call(models: Any, problem: str) -> None:
    otel_audit.audit_models(*models)
    [named] = opt_in.problems()
    assert problem in named
    assert "test_opt_in.py:" in named
    assert len(opt_in.code_rules()) == (2 if isinstance(models[0], list) else 0)


def test_wrong_options_cost_the_option_and_nothing_else() -> None:
    otel_audit.audit_models(Log, reads="yes", fields=7, ignore=Hostile(), old_values=3)  # type: ignore[arg-type]
    assert len(opt_in.problems()) == 4
    assert decided(LOG).settings.audited
    assert decided(LOG).settings.reads


def test_the_same_said_again_is_no_news() -> None:
    heard: list[int] = []
    listener = lambda rules: heard.append(len(rules))  # noqa: E731
    opt_in.listen(listener)
    try:
        for _ in range(100):
            otel_audit.audit_models(Log, "shop.Order", reads=True)
        assert heard == [2]
        otel_audit.audit_models(Log, reads=False)
        otel_audit.audit_models(Log, reads=True)
        assert heard == [2, 1, 1]
        assert decided(LOG).settings.reads
        assert len(opt_in.code_rules()) == 3
    finally:
        opt_in.unlisten(listener)


def test_a_class_that_was_named_is_not_kept() -> None:
    for _ in range(50):
        otel_audit.audit_models(type("Made", (), {}))
    assert len(opt_in.code_rules()) <= 50
    import gc

    gc.collect()
    otel_audit.audit_models(Log)
    assert len(opt_in.code_rules()) == 1


def test_naming_models_imports_no_library() -> None:
    program = (
        "import sys, otel_audit\n"
        "assert 'otel_audit.capture.opt_in' not in sys.modules\n"
        "otel_audit.audit_models('shop.Order', 'auth.*', reads=True)\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted({'django', 'sqlalchemy', 'google', 'rich', 'wrapt'} & loaded))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
