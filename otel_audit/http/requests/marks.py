"""What a view says of the records of its requests: decorators and mixins.

A decorator returns the function or class that it is given, with an attribute: nothing is called, signatures
stay. ``functools.wraps`` takes the attribute along, so other decorators may stand above it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar, Final, Literal, TypeVar
from uuid import UUID

import msgspec

from otel_audit.audit_record import Target
from otel_audit.interruptions import faults
from otel_audit.policy import Level
from otel_audit.targets import target_of
from otel_audit.values import Conversion

View = TypeVar("View", bound=Callable[..., Any])
LevelName = Literal["none", "metadata", "request", "request_response"]

_ATTRIBUTE: Final = "__audit_request__"


class Marks(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of a view; empty and None: nothing.

    ``related`` are targets, and texts such as ``shop.Order/{pk}`` with parameters of the path.
    """

    exempt: bool | None = None
    level: Level | None = None
    slug: str = ""
    event_type: str = ""
    event_code: str = ""
    related: tuple[Target | str, ...] = ()
    hide_body: bool | None = None

    def over(self, other: Marks | None) -> Marks:
        """Return what these say, and where they say nothing what ``other`` says."""
        if other is None:
            return self
        said = {
            name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) not in _UNSAID
        }
        return msgspec.structs.replace(other, **said)

    def texts(self) -> dict[str, str]:
        """Return the texts of a record that are said, by its field."""
        said = {"slug": self.slug, "event_code": self.event_code, "event_type": self.event_type}
        return {name: text for name, text in said.items() if text}

    def targets(self, parameters: Mapping[str, Any]) -> list[Target]:
        """Return the related objects of a request with these parameters in its path."""
        found = []
        for each in self.related:
            target = target_of(_filled(each, parameters)) if isinstance(each, str) else each
            if target is not None:
                found.append(target)
        return found


_UNSAID: Final[tuple[Any, ...]] = (None, "", ())
_PARAMETER: Final = re.compile(r"\{([^\W\d]\w*)\}")


