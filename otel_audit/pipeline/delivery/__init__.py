"""From the spool to the sink: the thread, its rounds over all streams, one stream, one request."""
