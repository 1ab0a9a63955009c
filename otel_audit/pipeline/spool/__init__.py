"""The spool: append-only segment files on disk, where a record lives until the sink has acknowledged it."""