def _filled(text: str, parameters: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        found = parameters.get(match[1])
        return str(found) if type(found) in (str, int, UUID) else ""

    return _PARAMETER.sub(value, text)


class Marked:
    """The highest level that any view of this process asks for: before a route is known, it may be meant."""

    highest: ClassVar[Level] = Level.NONE


def audit_exempt(view: View) -> View:
    """Make no record of the requests of a view; what happens in them is recorded as ever.

    For functions, sync and async, methods such as ``post``, and classes: class-based views of Django and
    Flask, those of Django REST framework, endpoints of Starlette, controllers of Litestar; and for whole ASGI
    and WSGI applications that our middleware is put around. A rule of ``[[policy]]`` that names the view, its
    route or its path is stronger.
    """
    return _mark(view, Marks(exempt=True))


def audit_request(
    *,
    slug: Any = "",
    level: LevelName | None = None,
    related: Any = (),
    hide_body: bool = False,
    event_type: Any = "",
    event_code: Any = "",
) -> Callable[[View], View]:
    """Say what the record of a view's requests is to be.

    For the same as :func:`audit_exempt`. What :func:`otel_audit.annotate` says in the view stands over it.

    Args:
        slug: a short name for what is done: ``pay-invoice``.
        level: how much is recorded: ``none``, ``metadata``, ``request`` or ``request_response``. A rule of
            ``[[policy]]`` that names the view, its route or its path is stronger.
        related: objects that the requests are about, or one, as for :func:`otel_audit.relate`; in a text,
            parameters of the path may stand: ``shop.Order/{pk}``.
        hide_body: never record the bodies, whatever the policy says.
        event_type: the application's own kind of event.
        event_code: the application's code for this kind of event.

    Raises:
        ValueError: ``level`` is no level.
    """
    marks = _marks(slug, level, related, event_type, event_code, hide_body=hide_body)
    return lambda view: _mark(view, marks)


def _marks(
    slug: Any, level: str | None, related: Any, event_type: Any, event_code: Any, *, hide_body: bool
) -> Marks:
    chosen = None if level is None else _level(level)
    if chosen is not None and chosen > Marked.highest:
        Marked.highest = chosen
    convert = Conversion()
    return Marks(
        level=chosen,
        slug=convert.text(slug),
        event_type=convert.text(event_type),
        event_code=convert.text(event_code),
        related=_related(related),
        hide_body=hide_body or None,
    )


def _level(name: str) -> Level:
    try:
        return Level[name.upper()]
    except KeyError:
        names = ", ".join(level.name.lower() for level in Level)
        raise ValueError(f"level is {name!r}; write one of {names}") from None


def _related(related: Any) -> tuple[Target | str, ...]:
    single = isinstance(related, str | Target) or not isinstance(related, list | tuple | set | frozenset)
    found: list[Target | str] = []
    for each in (related,) if single else related:
        known = each if isinstance(each, str) else target_of(each)
        if known:
            found.append(known)
    return tuple(found)


def _mark(view: View, marks: Marks) -> View:
    own = vars(view).get(_ATTRIBUTE) if hasattr(view, "__dict__") else None
    setattr(view, _ATTRIBUTE, marks.over(own))
    return view


class AuditExemptMixin:
    """A class whose requests are not recorded, as with :func:`audit_exempt`."""

    __audit_request__ = Marks(exempt=True)


class AuditRequestMixin:
    """A class that says what :func:`audit_request` says, by attributes of the same names."""

    audit_slug: ClassVar[Any] = ""
    audit_level: ClassVar[LevelName | None] = None
    audit_related: ClassVar[Any] = ()
    audit_hide_body: ClassVar[bool] = False
    audit_event_type: ClassVar[Any] = ""
    audit_event_code: ClassVar[Any] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        marks = _marks(
            cls.audit_slug,
            cls.audit_level,
            cls.audit_related,
            cls.audit_event_type,
            cls.audit_event_code,
            hide_body=cls.audit_hide_body,
        )
        setattr(cls, _ATTRIBUTE, marks)


def marks_of(view: Any, method: str) -> Marks | None:
    """Return what a view, its class and the method that answers say; the innermost counts. Never raises.

    Args:
        view: what the route leads to: a function, what ``as_view()`` returned, a class, Litestar's handler.
        method: that of the request.
    """
    try:
        if type(view) is FunctionType and not vars(view):
            return None  # nobody has said anything of it
        return _found(view, method.lower())
    except faults():  # a class of the application's may say anything of itself
        return None


def said_of(marks: Marks | None) -> str:
    """Return what marks say, as it is written: ``audit_request(slug='pay', level='request')``."""
    if marks is None:
        return ""
    names = ("slug", "event_type", "event_code")
    said = [f"{name}={text!r}" for name in names if (text := getattr(marks, name))]
    if marks.level is not None:
        said.append(f"level={marks.level.text!r}")
    if marks.related:
        said.append(f"related={[str(each) for each in marks.related]}")
    if marks.hide_body:
        said.append("hide_body=True")
    written = [f"audit_request({', '.join(said)})"] if said else []
    return " and ".join([*written, *(["audit_exempt"] if marks.exempt else [])])


def _found(view: Any, method: str) -> Marks | None:
    marks: Marks | None = _of(view)
    inner = view.func if isinstance(view, functools.partial) else getattr(view, "fn", None)  # Litestar's
    if inner is not None:
        return _over(_found(inner, method), marks)
    holder = getattr(view, "__self__", None)  # of a method: a controller
    if holder is not None:
        return _over(marks, _of(holder))
    cls = view if isinstance(view, type) else getattr(view, "view_class", None) or getattr(view, "cls", None)
    if cls is None:
        return marks
    if cls is not view:
        marks = _over(marks, _of(cls))
    actions = getattr(view, "actions", None)  # of a view set, by method
    name = actions.get(method) if isinstance(actions, dict) else method
    if not name or not hasattr(cls, name):
        name = "get" if method == "head" else "dispatch"
        if not hasattr(cls, name):
            name = "dispatch_request"  # Flask's
    return _over(_of(getattr(cls, name, None)), marks)


def _of(view: Any) -> Marks | None:
    marks = getattr(view, _ATTRIBUTE, None)
    return marks if isinstance(marks, Marks) else None


def _over(inner: Marks | None, outer: Marks | None) -> Marks | None:
    return outer if inner is None else inner.over(outer)
