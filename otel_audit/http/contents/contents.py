"""The face of contents: each function by the rules of its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import addresses, command_lines, exceptions, headers, output, parameters
from otel_audit.http.contents.bodies import body
from otel_audit.http.contents.bodies.body import Body
from otel_audit.http.contents.bodies.forms import Field, File
from otel_audit.redaction.redactor import Redactor
from otel_audit.values import Portable

_LIMIT: Final = parameters.LIMIT
_OUTPUT_LIMIT: Final = output.LIMIT


class Contents:
    """What a record shows of headers, addresses, bodies, arguments, output and exceptions. Thread safe.

    Args:
        redactor: the rules.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._headers = redactor.at("headers")
        self._queries = redactor.at("queries")
        self._bodies = redactor.at("bodies")
        self._arguments = redactor.at("arguments")

    @classmethod
    def of(cls, config: AuditConfig) -> Contents:
        """Return contents by the rules of a configuration.

        Raises:
            ConfigurationError: one of its patterns is not valid.
        """
        return cls(Redactor(config.redaction))

    def headers(self, pairs: Iterable[tuple[str | bytes, str | bytes]] | Mapping[str, str]) -> dict[str, str]:
        """Return headers by name in lower case; several of one name are joined by commas.

        At most 128 headers and 16 KiB; values longer than 2048 characters are cut.
        """
        return headers.headers(pairs, self._headers)

    def query(self, raw: str | bytes) -> str:
        """Return a query as it was written, without the values of sensitive parameters; at most 4 KiB.

        It has no leading ``?``.
        """
        return addresses.query(raw.decode("latin-1") if isinstance(raw, bytes) else raw, self._queries)

    def url(self, text: str) -> str:
        """Return an address, absolute or relative, without credentials and secrets."""
        return addresses.url(text, self._queries)

    def body(
        self,
        content: bytes,
        content_type: str,
        limit: int,
        *,
        size: int | None = None,
        whole: bool = True,
        content_types: Sequence[str] | None = None,
        content_encoding: str = "",
    ) -> Body:
        """Return what may be shown of a body; ``Body.value`` takes at most ``limit`` bytes as JSON.

        Args:
            content: the body, or its beginning: no more is ever read than four times the limit and 16 KiB
                (1 MiB of multipart), so that is what is worth keeping (:meth:`worth_keeping`).
            content_type: the header.
            limit: bytes.
            size: of the whole body in bytes, if ``content`` is only its beginning.
            whole: False if ``content`` is only the beginning of a body whose size nobody knows.
            content_types: patterns of media types that are shown, such as ``text/*``; a leading ``!``
                excludes. None: all that are text.
            content_encoding: the header; bodies with one other than ``identity`` are not shown.
        """
        return body.body_of(
            content,
            content_type,
            limit,
            self._bodies,
            size=size,
            whole=whole,
            content_types=content_types,
            content_encoding=content_encoding,
        )

    @staticmethod
    def worth_keeping(limit: int) -> int:
        """Return how many bytes of a body of JSON or text :meth:`body` looks at for this limit."""
        return 4 * limit + body.LOOK_AHEAD

    def form(
        self,
        fields: Iterable[Field],
        files: Iterable[File],
        limit: int,
        *,
        size: int | None = None,
        content_type: str = "multipart/form-data",
    ) -> Body:
        """Return what may be shown of a form that the application has read: its body is gone.

        Args:
            fields: name and value of each; a name may come more than once.
            files: of each the name of its field, its own name, its size in bytes and its media type.
            limit: bytes of ``Body.value`` as JSON.
            size: of the whole body in bytes, if known.
            content_type: the header.
        """
        return body.form_of(fields, files, limit, self._bodies, size=size, content_type=content_type)

    def exception(self, error: BaseException) -> dict[str, str]:
        """Return ``exception.type``, ``.message`` and ``.stacktrace`` (the last frames); at most 8 KiB.

        The message is what the exception was made with; neither its ``__str__`` nor that of its arguments
        is called.
        """
        return exceptions.exception(error, self._redactor)

    def arguments(self, argv: Iterable[Any], secret: Collection[str] = ()) -> list[str]:
        """Return the arguments of a command without secrets; at most 8 KiB.

        Args:
            argv: without or with the name of the command. With it, short options of known programs
                (``mysql -px``) are known.
            secret: options whose value is a secret by what the command says of them: ``-p`` for
                ``--password``, those with hidden input.
        """
        return command_lines.arguments(argv, self._arguments, secret)

    def parameters(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str] = ()
    ) -> dict[str, Portable]:
        """Return ``{"args": […], "kwargs": {…}}`` of a task without secrets; at most 8 KiB.

        Nothing of the values is called, no ``__repr__`` or ``__str__``: what is no plain value is shown by
        the name of its class.

        Args:
            args: positional arguments.
            kwargs: named arguments.
            names: of the function's parameters, in order, so that positional secrets are known as such.
        """
        return parameters.parameters(args, kwargs, self._arguments, names)

    def value(self, value: Any, limit: int = _LIMIT) -> Portable:
        """Return any value (the result of a task) as :meth:`parameters` does; at most ``limit`` bytes."""
        return parameters.value(value, self._arguments, limit)

    def output(self, text: str, limit: int = _OUTPUT_LIMIT, *, size: int | None = None) -> str:
        """Return the end of what a command printed: readable, redacted, at most ``limit`` bytes of UTF-8.

        Args:
            text: the output, or what :meth:`OutputTail.text` kept of it.
            limit: bytes.
            size: characters of the whole output, if ``text`` is only its end.
        """
        return output.output(text, self._redactor, limit, size)
