"""The way of a record from the logger to the sink: logger, transaction buffer, spool, sealing, sender."""
