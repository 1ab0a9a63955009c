"""WSGI: makes each request of an application a scope, and records those that were denied.

Knows no framework.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_audit import semconv
from otel_audit.audit_context import AuditContext, enter_context, leave_scope
from otel_audit.config.model import AuditConfig
from otel_audit.http.asgi import shown_path
from otel_audit.http.denials import DENYING, denial, record_denial
from otel_audit.http.headers import environ_name, wsgi_headers
from otel_audit.http.request_scope import SEEN, Endpoint, RequestScope, RequestSettings
from otel_audit.interruptions import faults
from otel_audit.location import view_name
from otel_audit.otel_api import current_span
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.propagation import annotate, enter, leave

if TYPE_CHECKING:
    from otel_audit.http.requests.wsgi import WSGIRecords

Environ = dict[str, Any]
Application = Callable[..., Iterable[bytes]]

_WERKZEUG: Final = "werkzeug.request"
"""Flask's toolkit keeps its request there; it knows the route."""
_FLASK: Final = "flask"


class WSGIRequestScope(RequestScope):
    """A request, by its WSGI environment."""

    __slots__ = ("_view", "_werkzeug", "application", "environ")

    def __init__(self, environ: Environ, settings: RequestSettings, application: Any = None) -> None:
        self.environ = environ
        self.application = application
        self._view: Any = None
        self._werkzeug: Any = None
        super().__init__(settings)

    @property
    def request(self) -> Any:
        """Werkzeug's request (Flask's) where there is one, otherwise the environment."""
        return self.werkzeug() or self.environ

    def werkzeug(self) -> Any:
        """Return Werkzeug's request if there is one; it is not there any more when a body streams."""
        found = self.environ.get(_WERKZEUG)
        if found is not None:
            self._werkzeug = found
            if self._view is None:
                self._view = _flask_view(found)
        return self._werkzeug

    def header(self, name: str) -> str:
        return str(self.environ.get(environ_name(name)) or "")

    def peer(self) -> str:
        return str(self.environ.get("REMOTE_ADDR") or "")

    def users(self) -> Iterator[Any]:
        yield getattr(self.werkzeug(), "user", None)
        yield self.environ.get("REMOTE_USER")  # of a server that authenticates by itself

    def method(self) -> str:
        return str(self.environ.get("REQUEST_METHOD") or "")

    def scheme(self) -> str:
        """Return ``https`` or ``http``."""
        return str(self.environ.get("wsgi.url_scheme") or "")

    def query(self) -> str:
        """Return the query string as it came."""
        return str(self.environ.get("QUERY_STRING") or "")

    def headers(self) -> list[tuple[str, str]]:
        """Return all headers."""
        return wsgi_headers(self.environ)

    def view(self) -> Any:
        """Return Flask's function that answers, known as long as it answers; else the application."""
        self.werkzeug()
        return self._view or self.application

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of the path."""
        return getattr(self.werkzeug(), "view_args", None) or {}

    def endpoint(self) -> Endpoint:
        request = self.werkzeug()
        rule = getattr(request, "url_rule", None)
        return Endpoint(
            str(getattr(rule, "rule", "") or ""),
            shown_path(self.path(), getattr(request, "view_args", None) or {}, self.settings.show),
            view_name(getattr(self._view, "view_class", self._view))
            or str(getattr(rule, "endpoint", "") or ""),
        )

    def path(self) -> str:
        """Return the path as text; WSGI has it as bytes in disguise."""
        path = f"{self.environ.get('SCRIPT_NAME') or ''}{self.environ.get('PATH_INFO') or ''}"
        return path.encode("latin-1", "replace").decode("utf-8", "replace")

    def routed(self) -> Any:
        return id(getattr(self.werkzeug(), "url_rule", None))


def _flask_view(request: Any) -> Any:
    """Return the function, or what ``as_view()`` made, that Flask's route of a request leads to."""
    flask, rule = sys.modules.get(_FLASK), getattr(request, "url_rule", None)
    if flask is None or rule is None:
        return None
    try:
        application: Any = flask.current_app  # false where none is: in the body of an answer, behind it
        return application.view_functions.get(rule.endpoint) if application else None
    except faults():  # a Flask to come
        return None


