"""What all tables of the configuration share: their class, and the types of their settings."""

from typing import Annotated, Any, TypeAlias, get_type_hints

import msgspec
from msgspec import Meta

SECRET = {"secret": True}
"""Metadata of a setting whose value is never shown."""

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
Bytes: TypeAlias = Annotated[int, Meta(ge=0)]
BODY_BYTES = 16 * 1024
"""The most that is recorded of a body by default."""
MaxRequestBody: TypeAlias = Annotated[
    Bytes, Meta(description="The most that is recorded of the body of a request; a rule may say otherwise.")
]
MaxResponseBody: TypeAlias = Annotated[
    Bytes, Meta(description="The most that is recorded of the body of a response; a rule may say otherwise.")
]
Strategy: TypeAlias = Annotated[str, Meta(pattern=r"^(drop|mask|hmac|keep_last(:\d+)?|keep)$")]
"""``drop``, ``mask``, ``keep_last`` or ``keep_last:N``, ``hmac``; ``keep`` exempts a name from the rules."""
Age: TypeAlias = Annotated[str, Meta(pattern=r"^([1-9]\d{0,5}(h|d|w|mo|y)|forever)$")]
"""``90d``, ``18mo``, ``7y`` …, or ``forever``."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    def __repr__(self) -> str:
        """Return the settings without secrets: a representation ends in logs and tracebacks."""
        hints = get_type_hints(type(self), include_extras=True)
        shown = (
            f"{name}={'[hidden]' if value and _is_secret(hints[name]) else repr(value)}"
            for name, value in ((name, getattr(self, name)) for name in self.__struct_fields__)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def _is_secret(hint: Any) -> bool:
    return any(getattr(meta, "extra", None) == SECRET for meta in getattr(hint, "__metadata__", ()))
