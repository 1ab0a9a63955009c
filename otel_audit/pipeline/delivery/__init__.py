"""From the spool to the sink: rounds over all streams, one stream, one request.

Importing any of it loads all that sending needs, HTTP and protobuf: some 100 ms. The sender does so once
there is something to send.
"""

from otel_audit.pipeline.delivery import rounds as rounds
