"""What is said about models and fields that are not there: by the configuration, by classes and by code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_audit.capture.opt_in import CodeRule, OptIn, code_rules, owner_of_attribute, said_by_class
from otel_audit.capture.table_policy import (
    ModelPattern,
    Subject,
    matches_name,
    names_subject,
    naming_patterns,
)
from otel_audit.config.model import AuditConfig
from otel_audit.config.nearest import nearest
from otel_audit.instrumentation.django.plan import ModelPolicy, subject
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from django.db.models import Model

Where = Callable[..., str]
"""Says where a setting, or an item of one, was written; empty where that is not known."""
_PATTERNS_ARE: Final = "Patterns are app_label.Model, with * and ?, or the path of a class."


class Mistake(msgspec.Struct, frozen=True):
    """Something that names nothing, and what was perhaps meant."""

    sentence: str
    hint: str


class _Said(NamedTuple):
    """What one place says, and the models it is about."""

    place: str
    said: OptIn
    models: Sequence[type[Model]]


def mistakes(config: AuditConfig, where: Where = lambda *key: "") -> Iterator[Mistake]:
    """Find patterns that match no model, and names of fields that none of their models has.

    The apps must be ready.
    """
    from django.apps import apps

    installed = _Installed(list(apps.get_models(include_auto_created=True)))
    yield from _patterns(config, installed, where)
    for rule in code_rules():
        yield from _named_by_code(rule, installed)
    policy = ModelPolicy(config.django, rules=config.policy)
    yield from _ignored_everywhere(config, installed, policy, where)
    beside = [*_by_code(installed), *_by_class(installed)]
    for each in (*_configured(config, installed, where), *beside):
        yield from _fields(each)
        yield from _ignored(each)
        if each.said.snapshot and each.models and not any(policy.of(model).audited for model in each.models):
            yield Mistake(
                f"{each.place} has snapshot, and none of its models is audited.", "Name it in django.models."
            )
    if not config.redaction.hmac_key:
        for each in beside:
            for field, strategy in each.said.fields.items():
                if strategy == "hmac":
                    yield Mistake(
                        f"{each.place}: fields[{field!r}] is hmac, and there is no key: it is masked.",
                        "Set redaction.hmac_key (OTEL_AUDIT_REDACTION_HMAC_KEY).",
                    )


class _Installed:
    """The models of the application, by what patterns know them by."""

    def __init__(self, models: Sequence[type[Model]]) -> None:
        self.concrete = {model: subject(model) for model in models if not model._meta.proxy}
        self.proxies = {
            model: Subject(model._meta.label, f"{model.__module__}.{model.__qualname__}")
            for model in models
            if model._meta.proxy
        }

    def matching(self, matches: Callable[[Subject], bool]) -> list[type[Model]]:
        """Return the models that something names, and the tables of relations that follow them."""
        found = [model for model, known in self.concrete.items() if matches(known)]
        owners: Any = found
        return [*found, *(each for each in self.concrete if each._meta.auto_created in owners)]

    def names(self, *, dotted: bool) -> list[str]:
        known = (*self.concrete.values(), *self.proxies.values())
        return [each.path if dotted else each.label for each in known]


def _patterns(config: AuditConfig, installed: _Installed, where: Where) -> Iterator[Mistake]:
    for setting, key, pattern in naming_patterns(config.django):
        place = _placed(where("django", setting, key), f"django.{setting}")
        yield from _pattern(f"{place} has the pattern {pattern!r}", pattern, installed)
    for position, rule in enumerate(config.policy):
        place = _placed(where("policy", str(position)), "policy.model")
        for pattern in rule.patterns("model"):
            # With SQLAlchemy it may be a table; Django alone has these.
            if not pattern.startswith("!") and not config.sqlalchemy.models:
                yield from _pattern(f"{place} has the pattern {pattern!r}", pattern, installed)


def _named_by_code(rule: CodeRule, installed: _Installed) -> Iterator[Mistake]:
    place = f"{rule.said.place}: audit_models()"
    if rule.model is None:
        if rule.said.changes is not False:  # what is excluded need not be there
            yield from _pattern(f"{place} has the pattern {rule.pattern!r}", rule.pattern, installed)
        return
    model: Any = rule.model()
    if model is None or any(names_subject(rule, known) for known in installed.concrete.values()):
        return
    meta = vars(model).get("_meta")
    swapped = getattr(meta, "swapped", None)
    if swapped:
        yield Mistake(f"{place} names {meta.label}, which is swapped out.", f"Did you mean {swapped!r}?")
    elif getattr(meta, "concrete_model", None) is None:
        lacks = "no installed model inherits from it" if meta is not None else "it is not a model"
        yield Mistake(f"{place} names the class {model.__qualname__}, and {lacks}.", _PATTERNS_ARE)


def _pattern(what: str, pattern: str, installed: _Installed) -> Iterator[Mistake]:
    matches = ModelPattern(pattern).matches
    if any(map(matches, installed.concrete.values())):
        return
    for proxy, known in installed.proxies.items():
        if matches(known):
            concrete = proxy._meta.concrete_model
            label = "" if concrete is None else concrete._meta.label
            yield Mistake(
                f"{what}, which is a proxy: its rows are recorded as {label}.", f"Did you mean {label!r}?"
            )
            return
    yield Mistake(f"{what}, which matches no installed model.", _hint_of_model(pattern, installed))


def _hint_of_model(pattern: str, installed: _Installed) -> str:
    from django.apps import apps

    for model in apps.get_models(include_swapped=True):
        if model._meta.swapped and model._meta.label.lower() == pattern.lower():
            return f"It is swapped out: did you mean {model._meta.swapped!r}?"
    near = get_close_matches(pattern, installed.names(dotted=pattern.count(".") > 1), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else _PATTERNS_ARE


# --- fields ------------------------------------------------------------------------------------


def _configured(config: AuditConfig, installed: _Installed, where: Where) -> Iterator[_Said]:
    for pattern, model in config.django.model.items():
        matching = installed.matching(ModelPattern(pattern).matches)
        said = OptIn(fields=model.fields, ignore=tuple(model.ignore), snapshot=model.snapshot)
        place = _placed(where("django", "model", pattern), f'[django.model."{pattern}"]')
        yield _Said(place, said, [] if pattern.startswith("!") else matching)


def _by_code(installed: _Installed) -> Iterator[_Said]:
    for rule in code_rules():
        matching = installed.matching(lambda known, rule=rule: names_subject(rule, known))  # type: ignore[misc]
        yield _Said(f"{rule.said.place}: audit_models({rule.name})", rule.said, matching)


def _by_class(installed: _Installed) -> Iterator[_Said]:
    about: dict[type, list[type[Model]]] = {}
    for model in (*installed.concrete, *installed.proxies):
        owner = owner_of_attribute(model)
        concrete: Any = model._meta.concrete_model
        if owner is not None and concrete not in about.setdefault(owner, []):
            about[owner].append(concrete)
    for owner, models in about.items():
        said = said_by_class(owner)
        if said is not None:
            yield _Said(said.place, said, models)


def _fields(each: _Said) -> Iterator[Mistake]:
    names = _names(each.models)
    for field in each.said.fields if each.models else ():
        if field not in names:
            what = f"{each.place} says in fields how {field!r} is redacted"
            yield Mistake(f"{what}, and none of its models has such a field.", _hint(field, each.models))


def _ignored(each: _Said) -> Iterator[Mistake]:
    names = _names(each.models)
    for pattern in each.said.ignore if each.models else ():
        if not any(matches_name(pattern, name) for name in names):
            what = f"{each.place} ignores {pattern!r}"
            yield Mistake(f"{what}, and none of its models has such a field.", _hint(pattern, each.models))


def _ignored_everywhere(
    config: AuditConfig, installed: _Installed, policy: ModelPolicy, where: Where
) -> Iterator[Mistake]:
    if not config.django.ignore:
        return
    models = [model for model in installed.concrete if policy.of(model).audited]
    names = _names(models)
    for position, pattern in enumerate(config.django.ignore):
        if models and not any(matches_name(pattern, name) for name in names):
            place = _placed(where("django", "ignore", str(position)), "django.ignore")
            yield Mistake(
                f"{place} has {pattern!r}, and no audited model has such a field.", _hint(pattern, models)
            )


def _names(models: Iterable[type[Model]]) -> set[str]:
    return {field.name for model in models for field in model._meta.local_concrete_fields}


def _hint(name: str, models: Collection[type[Model]]) -> str:
    """Say what was perhaps meant by the name of a field that these models do not have."""
    for model in models:
        for field in model._meta.concrete_fields:
            if field.name == name:  # not a local one
                return f"It is a field of {field.model._meta.label}: write it there."
            if field.attname == name:
                return f"Did you mean {field.name!r}?"
        for relation in model._meta.local_many_to_many:
            through: Any = relation.remote_field.through
            if relation.name == name:
                return f"It is a relation: its rows are those of {through._meta.label}."
    hint = nearest(name, sorted(_names(models)))
    return f"{hint[2:3].upper()}{hint[3:]}" or "Fields are named as in the model."


def _placed(place: str, name: str) -> str:
    return f"{place}: {name}" if place else name
