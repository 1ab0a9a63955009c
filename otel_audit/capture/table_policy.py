"""Which tables or models are audited, and how: decided once for each, with the rule that decided.

Three may say it: the class of a model (``__audit__``), code (``otel_audit.audit_models``) and the
configuration. Each is laid over the one before; the configuration has the last word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from otel_audit.capture.opt_in import CodeRule, OldValues, OptIn, code_rules
from otel_audit.config.model import CaptureSection, PolicyRule
from otel_audit.named_tuples import NamedTuple


class TableSettings(NamedTuple):
    """What is said about one table or model.

    ``strategies`` maps field names to redaction strategies, ``ignore`` are patterns of the names of fields
    whose changes do not count; the last that matches decides. ``snapshot``: updates have the whole row.
    ``encrypted`` are patterns of the names of fields whose preparation is not repeatable. Without ``values``,
    a change says which fields it was of, and no more.
    """

    audited: bool
    reads: bool
    old_values: OldValues
    strategies: Mapping[str, str]
    ignore: tuple[str, ...] = ()
    snapshot: bool = False
    encrypted: tuple[str, ...] = ()
    values: bool = True

    def ignores(self, field: str) -> bool:
        """Say whether a change of this field alone makes no record."""
        decisive = self.decisive_ignore(field)
        return bool(decisive) and not decisive.startswith("!")

    def decisive_ignore(self, field: str) -> str:
        """Return the last pattern of ``ignore`` that matches a field; empty if none does."""
        return next((each for each in reversed(self.ignore) if matches_name(each, field)), "")

    def encrypts(self, field: str) -> bool:
        """Say whether this field prepares the same value differently each time."""
        return any(matches_name(pattern, field) for pattern in self.encrypted)


class KeyStrategies(NamedTuple):
    """How the key of a table is redacted, part by part (empty: by the rules), and fields that hold a key."""

    key: tuple[str, ...] = ()
    fields: Mapping[str, str] = {}


class Subject(NamedTuple):
    """One table or model, by all that rules may know it by.

    ``path`` is the dotted name of its class, ``classes`` that class and those that stand for it, ``said``
    what the class says of itself, ``tables`` the names of its table, where patterns may be such.
    """

    label: str
    path: str = ""
    classes: tuple[type[Any], ...] = ()
    said: OptIn | None = None
    tables: tuple[str, ...] = ()


class TableRule(NamedTuple):
    """Where something was said.

    ``key`` is that within the section of the instrumentor, with the position within a list; of a rule of
    ``[[policy]]``, that of the whole configuration. Of what a class or code says, ``place`` is where it
    stands.
    """

    source: Literal["class", "code", "configuration", "policy"]
    text: str
    key: tuple[str, ...] = ()
    place: str = ""


class TableDecision(NamedTuple):
    """The settings of one subject, and the rule behind each that is not by default.

    ``rules`` has them by ``changes``, ``values``, ``reads``, ``old_values``, ``snapshot``, ``fields.<name>``
    and ``ignore.<pattern>``.
    """

    settings: TableSettings
    rules: Mapping[str, TableRule]


_Layer: TypeAlias = tuple[OptIn, TableRule]


def naming_patterns(section: CaptureSection) -> Iterator[tuple[str, str, str]]:
    """Yield the setting, the key of the item in it, and the pattern, of each that should name something."""
    settings: tuple[tuple[str, Iterable[str]], ...] = (
        ("models", section.models),
        ("reads", section.reads),
        ("model", section.model),
    )
    for setting, patterns in settings:
        for position, pattern in enumerate(patterns):
            if not pattern.startswith("!"):  # what is excluded need not be there
                yield setting, pattern if setting == "model" else str(position), pattern


def matches_name(pattern: str, name: str) -> bool:
    """Say whether a pattern, whose leading ``!`` does not count, matches a name, without case."""
    return _matcher(pattern.removeprefix("!"))(name.lower()) is not None


@lru_cache(maxsize=1024)  # rules of code are compared with every model
def _matcher(pattern: str) -> Callable[[str], Any]:
    return re.compile(translate(pattern.lower())).match


class ModelPattern:
    """A pattern over models: ``app_label.Model``, or with two dots and more the path of a class.

    Where a subject has names of its table, one of them will do.
    """

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.verdict = not pattern.startswith("!")
        bare = pattern.removeprefix("!")
        self._match = _matcher(bare)
        self._module, self._name = "", ""
        self._dotted = bare.count(".") > 1
        if self._dotted and not any(wild in bare for wild in "*?["):
            self._module, _, self._name = bare.rpartition(".")

    def matches(self, subject: Subject) -> bool:
        """Say whether it names a subject."""
        if any(self._match(table.lower()) is not None for table in subject.tables):
            return True
        if not self._dotted:
            return self._match(subject.label.lower()) is not None
        path = subject.path.lower()
        return self._match(path) is not None or (bool(self._name) and self._imports(subject, path))

    def _imports(self, subject: Subject, path: str) -> bool:
        """Say whether the path is another one the class is imported by: from a package above its module."""
        module, name = self._module.lower(), self._name.lower()
        if not (path.startswith(f"{module}.") and path.rpartition(".")[2] == name):
            return False
        found = getattr(sys.modules.get(self._module), self._name, None)  # not there while it is loading
        return found is None or any(found is each for each in subject.classes)


class LoweringRule:
    """A rule of ``[[policy]]`` about changes: it takes away from what the section says, and adds nothing."""

    def __init__(self, number: int, rule: PolicyRule) -> None:
        patterns = list(map(ModelPattern, rule.patterns("model")))
        self.records = rule.level != "none"
        self.rule = TableRule(
            "policy", f'policy {number}: level = "{rule.level}"', ("policy", str(number - 1))
        )
        self._meant = [pattern for pattern in patterns if pattern.verdict]
        self._excluded = [pattern for pattern in patterns if not pattern.verdict]

    def matches(self, subject: Subject) -> bool:
        """Say whether it is about a subject."""
        if any(pattern.matches(subject) for pattern in self._excluded):
            return False
        return not self._meant or any(pattern.matches(subject) for pattern in self._meant)


class TablePolicy:
    """What is said of every table or model; of ``rules``, those of ``[[policy]]``, the first decides."""

    def __init__(self, config: CaptureSection, rules: Sequence[PolicyRule] = ()) -> None:
        self.config = config
        numbered = enumerate(rules, 1)
        self._lowering = [LoweringRule(number, rule) for number, rule in numbered if "change" in rule.kinds]
        self._models = [ModelPattern(pattern) for pattern in config.models]
        self._reads = [ModelPattern(pattern) for pattern in config.reads]
        self._single = [
            (
                ModelPattern(pattern),
                OptIn(
                    "",
                    None,
                    said.reads,
                    said.old_values,
                    said.fields,
                    tuple(said.ignore),
                    said.snapshot,
                    tuple(said.encrypted),
                ),
            )
            for pattern, said in config.model.items()
        ]
        self._by_label: dict[str, TableSettings] = {}

    def settings(self, label: str) -> TableSettings:
        """Return the settings of a table that is known by its label alone."""
        found = self._by_label.get(label)
        if found is None:
            found = self._by_label[label] = self.decide(Subject(label)).settings
        return found

    def forget(self) -> None:
        """Decide anew: what code says has changed."""
        self._by_label.clear()

    def decide(self, subject: Subject, owner: Subject | None = None) -> TableDecision:
        """Decide about ``subject``; what is said of ``owner`` holds where nothing names it itself."""
        rules: dict[str, TableRule] = {}
        values: dict[str, Any] = {}
        strategies: dict[str, str] = {}
        ignore = [*self.config.ignore]
        encrypted: list[str] = []
        for position, pattern in enumerate(ignore):
            text = f"ignore: {pattern!r}"
            rules[f"ignore.{pattern}"] = TableRule("configuration", text, ("ignore", str(position)))
        names = (subject,) if owner is None else (subject, owner)
        for said, rule in self._layers(names):
            for name in ("changes", "reads", "old_values", "snapshot"):
                value = getattr(said, name)
                if value is not None:
                    values[name], rules[name] = value, rule
            for field, strategy in said.fields.items():
                strategies[field] = strategy
                rules[f"fields.{field}"] = _deeper(rule, "fields", field)
            encrypted += said.encrypted
            for position, pattern in enumerate(said.ignore):
                ignore.append(pattern)
                rules[f"ignore.{pattern}"] = _deeper(rule, "ignore", str(position))
        lowering = self._lowers(names) if values.get("changes") else None
        if lowering is not None:
            name = "values" if lowering.records else "changes"
            values[name], rules[name] = False, lowering.rule
        settings = TableSettings(
            values.get("changes", False),
            values.get("reads", False),
            values.get("old_values", self.config.old_values),
            strategies,
            tuple(ignore),
            values.get("snapshot", False),
            tuple(encrypted),
            values.get("values", True),
        )
        return TableDecision(settings, rules)

    def _lowers(self, names: Sequence[Subject]) -> LoweringRule | None:
        """Return the first rule about the first of ``names`` for which there is one."""
        for subject in names:
            for rule in self._lowering:
                if rule.matches(subject):
                    return rule
        return None

    def _layers(self, names: Sequence[Subject]) -> Iterator[_Layer]:
        """List what is said about the first of ``names``, or the others in its stead, the strongest last."""
        said = next((each.said for each in names if each.said is not None), None)
        if said is not None:
            yield said, TableRule("class", "__audit__", place=said.place)
        code = code_rules()
        for each in reversed(names):
            yield from (_of_code(rule) for rule in code if names_subject(rule, each))
        for setting, patterns in (("models", self._models), ("reads", self._reads)):
            found = _decisive(patterns, names)
            if found is not None:
                position, pattern = found
                verdict = pattern.verdict
                said = OptIn(changes=verdict) if setting == "models" else OptIn(reads=verdict)
                yield (
                    said,
                    TableRule("configuration", f"{setting}: {pattern.text!r}", (setting, str(position))),
                )
        for pattern, single in self._single:
            if any(pattern.matches(each) for each in names) and pattern.verdict:
                text = f'model."{pattern.text}"'
                yield single, TableRule("configuration", text, ("model", pattern.text))


def names_subject(rule: CodeRule, subject: Subject) -> bool:
    """Say whether a rule of code names a subject."""
    if rule.model is None:
        return ModelPattern(rule.pattern).matches(subject)
    model = rule.model()
    return model is not None and any(model is each for each in subject.classes)


def _of_code(rule: CodeRule) -> _Layer:
    return rule.said, TableRule("code", f"audit_models({rule.name})", place=rule.said.place)


def _deeper(rule: TableRule, *key: str) -> TableRule:
    return rule._replace(key=(*rule.key, *key)) if rule.source == "configuration" else rule


def _decisive(patterns: Iterable[ModelPattern], names: Iterable[Subject]) -> tuple[int, ModelPattern] | None:
    """Return the last pattern that matches the first of ``names`` for which there is one."""
    numbered = list(enumerate(patterns))
    for subject in names:
        for position, pattern in reversed(numbered):
            if pattern.matches(subject):
                return position, pattern
    return None