class WSGIAuditMiddleware:
    """WSGI middleware: put it around the application.

    ::

        app.wsgi_app = WSGIAuditMiddleware(app.wsgi_app)  # Flask

    Who acts is what ``context.actor_from`` or :func:`otel_audit.set_actor` says, else ``REMOTE_USER``. Passes
    everything through while audit is not running.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self._config: AuditConfig | None = None
        self._settings: RequestSettings | None = None
        self._records: WSGIRecords | None = None

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        settings = self._current_settings()
        if settings is None or SEEN in environ:
            return self.app(environ, start_response)
        request = WSGIRequestScope(environ, settings, self.app)
        environ[SEEN] = request.id
        context = AuditContext(request)
        token = enter_context(context)
        baggage = enter(request.baggage, visible=settings.visible)
        records = self._records
        recording = None if records is None else records.recording(request, context)
        try:
            if records is not None and recording is not None:
                request.recording = recording
                records.begin(recording, environ)
            body = self.app(environ, self._watched(context, request, start_response))
            file_wrapper = environ.get("wsgi.file_wrapper")
            finished = (list, tuple, file_wrapper) if isinstance(file_wrapper, type) else (list, tuple)
            if isinstance(body, finished):
                if recording is not None:
                    if isinstance(body, list | tuple):  # of a file that the server sends, nobody knows
                        for piece in body:
                            recording.sent(piece)
                    recording.end()
                request.ended = True  # nothing of the application runs any more
                return body
            return _Body(body, context, request)
        except BaseException as error:
            if recording is not None:
                recording.failed(error)
                recording.end()
            request.ended = True
            raise
        finally:
            leave(baggage)
            leave_scope(token)

    def _current_settings(self) -> RequestSettings | None:
        pipeline = provider.current()
        if pipeline is None:
            return None
        if self._settings is None or pipeline.config is not self._config:
            self._config = pipeline.config
            self._settings = RequestSettings.of(pipeline.config)
            self._records = None
            if pipeline.config.requests.enabled:
                from otel_audit.http.requests.wsgi import WSGIRecords

                failures = Failures("WSGI", pipeline.config, provider.current_health)
                self._records = WSGIRecords(pipeline.config, provider.current_logger, failures)
        return self._settings

    def _watched(
        self, context: AuditContext, request: WSGIRequestScope, start_response: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Wrap ``start_response``: the status says whether the request was denied."""

        def starting(status: Any, headers: Any, *args: Any) -> Any:
            request.werkzeug()
            annotate(current_span(), context)
            code = int(status[:3]) if isinstance(status, str) and status[:3].isdecimal() else 0
            if self._records is not None and request.recording is not None:
                self._records.answered(request.recording, code, headers)
            if code in DENYING:
                self._look(request, code, headers)
            return start_response(status, headers, *args)

        return starting

    def _look(self, request: WSGIRequestScope, status: int, headers: Any) -> None:
        logger = provider.current_logger()
        if logger is None:
            return
        try:
            location = next((str(value) for name, value in headers if name.lower() == "location"), "")
            query = request.environ.get("QUERY_STRING") or ""
            asked = f"{request.path()}?{query}" if query else request.path()
            host = f"{request.environ.get('wsgi.url_scheme')}://{request.environ.get('HTTP_HOST')}"
            error = denial(status, location, lambda address: address in (asked, host + asked))
            if error is None:
                return
            route, path, _ = request.endpoint()
        except faults() as fault:
            Failures("WSGI", logger.config, provider.current_health).report("denial", fault, lost=1)
            return
        record_denial(logger, route or path, error, {semconv.STATUS_CODE: status})


class _Body:
    """A body that is produced piece by piece: in the context of its request, until it is closed."""

    def __init__(self, body: Iterable[bytes], context: AuditContext, request: WSGIRequestScope) -> None:
        self._body = body
        self._pieces = iter(body)
        self._context = context
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = enter_context(self._context)
        try:
            piece = next(self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            if self._request.recording is not None:
                self._request.recording.failed(error)
            raise
        finally:
            leave_scope(token)
        if self._request.recording is not None:
            self._request.recording.sent(piece, streams=True)
        return piece

    def close(self) -> None:
        """Close what the application has given, as a server does at the end (PEP 3333)."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                token = enter_context(self._context)
                try:
                    close()
                finally:
                    leave_scope(token)
        finally:
            if self._request.recording is not None:
                self._request.recording.end()
            self._request.ended = True
