"""Our own SQL: what is asked of the database for old values, and how each database is asked.

PostgreSQL gives old and new values in one rewritten UPDATE; SQLite and MariaDB need a SELECT that holds the
rows (or SQLite's write lock) before it. DELETE and INSERT return their rows on all three. A plain SELECT
before would be wrong under load, and on SQLite would make the UPDATE fail with "database is locked".
"""
