"""What every instrumentor of a database shares: it knows DB-API, and no library above it."""
