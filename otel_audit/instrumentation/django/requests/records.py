"""A request to Django, recorded: what its views have read of it, and the response they made."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase

from otel_audit.audit_context import AuditContext, current_context
from otel_audit.http.contents.bodies.media_types import is_shown, media_type
from otel_audit.http.copies import Copy, CopyingInput
from otel_audit.http.headers import environ_name, size_in, wsgi_headers
from otel_audit.http.requests.bodies import sent_body
from otel_audit.http.requests.recorder import RequestRecords
from otel_audit.http.requests.recording import RequestRecording
from otel_audit.instrumentation.django.scope import RequestScope
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.http.contents import Body, Contents

_STREAM: Final = "_stream"


class DjangoRequest:
    """A request as Django has it: nothing of it is read, parsed or evaluated."""

    __slots__ = ("_behind_proxy", "_scope", "request")

    def __init__(self, scope: RequestScope, *, behind_proxy: bool) -> None:
        self._behind_proxy = behind_proxy
        self._scope = scope
        self.request: HttpRequest = scope.request

    def method(self) -> str:
        """Return the method."""
        return self.request.method or ""

    def path(self) -> str:
        """Return the whole path."""
        return self.request.path

    def scheme(self) -> str:
        """Return ``https`` or ``http``, as Django finds out where the settings tell it how."""
        if self._behind_proxy:
            return self.request.scheme or ""
        return self.request._get_scheme() or ""  # type: ignore[attr-defined]

    def query(self) -> str:
        """Return the query string as it came."""
        return str(self.request.META.get("QUERY_STRING") or "")

    def header(self, name: str) -> str:
        """Return a header by its lower-case name; empty if there is none."""
        return header_of(self.request, name)

    def headers(self) -> list[tuple[str, str]]:
        """Return all headers."""
        return wsgi_headers(self.request.META)

    def address(self) -> str:
        """Return the address of the client."""
        return self._scope.address()[0]

    def view(self) -> Any:
        """Return the function that answers; None as long as it is not known."""
        match = self.request.resolver_match
        return None if match is None else match.func

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of the path."""
        match = self.request.resolver_match
        return {} if match is None else match.kwargs


def header_of(request: HttpRequest, name: str) -> str:
    """Return a header by its lower-case name; empty if there is none."""
    return str(request.META.get(environ_name(name)) or "")


class DjangoRecords(RequestRecords):
    """Records the requests of Django's handlers."""

    _behind_proxy: bool | None = None
    """Whether a header says the scheme; a look at a setting of Django's takes longer than all else here."""

    def begin(self, context: AuditContext, scope: RequestScope, outer: Any) -> None:
        """Begin with a request, unless it is not recorded. Never raises.

        Args:
            context: its context.
            scope: its scope.
            outer: the scope of the same request that an application around Django has made, if any.
        """
        if self._behind_proxy is None:
            self._behind_proxy = bool(settings.SECURE_PROXY_SSL_HEADER)
        recording = self.recording(DjangoRequest(scope, behind_proxy=self._behind_proxy), context)
        if recording is None:
            return
        if outer is not None and outer.recording is not None:
            recording.within(outer.recording)
        scope.recording = recording
        if not recording.may_want_request:
            return
        try:
            self._watch_body(scope.request, recording)
        except faults() as fault:  # a request of somebody's own class
            self.failures.note("body", fault)

    def _watch_body(self, request: HttpRequest, recording: RequestRecording) -> None:
        """Have a copy of what the view reads by itself, as REST framework does."""
        if recording.is_within or not recording.wants_request_body():
            return
        stream = request.__dict__.get(_STREAM)
        if stream is not None and not _is_multipart(request):
            recording.request_copy = Copy(self.copied)
            request.__dict__[_STREAM] = CopyingInput(stream, recording.request_copy)
        recording.request_body = partial(_request_body, request, recording)

    def answered(self, recording: RequestRecording, response: HttpResponseBase) -> None:
        """Note the response; never raises."""
        try:
            recording.answered(response.status_code, response.items() if recording.wants_response else ())
            if isinstance(response, HttpResponse):
                recording.sent(response.content)
            elif isinstance(response, FileResponse):
                recording.response_size = size_in(response.headers.get("content-length", ""))
        except faults() as fault:  # a response of somebody's own class
            self.failures.note("message", fault)

    def failed(self, *, request: Any, **_: Any) -> None:
        """Take the exception that Django makes a response of, and that nobody else has handled."""
        context, error = current_context(), sys.exception()
        scope = None if context is None else context.scope
        recording = scope.recording if isinstance(scope, RequestScope) and scope.request is request else None
        if recording is not None and error is not None:
            recording.failed(error)


def _is_multipart(request: HttpRequest) -> bool:
    return str(request.META.get("CONTENT_TYPE") or "").lower().startswith("multipart/")


def _request_body(
    request: HttpRequest,
    recording: RequestRecording,
    contents: Contents,
    limit: int,
    types: Sequence[str],
) -> Body | None:
    """Return what may be recorded of the body, as far as the view has read it."""
    known = request.__dict__
    kind = str(request.META.get("CONTENT_TYPE") or "")
    body = known.get("_body")
    if isinstance(body, bytes):
        return contents.body(body, kind, limit, size=len(body), content_types=types) if body else None
    if _is_multipart(request):
        return _form(known.get("_post"), known.get("_files"), contents, kind, limit, types)
    if recording.request_copy is None:
        return None
    return sent_body(recording.request_copy, partial(header_of, request), contents, limit, types)


def _form(
    post: Any, files: Any, contents: Contents, kind: str, limit: int, types: Sequence[str]
) -> Body | None:
    """Return what may be recorded of a form that Django has parsed; None if nobody has asked it to."""
    if post is None or files is None or not is_shown(media_type(kind).name, types):
        return None
    fields = [(name, value) for name, values in post.lists() for value in values]
    uploads = [
        (name, str(each.name or ""), each.size, str(each.content_type or ""))
        for name, values in files.lists()
        for each in values
    ]
    return contents.form(fields, uploads, limit, content_type=kind)
