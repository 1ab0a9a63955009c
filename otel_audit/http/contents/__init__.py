"""What a record shows of headers, addresses, bodies, arguments, output and exceptions; knows no framework.

Everything is redacted first, by the rules of its place, and then cut: no secret is cut in two. What a
function returns is portable and within its limit, and what it costs depends on the limit, not on what it was
given. Nothing here raises, and nothing of the application's is called.
"""

from otel_audit.http.contents.bodies.body import Body as Body
from otel_audit.http.contents.contents import Contents as Contents
from otel_audit.http.contents.output import OutputTail as OutputTail
