"""The way of a record from the logger to the sink: logger, transaction buffer, spool, delivery.

``provider.start`` builds the pipeline of this process. ``spool.status.read_status`` and
``delivery.drain.drain`` look into a spool directory from outside.
"""
