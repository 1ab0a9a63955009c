"""What is recorded of one model or field, and which rule says so: asked for by `otel-audit explain model`.

``python -m otel_audit.instrumentation.django.inspection.explanation ANSWER NAME [CONFIG]`` loads the
application's apps, writes an :class:`Explanation` to the file ANSWER as JSON, and ends at once.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_audit import startup
from otel_audit.capture.opt_in import ATTRIBUTE
from otel_audit.capture.table_policy import TableDecision, TableRule
from otel_audit.config.loader import LoadedConfig
from otel_audit.config.nearest import nearest
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan, ModelPolicy
from otel_audit.redaction.names import NameRules

if TYPE_CHECKING:
    from django.db.models import Model

_OLD_VALUES: Final = {
    "as_loaded": "as the instance had loaded them, while that may be trusted",
    "exact": "read from the row, locked",
    "off": "as the instance had loaded them; nothing is asked of the database",
}
_STRATEGIES: Final = {
    "drop": "not recorded (drop)",
    "mask": "masked",
    "hmac": "as a keyed hash (hmac)",
    "keep": "recorded as it is (keep)",
}
_BY_NAME: Final = {
    "secret": "masked: by its name it is a secret",
    "secret_text": "masked: by its name it is a secret",
    "personal": "masked: by its name it is the number of a person or account",
    "ambiguous": "masked where its value is a number of a person or account, as its name may mean",
    "allowed": "recorded as it is: its name is allowed",
    "clean": "recorded; what looks like a secret in it is removed",
}


class Line(msgspec.Struct, frozen=True):
    """One answer: what about, what is so, which rule says it, and where that stands (empty: by default)."""

    subject: str
    answer: str
    rule: str = ""
    place: str = ""


class Explanation(msgspec.Struct, frozen=True):
    """What is recorded of a model, or of one field; ``unknown`` says what is wrong with the name."""

    name: str = ""
    about: str = ""
    lines: list[Line] = []
    notes: list[str] = []
    unknown: str = ""


def explain(name: str, loaded: LoadedConfig) -> Explanation:
    """Explain ``shop.Card``, ``shop.Card.number``, or the same by the path of the class."""
    from django.apps import apps

    models: list[type[Model]] = apps.get_models(include_auto_created=True)
    found = _find(name, models)
    if isinstance(found, str):
        return Explanation(unknown=found)
    model, field = found
    concrete: Any = model._meta.concrete_model
    config = loaded.config
    policy = ModelPolicy(config.django, NameRules.of(config.redaction), config.policy)
    decision = policy.decide_model(concrete)
    plan = ModelPlan(concrete, decision.settings, policy.keys(concrete))
    answers = _Answers(loaded, decision, plan)
    if field:
        [column] = [each for each in plan.fields if each.name == field]
        lines = [answers.changes(), *answers.of_field(column)]
    else:
        lines = [*answers.of_model()]
    return Explanation(
        name=f"{concrete._meta.label}.{field}" if field else concrete._meta.label,
        about=f"{concrete.__module__}.{concrete.__qualname__}, table {concrete._meta.db_table}",
        lines=lines,
        notes=[*_notes(model, policy)],
    )


def _find(name: str, models: list[type[Model]]) -> tuple[type[Model], str] | str:
    """Return the model and the field that are meant, or what is wrong with the name."""
    known = {
        key.lower(): model
        for model in models
        for key in (f"{model.__module__}.{model.__qualname__}", model._meta.label)
    }
    model = known.get(name.lower())
    if model is not None:
        return model, ""
    of, _, field = name.rpartition(".")
    model = known.get(of.lower())
    if model is None:
        dotted = name.count(".") > 2
        labels = [f"{m.__module__}.{m.__qualname__}" if dotted else m._meta.label for m in models]
        return f"no installed model is {name!r}{nearest(name, labels)}"
    concrete: Any = model._meta.concrete_model
    local = {each.name.lower(): each.name for each in concrete._meta.local_concrete_fields}
    local |= {each.attname.lower(): each.name for each in concrete._meta.local_concrete_fields}
    if field.lower() in local:
        return concrete, local[field.lower()]
    for each in concrete._meta.concrete_fields:
        if field.lower() in (each.name.lower(), each.attname.lower()):
            label = each.model._meta.label
            return f"{field!r} is a field of {label}: ask for {label}.{each.name}"
    for each in concrete._meta.many_to_many:
        if field.lower() == each.name.lower():
            through = each.remote_field.through._meta.label
            return f"{field!r} is a relation, whose rows are those of {through}: ask for {through}"
    return f"{concrete._meta.label} has no field {field!r}{nearest(field, sorted(set(local.values())))}"


class _Answers:
    """Puts the decision about one model into words."""

    def __init__(self, loaded: LoadedConfig, decision: TableDecision, plan: ModelPlan) -> None:
        self._loaded = loaded
        self._settings = decision.settings
        self._rules = decision.rules
        self._plan = plan
        self._names = NameRules.of(loaded.config.redaction)

    def changes(self) -> Line:
        return self._line("changes", "recorded" if self._settings.audited else "not recorded")

    def of_model(self) -> Iterator[Line]:
        settings = self._settings
        yield self.changes()
        if not settings.values:
            yield self._line("values", "not recorded: only which fields are changed")
        yield self._line("reads", "recorded" if settings.reads else "not recorded")
        if not (settings.audited or settings.reads):
            return
        old_values = self._line("old_values", _OLD_VALUES[settings.old_values])
        if "old_values" not in self._rules and (place := self._loaded.where("django", "old_values")):
            old_values = msgspec.structs.replace(
                old_values, rule=f'old_values = "{settings.old_values}"', place=place
            )
        yield old_values
        row = "the whole row with every update" if settings.snapshot else "what an update writes"
        yield self._line("snapshot", row)
        for field in self._plan.fields:
            told = [*self.of_field(field)]
            yield from (line for line in told if line.rule)

    def of_field(self, field: ModelFieldPlan) -> Iterator[Line]:
        yield self._value(field)
        pattern = self._settings.decisive_ignore(field.name)
        if pattern:
            counts = "counts as a change" if pattern.startswith("!") else "does not count as a change"
            yield self._line(field.name, counts, rule=self._rules[f"ignore.{pattern}"])
        elif field.automatic:
            yield Line(field.name, "does not count as a change", "auto_now")
        else:
            yield Line(field.name, "counts as a change")

    def _value(self, field: ModelFieldPlan) -> Line:
        name = field.name
        if not self._settings.values:
            return self._line(name, "not recorded: only that it is changed", rule=self._rules["values"])
        strategy = self._plan.strategies.get(name)
        rule = self._rules.get(f"fields.{name}")
        if rule is not None:
            return self._line(name, _strategy(self._settings.strategies[name]), rule=rule)
        if field.hidden:
            return Line(name, "masked", "its class says that it encrypts")
        if strategy is not None and strategy != "keep":
            return Line(name, "masked", "it is, or refers to, a key that is a secret")
        found = "clean" if strategy == "keep" else self._names.decide(name)
        own = self._names.own(name)
        place = ""
        if own is not None:
            setting = "allow" if own == "allowed" else "names"
            place = self._loaded.where("redaction", setting)
            return Line(name, _BY_NAME[found], f"redaction.{setting}", place)
        return Line(name, _BY_NAME[found], "" if found == "clean" else "built-in rules on names")

    def _line(self, subject: str, answer: str, rule: TableRule | None = None) -> Line:
        rule = self._rules.get(subject) if rule is None else rule
        subject = {"old_values": "old values", "snapshot": "row"}.get(subject, subject)
        if rule is None:
            return Line(subject, answer)
        return Line(subject, answer, rule.text, self._place(rule))

    def _place(self, rule: TableRule) -> str:
        if rule.source == "configuration":
            return self._loaded.where("django", *rule.key)
        if rule.source == "policy":
            return self._loaded.where(*rule.key)
        if rule.source == "class":
            return _with_line(rule.place)
        return rule.place


def _strategy(strategy: str) -> str:
    name, _, count = strategy.partition(":")
    if name == "keep_last":
        return f"masked but for its last {count or 4} characters ({strategy})"
    return _STRATEGIES.get(strategy, "masked")


def _with_line(place: str) -> str:
    """Add file and line to the dotted name of an attribute of a class, where its source is at hand."""
    with suppress(OSError, TypeError, AttributeError, KeyError, ImportError, SyntaxError):
        name = place.removesuffix(f".{ATTRIBUTE}")
        module, _, qualname = name.rpartition(".")
        found: Any = getattr(sys.modules[module], qualname)
        lines, first = inspect.getsourcelines(found)
        number = next((n for n, line in enumerate(lines) if line.lstrip().startswith(ATTRIBUTE)), 0)
        path = Path(inspect.getsourcefile(found) or "")
        with suppress(ValueError):
            path = path.relative_to(Path.cwd())
        return f"{path}:{first + number} ({name})"
    return place


def _notes(model: type[Model], policy: ModelPolicy) -> Iterator[str]:
    meta: Any = model._meta
    concrete: Any = meta.concrete_model
    if meta.proxy:
        yield f"{meta.label} is a proxy: its rows are those of {concrete._meta.label}"
    owner = concrete._meta.auto_created
    if owner:
        yield f"it follows {owner._meta.label}, which declares the relation, where nothing names it itself"
    for parent in concrete._meta.parents:
        if not parent._meta.proxy and policy.of(concrete).audited != policy.of(parent).audited:
            does = "are" if policy.of(parent).audited else "are not"
            yield f"its columns in the table of {parent._meta.label} {does} recorded, as those of that model"


def main() -> None:
    """Answer `otel-audit explain model`."""
    path, name, *config_file = sys.argv[1:]
    import django

    django.setup()
    loaded = startup.load_config(config_file[0] if config_file else None)
    Path(path).write_bytes(msgspec.json.encode(explain(name, loaded)))
    os._exit(0)


if __name__ == "__main__":
    main()
