"""What every task queue shares: who published a task, which ran, how it ended. Knows no library.

An instrumentor of a task queue makes one :class:`~otel_audit.tasks.recording.Tasks`. Where a task is
published, it calls::

    task = Task("shop.ship", "5c1b…", queue="orders", args=args, kwargs=kwargs)
    publication = tasks.publish(task)
    headers |= publication.headers        # to be carried by the message; may be empty
    publication.sent()                    # or publication.failed(error)

and where a worker runs it::

    run = tasks.begin(task, headers.get(HEADER, ""))
    run.end("SUCCESS", result)            # or run.end("FAILURE", error=error), run.end("RETRY", error=error)

Only ``publish`` raises, and only where ``on_error`` is ``fail_closed``: a task that cannot be recorded is not
published then. What a queue has delivered runs in any case.
"""
