"""For tests of applications: check what was recorded, what was not, and that no secret was.

::

    with capture_audit() as captured:
        client.post("/orders/7/", {"status": "paid"})
    assert captured.requests[0].status == 302
    assert captured.changes[0].new == {"status": "paid"}
    captured.assert_no_secrets("hunter2")
    captured.assert_every_write_recorded()

pytest has it as the fixture ``audited`` (:mod:`otel_audit.pytest_plugin`).
"""

from otel_audit.testing.captured_audit import CapturedAudit
from otel_audit.testing.capturing import AuditCapture, capture_audit
from otel_audit.testing.instrumented import NOT_INSTRUMENTED, is_instrumented
from otel_audit.testing.parts import (
    CapturedCall,
    CapturedChange,
    CapturedCommand,
    CapturedLogin,
    CapturedPart,
    CapturedPublish,
    CapturedRead,
    CapturedRequest,
    CapturedRun,
)

__all__ = [
    "NOT_INSTRUMENTED",
    "AuditCapture",
    "CapturedAudit",
    "CapturedCall",
    "CapturedChange",
    "CapturedCommand",
    "CapturedLogin",
    "CapturedPart",
    "CapturedPublish",
    "CapturedRead",
    "CapturedRequest",
    "CapturedRun",
    "capture_audit",
    "is_instrumented",
]
