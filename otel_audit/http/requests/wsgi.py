"""A request to a WSGI application, recorded: what it reads, and the body it returns if that is whole."""

from __future__ import annotations

from typing import Any, Final

from otel_audit.http.copies import Copy, CopyingInput
from otel_audit.http.requests.recorder import RequestRecords
from otel_audit.http.requests.recording import RequestRecording
from otel_audit.interruptions import faults

_INPUT: Final = "wsgi.input"


class WSGIRecords(RequestRecords):
    """Records the requests of WSGI applications."""

    def begin(self, recording: RequestRecording, environ: dict[str, Any]) -> None:
        """Have a copy of what the application reads, if one may be wanted; write the intent if asked for."""
        if recording.wants_request_copy() and environ.get(_INPUT) is not None:
            recording.request_copy = Copy(self.copied)
            environ[_INPUT] = CopyingInput(environ[_INPUT], recording.request_copy)
        if self.starts:
            recording.begin()

    def answered(self, recording: RequestRecording, status: int, headers: Any) -> None:
        """Note status and headers of the answer; never raises."""
        try:
            wanted = headers if recording.wants_response else ()
            recording.answered(status or None, [(str(name), str(value)) for name, value in wanted])
        except faults() as fault:  # the server says what is wrong with them
            self.failures.note("message", fault)
