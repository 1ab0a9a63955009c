"""What stands beside a model about its audit: ``__audit__`` on its class, :func:`audit_models` in code.

Nothing said here can cost a record or the application: what cannot be understood is named once in the log,
and counts as the answer under which more is recorded or more is masked.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, TypeAlias, get_args

from otel_audit.config.checks import model_pattern_problems
from otel_audit.config.model import Strategy
from otel_audit.config.nearest import nearest
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

_logger = logging.getLogger(__name__)

OldValues: TypeAlias = Literal["as_loaded", "exact", "off"]

ATTRIBUTE: Final = "__audit__"
_STRATEGY: Final = re.compile(get_args(Strategy)[1].pattern)
_MOST_PROBLEMS: Final = 1000


class OptIn(NamedTuple):
    """What one place says of a model; ``None`` and nothing: it does not say.

    ``place`` is a file and line, or the dotted name of an attribute.
    """

    place: str = ""
    changes: bool | None = None
    reads: bool | None = None
    old_values: OldValues | None = None
    fields: Mapping[str, str] = {}
    ignore: tuple[str, ...] = ()
    snapshot: bool | None = None
    encrypted: tuple[str, ...] = ()


class CodeRule(NamedTuple):
    """One model or pattern given to :func:`audit_models`; ``model`` is a weak reference to a class."""

    pattern: str
    model: weakref.ref[type[Any]] | None
    said: OptIn

    def same(self, other: CodeRule) -> bool:
        """Say whether both say the same of the same, from wherever."""
        return (self.pattern, self.model) == (other.pattern, other.model) and self.said[1:] == other.said[1:]

    @property
    def name(self) -> str:
        """What it names, as a program writes it."""
        model = None if self.model is None else self.model()
        return repr(self.pattern) if model is None else model.__qualname__


Listener: TypeAlias = Callable[[Sequence[CodeRule]], None]


class _State:
    """What this process was told by code."""

    lock: Final = threading.Lock()
    rules: tuple[CodeRule, ...] = ()
    listeners: tuple[Listener, ...] = ()
    problems: Final[dict[str, None]] = {}


def audit_models(
    *models: type[Any] | str,
    changes: bool = True,
    reads: bool | None = None,
    old_values: OldValues | None = None,
    fields: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    snapshot: bool | None = None,
    encrypted: Sequence[str] = (),
) -> None:
    """Audit models from code: those of other packages, or those only the program knows.

    May be called before or after audit is started and the models are loaded, and again: what a later call
    says is laid over what an earlier one said, and over ``__audit__`` on the class. The configuration file
    wins over all of them. A name that no model has is logged once all are loaded; nothing is raised.

    Args:
        models: classes (an abstract one stands for all that inherit from it), or patterns as in
            ``[django] models``: ``"shop.Order"``, ``"shop.*"``, ``"!shop.Log"``,
            ``"project.shop.models.Order"``.
        changes: record what is written; ``False`` takes back what was said before.
        reads: record what is read: one record per query.
        old_values: where old values of a save come from: ``as_loaded``, ``exact`` or ``off``.
        fields: name of a field to strategy: ``drop``, ``mask``, ``keep_last:N``, ``hmac``, ``keep``.
        ignore: names of fields that do not count, with ``*``, ``?`` and a leading ``!``.
        snapshot: record the whole row with every update.
        encrypted: names of fields that store the same value differently each time, with ``*`` and ``?``.
    """
    place = _place(sys._getframe(1))
    given = {
        "changes": changes,
        "reads": reads,
        "old_values": old_values,
        "fields": {} if fields is None else fields,
        "ignore": ignore,
        "snapshot": snapshot,
        "encrypted": encrypted,
    }
    said = _Reader(f"{place}: audit_models()").read(given)._replace(place=place)
    _add([rule for model in models for rule in _code_rules(model, said)])


def code_rules() -> tuple[CodeRule, ...]:
    """Return what code has said so far, the last that holds at the end."""
    return _State.rules


def listen(listener: Listener) -> None:
    """Call ``listener`` with the rules that code adds from now on."""
    with _State.lock:
        _State.listeners = (*_State.listeners, listener)


def unlisten(listener: Listener) -> None:
    """Undo :func:`listen`."""
    with _State.lock:
        _State.listeners = tuple(each for each in _State.listeners if each != listener)


def problems() -> list[str]:
    """Return what was said and could not be understood so far, each once."""
    return list(_State.problems)


def said_by_class(cls: type[Any]) -> OptIn | None:
    """Return what the attribute ``__audit__`` of a class or of its nearest base says; None if nothing."""
    owner = owner_of_attribute(cls)
    value = None if owner is None else vars(owner)[ATTRIBUTE]
    if owner is None or value is None:
        return None
    name = f"{owner.__module__}.{owner.__qualname__}"
    reader = _Reader(f"{ATTRIBUTE} of {name}")
    try:
        if isinstance(value, Mapping):
            said = reader.read(value)
        else:
            said = OptIn(changes=reader.flag("it", value, "True, False or a dict of options"))
    except faults() as error:  # an object of the application's own
        _tell(f"{ATTRIBUTE} of {name} cannot be read ({type(error).__name__}); it counts as True")
        said = OptIn()
    return said._replace(place=f"{name}.{ATTRIBUTE}", changes=said.changes is not False)


def owner_of_attribute(cls: type[Any]) -> type[Any] | None:
    """Return the class in whose body the ``__audit__`` of ``cls`` stands."""
    return next((each for each in cls.__mro__ if ATTRIBUTE in vars(each)), None)


def _code_rules(model: object, said: OptIn) -> Iterable[CodeRule]:
    if isinstance(model, type):
        yield CodeRule("", weakref.ref(model), said)
    elif isinstance(model, str):
        pattern = str.__str__(model)
        problem = next(model_pattern_problems(pattern), None)
        if problem is not None:
            _tell(f"{said.place}: audit_models(): {problem}")
        elif pattern.startswith("!"):
            reads = None if said.reads is None else False
            yield CodeRule(pattern[1:], None, OptIn(said.place, changes=False, reads=reads))
        else:
            yield CodeRule(pattern, None, said)
    elif isinstance(model, list | tuple | set | frozenset):
        _tell(f"{said.place}: audit_models() takes models one by one: write audit_models(*models)")
        for each in model:
            if not isinstance(each, list | tuple | set | frozenset):
                yield from _code_rules(each, said)
    else:
        _tell(
            f"{said.place}: audit_models(): {_shown(model)} is neither a model class nor a pattern such as "
            "'shop.Order'"
        )


def _add(rules: Sequence[CodeRule]) -> None:
    with _State.lock:
        known = _State.rules
        kept = [
            rule
            for rule in known
            if (rule.model is None or rule.model() is not None) and not any(map(rule.same, rules))
        ]
        _State.rules = (*kept, *rules)
        listeners = _State.listeners
        # Said again, and nothing else since: whoever has heard it need not decide anew.
        repeated = len(known) == len(_State.rules) and all(map(CodeRule.same, known, _State.rules))
    if repeated:
        return
    for listener in listeners:
        listener(rules)


def _place(frame: FrameType) -> str:
    path = frame.f_code.co_filename
    with suppress(ValueError, OSError):  # elsewhere, or the working directory is gone
        path = str(Path(path).relative_to(Path.cwd()))
    return f"{path}:{frame.f_lineno}"


def _tell(problem: str) -> None:
    if problem not in _State.problems and len(_State.problems) < _MOST_PROBLEMS:
        _State.problems[problem] = None
        _logger.warning("%s", problem)


def _shown(value: object) -> str:
    """Show a value without running its code, and without its content where that may be large."""
    if type(value) is str:
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if value is None or type(value) in (bool, int, float):
        text = repr(value)
        return text if len(text) <= 40 else type(value).__name__
    return f"an object of {type(value).__qualname__}"


class _Reader:
    """Reads options one by one; ``where`` is what messages begin with."""

    def __init__(self, where: str) -> None:
        self._where = where

    def read(self, options: Mapping[Any, Any]) -> OptIn:
        """Return the options as far as they can be understood."""
        try:
            given = list(options.items())
        except faults() as error:  # a mapping of the application's own
            self._tell(f"its options cannot be read ({type(error).__name__}); it counts as True")
            return OptIn()
        found: dict[str, Any] = {}
        for name, value in given:
            if type(name) is not str or name not in _OPTIONS:
                hint = nearest(name, _OPTIONS) if type(name) is str else f"; valid are {', '.join(_OPTIONS)}"
                self._tell(f"{_shown(name)} is not an option{hint}")
                continue
            try:
                found[name] = _OPTIONS[name](self, name, value)
            except faults() as error:  # a value of the application's own
                self._tell(f"{name} cannot be read: {type(error).__name__}")
        return OptIn(**found)

    def _tell(self, problem: str) -> None:
        _tell(f"{self._where}: {problem}")

    def flag(self, name: str, value: object, expected: str = "True or False") -> bool:
        """Read a switch; what is none counts as on."""
        if value is True or value is False:
            return value
        self._tell(f"{name} must be {expected}, not {_shown(value)}; it counts as True")
        return True

    def switch(self, name: str, value: object) -> bool | None:
        return None if value is None else self.flag(name, value)

    def old_values(self, name: str, value: object) -> OldValues | None:
        valid = get_args(OldValues)
        text = _text(value)
        if value is not None and text not in valid:
            self._tell(f"{name} must be one of {', '.join(valid)}, not {_shown(value)}; it is ignored")
            return None
        return text  # type: ignore[return-value]

    def ignore(self, name: str, value: object) -> tuple[str, ...]:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            self._tell(f'{name} must be a list of names of fields, such as ["version"], not {_shown(value)}')
            return ()
        found = []
        for each in value:
            text = _text(each)
            if not text or text == "!":
                self._tell(f"{name} has {_shown(each)}, which is not the name of a field")
            else:
                found.append(text)
        return tuple(found)

    def fields(self, name: str, value: object) -> Mapping[str, str]:
        if isinstance(value, list | tuple | set | frozenset):
            self._tell(f"{name} must be a dict of field to strategy; those it lists are masked")
            return {text: "mask" for each in value if (text := _text(each))}
        if not isinstance(value, Mapping):
            self._tell(f'{name} must be a dict of field to strategy, such as {{"number": "mask"}}')
            return {}
        found: dict[str, str] = {}
        for key, strategy in value.items():
            field, text = _text(key), _text(strategy)
            if not field:
                self._tell(f"{name} has {_shown(key)}, which is not the name of a field")
            elif text is None or _STRATEGY.match(text) is None:
                self._tell(
                    f"{_shown(strategy)} is not a strategy of {name}[{field!r}]"
                    f"{nearest(text or '', _STRATEGIES)}; the field is masked"
                )
                found[field] = "mask"
            else:
                found[field] = text
        return found


_OPTIONS: Final[dict[str, Callable[[_Reader, str, Any], Any]]] = {
    "changes": _Reader.switch,
    "reads": _Reader.switch,
    "old_values": _Reader.old_values,
    "fields": _Reader.fields,
    "ignore": _Reader.ignore,
    "snapshot": _Reader.switch,
    "encrypted": _Reader.ignore,
}
_STRATEGIES: Final = ("drop", "mask", "hmac", "keep_last", "keep")


def _text(value: object) -> str | None:
    """Return a text, also that of a member of an enumeration, as a plain one."""
    return str.__str__(value) if isinstance(value, str) else None
